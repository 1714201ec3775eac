"""Permutation and rank tests: is a set influential, and is it selective for a minority group?

These are pure functions on arrays. Each p-value is one-sided: (1 + null values at least as large) / (1 + null values),
with ties counted as at least as large.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

PERMUTATIONS = 9999

TIE = 1e-9
"""Values that differ by less than this count as equal."""


def influence(selected: ArrayLike, controls: ArrayLike) -> tuple[Array, Array]:
    """Does the selected set lower the accuracy more than matched random units do?

    One family of tests covers several sizes and groups. The p-values are adjusted by the step-down maximum statistic
    of Westfall and Young (1993, algorithm 2.8). The statistic is the drop, studentized by the mean and the standard
    deviation over the selected set and its controls together. So all of them are exchangeable if the selected units
    are no better than random ones.

    Arguments:
        selected: accuracy change of the selected set in each test, [tests]; nan where there is nothing to test.
        controls: accuracy change of each control in each test, [controls, tests]; control k is the same random ranking
            in every test.

    Returns:
        p and adjusted p, each [tests]; nan where there is nothing to test.
    """
    drops = -np.vstack([np.atleast_1d(np.asarray(selected, float)), np.asarray(controls, float)])
    n, is_tested = len(drops) - 1, ~np.isnan(drops).any(0)
    p, adjusted = np.full(drops.shape[1], np.nan), np.full(drops.shape[1], np.nan)
    if not n or not is_tested.any():
        return p, adjusted
    known = drops[:, is_tested]
    p[is_tested] = (known >= known[0] - TIE).sum(0) / (n + 1)
    spread = known.std(0)
    z = np.divide(known - known.mean(0), spread, out=np.zeros_like(known), where=spread > TIE)
    order = np.argsort(-z[0], kind="stable")
    largest = np.maximum.accumulate(z[:, order[::-1]], axis=1)[:, ::-1]  # over a test and all less significant ones
    stepwise = (largest >= z[0, order] - TIE).sum(0) / (n + 1)
    result = np.empty(len(order))
    result[order] = np.maximum.accumulate(stepwise)
    adjusted[is_tested] = result
    return p, adjusted


@dataclass(frozen=True, kw_only=True)
class Selectivity:
    """Whether a minority group drops more than majority samples of the same label and margin.

    Arguments:
        difference: drop of the minority minus drop of the majority, over the strata that hold both; nan if none does.
        p: p-value of the difference.
        overlap: share of the minority samples whose stratum holds majority samples.
        n_minority, n_majority: numbers of samples in strata that hold both.
    """

    difference: float
    p: float
    overlap: float
    n_minority: int
    n_majority: int


def selectivity(
    accuracy_change: ArrayLike,
    is_minority: ArrayLike,
    margin_before: ArrayLike,
    half: ArrayLike | None = None,
    *,
    n_permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Selectivity:
    """Does a minority drop more than majority samples of the same label with a similar margin before the edit?

    The null hypothesis permutes the minority membership within strata. The strata are quartiles of the minority's
    margins. Each half of the samples has its own strata, because its units were selected on the other half.

    Arguments:
        accuracy_change: correct after minus correct before (a mean over repeats), [samples], all of one label.
        is_minority: [samples].
        margin_before: [samples].
        half: number of the half of each sample, [samples]; all samples form one half if not given.
        n_permutations: number of permutations.
        seed: of the permutations.
    """
    drop, margin = -np.asarray(accuracy_change, float).round(12), np.asarray(margin_before, float)
    member = np.asarray(is_minority, bool)
    halves = np.zeros(len(drop), np.int64) if half is None else np.asarray(half)
    rng = np.random.default_rng([seed, 0x5E1EC7])
    sums, observed, n_majority, n_minority = np.zeros(n_permutations), 0.0, 0, 0
    for number in np.unique(halves[member]):
        here = halves == number
        own_margins = margin[member & here]
        n_cuts = min(3, len(own_margins) // 4)
        cuts = np.quantile(own_margins, np.arange(1, n_cuts + 1) / (n_cuts + 1), method="inverted_cdf")
        # A cut is the margin of a minority sample and forms a stratum of its own. So between two cuts all permutations
        # are equally likely.
        stratum = np.searchsorted(cuts, margin) + np.searchsorted(cuts, margin, side="right")
        for place in range(2 * n_cuts + 1):
            inside = here & (stratum == place)
            values, is_majority = drop[inside], ~member[inside]
            if not is_majority.any() or is_majority.all():
                continue
            n, m = len(values), int((~is_majority).sum())
            n_minority, n_majority = n_minority + m, n_majority + n - m
            drawn = _sums_of_random_members(values, m, n_permutations, rng)
            sums += drawn - (values.sum() - drawn) * m / (n - m)
            observed += values[~is_majority].sum() - values[is_majority].sum() * m / (n - m)
    n_all = int(member.sum())
    overlap = n_minority / n_all if n_all else 0.0
    if not n_minority:
        return Selectivity(difference=math.nan, p=math.nan, overlap=overlap, n_minority=0, n_majority=0)
    p = (1 + int((sums >= observed - 1e-6).sum())) / (1 + n_permutations)
    difference = float(observed) / n_minority
    return Selectivity(difference=difference, p=p, overlap=overlap, n_minority=n_minority, n_majority=n_majority)


def _sums_of_random_members(values: Array, m: int, n: int, rng: np.random.Generator) -> Array:
    """Sum of `m` of the values drawn without replacement, `n` times.

    The values take only a few different numbers. So the draw gives how often each number occurs.
    """
    numbers, counts = np.unique(values, return_counts=True)
    drawn = rng.multivariate_hypergeometric(counts, m, size=n)
    sums: Array = drawn @ numbers
    return sums
