"""Question 2: does a minority group lose more than majority samples of the same label and margin?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .max_statistic import ranks_and_adjusted

Array = NDArray[np.float64]

PERMUTATIONS = 9999
NEIGHBORS = 5
"""At most this number of majority samples stand beside each minority sample."""
CALIPER = 0.25
"""They may differ from it by this number of standard deviations of the margin."""

_CHUNK = 4_000_000
"""Numbers that are held at once."""


@dataclass(frozen=True, eq=False, kw_only=True)
class GroupEffects:
    """What several edits do to a minority group and to the majority of its label.

    Arguments:
        is_minority: [samples].
        half: number of the half of each sample, [samples]. Samples are compared within their half, since each half has
            units that were selected on the other one.
        margin_before: [samples].
        accuracy_change: [edits, samples].
        margin_change: [edits, samples].
    """

    is_minority: NDArray[np.bool_]
    half: NDArray[np.int64]
    margin_before: Array
    accuracy_change: Array
    margin_change: Array


@dataclass(frozen=True, kw_only=True)
class Selectivity:
    """Whether a minority group loses more than majority samples of the same label and margin.

    Arguments:
        difference: drop of the accuracy of the minority minus that of the majority samples beside it; nan if none have
            any.
        p: adjusted p-value of the difference.
        p_margin: the same for the drop of the margin.
        majority_change: mean accuracy change of the majority samples beside the minority.
        overlap: share of the minority samples beside which there are majority samples.
        n_minority, n_majority: numbers of samples that are compared.
    """

    difference: float
    p: float
    p_margin: float
    majority_change: float
    overlap: float
    n_minority: int
    n_majority: int


def selectivity(
    groups: Sequence[GroupEffects], *, n_permutations: int = PERMUTATIONS, seed: int = 0
) -> list[list[Selectivity]]:
    """Compare minority samples with the majority samples that are nearest to them in margin.

    Each minority sample gets up to five majority samples of its label and half, each of which is used once, within a
    caliper of 0.25 standard deviations of the margin. Under the null hypothesis any member of such a matched set is
    equally likely to be the minority sample. One permutation holds for all edits of a group, and all groups and edits
    form one family (see `ranks_and_adjusted`).

    Arguments:
        groups: the minority groups, each with the same family of edits.
        n_permutations: number of permutations.
        seed: of the permutations.

    Returns:
        For each group, the answer for each edit.
    """
    rng = np.random.default_rng([seed, 0x5E1EC7])
    matched = [matched_sets(of.margin_before, of.is_minority, of.half) for of in groups]
    accuracy, margins = [], []
    for of, sets in zip(groups, matched, strict=True):
        slots = _permutations(sets, n_permutations, rng)
        accuracy.append(_differences(-of.accuracy_change.round(12), sets, slots))
        margins.append(_differences(-of.margin_change, sets, slots))
    _, p = ranks_and_adjusted(np.hstack(accuracy))
    _, p_margin = ranks_and_adjusted(np.hstack(margins))
    found, test = [], 0
    for of, sets, differences in zip(groups, matched, accuracy, strict=True):
        rows = []
        for edit in range(len(of.accuracy_change)):
            rows.append(
                Selectivity(
                    difference=float(differences[0, edit]),
                    p=float(p[test]),
                    p_margin=float(p_margin[test]),
                    majority_change=_mean_beside(of.accuracy_change[edit], sets),
                    overlap=len(sets) / max(1, int(of.is_minority.sum())),
                    n_minority=len(sets),
                    n_majority=int((sets[:, 1:] >= 0).sum()),
                )
            )
            test += 1
        found.append(rows)
    return found


def matched_sets(margin: Array, is_minority: NDArray[np.bool_], half: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each minority sample, with the majority samples beside it.

    The minority samples choose in turn, each time the nearest majority sample that is left, until each has five or none
    is within the caliper.

    Arguments:
        margin: [samples].
        is_minority: [samples].
        half: [samples].

    Returns:
        Positions of the samples, [minority samples, 1 + neighbors]: first the minority sample; -1 stands for no
        neighbor. Minority samples without a neighbor are left out.
    """
    rows = []
    for number in np.unique(half[is_minority]):
        own, others = (np.flatnonzero((half == number) & (is_minority == side)) for side in (True, False))
        if not len(others):
            continue
        caliper = CALIPER * float(margin[np.concatenate([own, others])].std())
        others = others[np.argsort(margin[others], kind="stable")]
        sets = np.full((len(own), 1 + NEIGHBORS), -1)
        sets[:, 0] = own
        free = _Free(margin[others])
        for turn in range(1, 1 + NEIGHBORS):
            for place in _in_turn(margin[own], turn):
                nearest = free.take(margin[own[place]], caliper)
                if nearest >= 0:
                    sets[place, turn] = others[nearest]
        rows.append(sets[(sets[:, 1:] >= 0).any(1)])
    return np.concatenate(rows) if rows else np.zeros((0, 1 + NEIGHBORS), np.int64)


def _in_turn(margins: Array, turn: int) -> NDArray[np.int64]:
    """The order in which minority samples choose: by margin, from below and from above in turns."""
    order = np.argsort(margins, kind="stable")
    return order if turn % 2 else order[::-1]


class _Free:
    """Sorted numbers, of which the nearest one that is left can be taken."""

    def __init__(self, values: Array) -> None:
        self.values = values
        n = len(values)
        self.below = np.arange(-1, n)  # of position + 1: the last free position at or before it, as position
        self.above = np.arange(n + 1)  # the first free position at or after it

    def take(self, value: float, within: float) -> int:
        """Take the number nearest to `value`; give its position, or -1 if none is within this distance."""
        start = int(np.searchsorted(self.values, value))
        high = self._first_above(start)
        low = self._last_below(start - 1)
        distance = [
            abs(self.values[place] - value) if 0 <= place < len(self.values) else math.inf for place in (low, high)
        ]
        if min(distance) > within:
            return -1
        taken = low if distance[0] <= distance[1] else high
        self.above[taken] = taken + 1
        self.below[taken + 1] = taken - 1
        return taken

    def _first_above(self, place: int) -> int:
        while self.above[place] != place:
            self.above[place] = self.above[self.above[place]]
            place = int(self.above[place])
        return place

    def _last_below(self, place: int) -> int:
        while self.below[place + 1] != place:
            self.below[place + 1] = self.below[self.below[place + 1] + 1]
            place = int(self.below[place + 1])
        return place


def _permutations(sets: NDArray[np.int64], n: int, rng: np.random.Generator) -> NDArray[np.int8]:
    """The member of each set that plays the minority sample, [1 + permutations, sets]; in the first row it does so."""
    members = (sets >= 0).sum(1)
    drawn = np.zeros((n + 1, len(sets)), np.int8)
    drawn[1:] = (rng.random((n, len(sets)), dtype=np.float32) * members).astype(np.int8)
    return drawn


def _differences(drop: Array, sets: NDArray[np.int64], slots: NDArray[np.int8]) -> Array:
    """Mean over the sets of: drop of the chosen member minus the mean drop of the others, [1 + permutations, edits]."""
    if not len(sets):
        return np.full((len(slots), len(drop)), np.nan)
    sets = np.take_along_axis(sets, np.argsort(sets < 0, axis=1, kind="stable"), axis=1)  # missing members come last
    is_there = sets >= 0
    others = is_there.sum(1) - 1
    result = np.empty((len(slots), len(drop)))
    step = max(1, _CHUNK // len(sets))
    for number, values in enumerate(drop):
        of_sets = np.where(is_there, values[sets], 0.0)
        # chosen - (total - chosen) / others
        if_chosen = of_sets * (1 + 1 / others)[:, None] - (of_sets.sum(1) / others)[:, None]
        for first in range(0, len(slots), step):
            chosen = slots[first : first + step]
            result[first : first + step, number] = np.take_along_axis(
                if_chosen.T, chosen.astype(np.int64), axis=0
            ).mean(1)
    return result


def _mean_beside(values: Array, sets: NDArray[np.int64]) -> float:
    """Mean over the sets of the mean over a set's majority samples; nan if there are none."""
    if not len(sets):
        return math.nan
    beside = sets[:, 1:]
    is_there = beside >= 0
    means = np.where(is_there, values[beside], 0.0).sum(1) / is_there.sum(1)
    return float(means.mean())
