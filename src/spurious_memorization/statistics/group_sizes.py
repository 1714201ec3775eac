"""How many samples a group needs, so that the verdicts `critical` and `memorizing` can be reached at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from .selectivity import GroupEffects, selectivity
from .sequential import LEVEL
from .verdicts import MIN_OVERLAP

MIN_UNSEEN = 1
"""The contrast needs unseen samples of the group."""
MAX_TRIED = 60


@dataclass(frozen=True, kw_only=True)
class GroupTooSmall:
    """A minority group with too few samples for a verdict.

    Arguments:
        group: its name.
        verdict: the verdict that can't be reached.
        counted: the samples that are too few, in words.
        found: their number.
        needed: the smallest number with which the verdict can be reached; None if no number is enough.
        n_majority: number of training samples in majority groups of the same label.
    """

    group: str
    verdict: str
    counted: str
    found: int
    needed: int | None
    n_majority: int

    def __str__(self) -> str:
        if self.needed is None:
            return f"{self.group}: {self.n_majority} majority samples of its label are too few for {self.verdict!r}"
        return f"{self.group}: {self.found} {self.counted}, {self.verdict!r} needs at least {self.needed}"


def groups_too_small(
    names: Sequence[str],
    *,
    n_classes: int,
    train: Sequence[int],
    unseen: Sequence[int],
    minority: Sequence[str],
    majority: Sequence[str],
) -> list[GroupTooSmall]:
    """The minority groups for which a study of the train split can't reach a verdict, however large the effect is.

    Arguments:
        names: name of each group, ordered by label and then by attribute.
        n_classes: number of labels.
        train: number of training samples of each group.
        unseen: number of val and test samples of each group.
        minority, majority: names of the minority and majority groups.
    """
    n_attributes = len(names) // n_classes
    found = []
    for g, name in enumerate(names):
        if name not in minority:
            continue
        first = g // n_attributes * n_attributes
        of_label = range(first, first + n_attributes)
        n_majority = sum(train[other] for other in of_label if names[other] in majority)
        needed = smallest_testable_minority(n_majority)
        for verdict, counted, number, least in (
            ("critical", "in train", train[g], needed),
            ("memorizing", "in val and test", unseen[g], MIN_UNSEEN),
        ):
            if least is None or number < least:
                found.append(
                    GroupTooSmall(
                        group=name,
                        verdict=verdict,
                        counted=counted,
                        found=number,
                        needed=least,
                        n_majority=n_majority,
                    )
                )
    return found


@cache
def smallest_testable_minority(n_majority: int) -> int | None:
    """The smallest minority group that can be selective, found by the test itself.

    The effect is the largest possible one: all minority samples become wrong, and no majority sample of the label does.
    Both have the same distribution of margins, and each half is tested with units that the other half selected.

    Arguments:
        n_majority: number of majority samples of the same label.

    Returns:
        The number of samples; None if even a large minority can't be selective beside so few majority samples.
    """
    if not n_majority:
        return None
    return next((n for n in range(2, MAX_TRIED) if _can_be_selective(n, n_majority)), None)


def _can_be_selective(n_minority: int, n_majority: int) -> bool:
    member = np.repeat([True, False], [n_minority, n_majority])
    margin = np.concatenate([_evenly_spread(n_minority), _evenly_spread(n_majority)])
    half = np.concatenate([np.arange(n_minority) % 2, np.arange(n_majority) % 2])
    drops = -member.astype(float)[None]
    effects = GroupEffects(
        is_minority=member, half=half, margin_before=margin, accuracy_change=drops, margin_change=drops
    )
    ((result,),) = selectivity([effects])
    return result.overlap >= MIN_OVERLAP and result.p <= LEVEL


def _evenly_spread(n: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return (np.arange(n) + 0.5) / n
