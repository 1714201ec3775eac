"""Question 3: among sets that disturb the network as much, does this one hit the group's training samples harder?

Every damage lowers the margins of training samples further than those of unseen samples, since training margins are
larger. So such a contrast is never evidence by itself. It is compared with that of damage-matched sets: random sets of
the same layers and of any size that disturb the network about as much.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .max_statistic import TIE

Array = NDArray[np.float64]

FACTOR = 1.25
"""Damage-matched sets have a damage within this factor."""

MIN_MATCHED = 19
"""With fewer damage-matched sets no p-value can reach 0.05."""

FROM_ABOVE = 49
"""Number of random sets that stand beside a set if too few match its damage."""


@dataclass(frozen=True, eq=False, kw_only=True)
class SetEffects:
    """What edits on several sets do.

    Arguments:
        damage: root mean square of the margin change on majority and unseen samples, [sets].
        drop: drop of the group's accuracy on the samples of the split, [sets].
        contrast: how much further the margin of the group's training samples falls than that of its unseen samples,
            [sets]; nan if there are none.
    """

    damage: Array
    drop: Array
    contrast: Array


@dataclass(frozen=True, kw_only=True)
class DamageMatched:
    """A selected set among its damage-matched sets.

    Arguments:
        n: number of damage-matched sets.
        n_near: number of them within the factor; the others have a larger damage.
        damage: of the selected set.
        damage_ratio: median damage of the damage-matched sets over that of the selected set. It is above 1.25 if most
            of them disturb the network more.
        p_localized: rank of the group's drop.
        drop: median drop of the damage-matched sets.
        p_memorizing: rank of the contrast; nan if there are no unseen samples of the group.
        contrast: of the selected set.
        contrast_matched: median contrast of the damage-matched sets.
    """

    n: int
    n_near: int
    damage: float
    damage_ratio: float
    p_localized: float
    drop: float
    p_memorizing: float
    contrast: float
    contrast_matched: float


def damage_matched(selected: SetEffects, random: SetEffects) -> DamageMatched:
    """Rank a selected set among the random sets that match its damage.

    Arguments:
        selected: effects of the one selected set.
        random: effects of random sets of many sizes from the same layers.
    """
    chosen = matching(float(selected.damage[0]), random.damage)
    n, damage = int(chosen.sum()), float(selected.damage[0])
    contrast = float(selected.contrast[0])
    some = n > 0
    return DamageMatched(
        n=n,
        n_near=int(_is_near(damage, random.damage).sum()),
        damage=damage,
        damage_ratio=float(np.median(random.damage[chosen])) / damage if some and damage > 0 else math.nan,
        p_localized=_rank(float(selected.drop[0]), random.drop[chosen]),
        drop=float(np.median(random.drop[chosen])) if some else math.nan,
        p_memorizing=_rank(contrast, random.contrast[chosen]),
        contrast=contrast,
        contrast_matched=float(np.median(random.contrast[chosen])) if some else math.nan,
    )


def matching(damage: float, of_random: ArrayLike) -> NDArray[np.bool_]:
    """Which random sets are compared with a set of this damage, [sets].

    They are those within a factor of 1.25. If fewer than 19 are, the nearest of those that disturb the network more
    take part, up to 49 in all. These are expected to have larger drops and contrasts, so that the comparison stays on
    the safe side.
    """
    of_random = np.asarray(of_random, float)
    chosen = _is_near(damage, of_random)
    if chosen.sum() < MIN_MATCHED:
        above = np.flatnonzero(of_random > damage * FACTOR)
        chosen[above[np.argsort(of_random[above], kind="stable")][: FROM_ABOVE - int(chosen.sum())]] = True
    return chosen


def _is_near(damage: float, of_random: Array) -> NDArray[np.bool_]:
    near: NDArray[np.bool_] = (of_random <= damage * FACTOR) & (of_random >= damage / FACTOR)
    return near


def _rank(value: float, null: Array) -> float:
    """(1 + null values at least as large) / (1 + null values); nan where there is nothing to compare."""
    if math.isnan(value) or not len(null) or np.isnan(null).any():
        return math.nan
    return float((1 + (null >= value - TIE).sum()) / (1 + len(null)))
