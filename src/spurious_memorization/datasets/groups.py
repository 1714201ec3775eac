"""Groups: pairs of a label and a spurious attribute, with their names, counts and lift."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from string import Formatter

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..input_files import shown

MINORITY_LIFT = 0.5
MAJORITY_LIFT = 1.0
MAX_GROUPS = 10_000
MAX_TEMPLATE = 200


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

    def __post_init__(self) -> None:
        if len(self) > MAX_GROUPS:
            raise UserError(
                f"{len(self.classes):,} classes x {len(self.attributes):,} attribute values are {len(self):,} groups, "
                f"more than the {MAX_GROUPS:,} allowed: choose columns with fewer different values"
            )
        try:
            check_template(self.template)
        except ValueError as error:
            raise UserError(f"group_name: {error}") from error
        if len(set(self.names)) < len(self):
            twice = next(name for name, n in Counter(self.names).items() if n > 1)
            raise UserError(f"two groups have the name {twice!r}: change the names, or group_name in dataset.yaml")

    def __len__(self) -> int:
        return len(self.classes) * len(self.attributes)

    @cached_property
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
        text = str(group).strip()
        if isinstance(group, str) and text in self.names:
            return self.names.index(text)
        if text.isdecimal() and len(text) < 10 and int(text) < len(self):
            return int(text)
        first = ", ".join(map(repr, self.names[:10]))
        more = f" and {len(self) - 10} more" if len(self) > 10 else ""
        raise UserError(f"no group {shown(text)!r}: choose among {first}{more} or 0..{len(self) - 1}")


def check_template(template: str) -> None:
    """Check that a template of group names holds text, `{label}` and `{attribute}`, and nothing else.

    Raises:
        ValueError: the template is too long, not printable, or has other braces, format specifications or conversions.
    """
    if len(template) > MAX_TEMPLATE or not template.isprintable():
        raise ValueError(f"use at most {MAX_TEMPLATE} printable characters")
    plain = {("label", "", None), ("attribute", "", None), (None, None, None)}
    try:
        fields = {(field, spec, conversion) for _, field, spec, conversion in Formatter().parse(template)}
    except ValueError as error:
        raise ValueError("use {label} and {attribute}, and no other braces") from error
    if not fields <= plain:
        raise ValueError("use {label} and {attribute}, and no other braces")


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
