"""Groups: pairs of a label and a spurious attribute, with their names, counts and lift."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError

MINORITY_LIFT = 0.5
MAJORITY_LIFT = 1.0


@dataclass(frozen=True)
class Groups:
    """The groups of a data set: group index `g = y * n_attributes + a` (You et al. 2025, Methods).

    Arguments:
        classes: name of each class, in the order of the network's outputs.
        attributes: name of each value of the spurious attribute.
        template: the group's name, with `{label}` and `{attribute}` to be filled in.
    """

    classes: tuple[str, ...]
    attributes: tuple[str, ...]
    template: str = "{label} with {attribute}"

    def __len__(self) -> int:
        return len(self.classes) * len(self.attributes)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.template.format(label=c, attribute=a) for c in self.classes for a in self.attributes)

    def of(self, y: NDArray[np.int64], a: NDArray[np.int64]) -> NDArray[np.int64]:
        """Group index of each sample, [samples], from labels and attributes, each [samples]."""
        return y * len(self.attributes) + a

    def label_of(self, group: int) -> int:
        return group // len(self.attributes)

    def index(self, group: str | int) -> int:
        """Index of a group that is given by name or by number.

        Raises:
            UserError: no group has this name or number.
        """
        if isinstance(group, str) and not group.strip().isdecimal():
            if group in self.names:
                return self.names.index(group)
        elif 0 <= int(group) < len(self):
            return int(group)
        raise UserError(f"no group {group!r}: choose among {', '.join(map(repr, self.names))} or 0..{len(self) - 1}")


def group_counts(groups: Groups, g: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number of samples in each group, shape [groups]."""
    return np.bincount(g, minlength=len(groups)).astype(np.int64)


def lift(groups: Groups, counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Each group's count divided by the count expected if label and attribute were independent.

    Arguments:
        counts: training count of each group, shape [groups].

    Returns:
        Lift of each group, shape [groups]; nan if the expected count is 0 (an unused label or attribute).
    """
    table = counts.reshape(len(groups.classes), len(groups.attributes)).astype(float)
    expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / max(table.sum(), 1)
    values: NDArray[np.float64] = np.divide(table, expected, out=np.full_like(table, np.nan), where=expected > 0)
    return values.ravel()


def minority_groups(groups: Groups, counts: NDArray[np.int64]) -> tuple[int, ...]:
    """The groups with a training lift under 0.5. Empty groups are left out."""
    values = lift(groups, counts)
    return tuple(int(g) for g in np.flatnonzero((values < MINORITY_LIFT) & (counts > 0)))


def majority_groups(groups: Groups, counts: NDArray[np.int64]) -> tuple[int, ...]:
    """The groups with a training lift over 1."""
    return tuple(int(g) for g in np.flatnonzero(lift(groups, counts) > MAJORITY_LIFT))
