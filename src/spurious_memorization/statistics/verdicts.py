"""The three questions about a selected set: is it influential, is it selective for a minority, does it memorize?

Pure functions on arrays; each p-value is one-sided, (1 + null values at least as large) / (1 + null values), ties
counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]
Verdict = Literal["memorizing", "critical", "influential", "selective", "none", "no verdict"]

LEVEL = 0.05
MIN_DIFFERENCE = 0.05
"""Difference of drops, in accuracy, from which a set may be called selective."""
MIN_OVERLAP = 0.5
"""Share of the minority that must have majority samples of its label and margin."""
MIN_CONTROLS = 19
"""With fewer controls no p-value can be 0.05 or less."""
NORM_RATIOS = (0.5, 2.0)
"""Controls whose norm is further from the selected set's are not matched."""
PERMUTATIONS = 9999

_TIE = 1e-9


def influence(selected: ArrayLike, controls: ArrayLike) -> tuple[Array, Array]:
    """Is the drop larger than that of matched random units? One family of questions: sizes x groups.

    Adjusted by the step-down maximum statistic of Westfall and Young (1993, algorithm 2.8), on drops that are
    studentized by mean and standard deviation over the selected set and its controls together, so that all are
    exchangeable when the selected units are as good as random.

    Arguments:
        selected: drop in each question, [questions]; nan where there is nothing to ask.
        controls: the same of each control, [controls, questions]; control k is one ranking throughout.

    Returns:
        p and adjusted p, [questions]; nan where there is nothing to ask.
    """
    drops = np.vstack([np.atleast_1d(np.asarray(selected, float)), np.asarray(controls, float)])
    n, asked = len(drops) - 1, ~np.isnan(drops).any(0)
    p, adjusted = np.full(drops.shape[1], np.nan), np.full(drops.shape[1], np.nan)
    if not n or not asked.any():
        return p, adjusted
    known = drops[:, asked]
    p[asked] = (known >= known[0] - _TIE).sum(0) / (n + 1)
    spread = known.std(0)
    z = np.divide(known - known.mean(0), spread, out=np.zeros_like(known), where=spread > _TIE)
    order = np.argsort(-z[0], kind="stable")
    largest = np.maximum.accumulate(z[:, order[::-1]], axis=1)[:, ::-1]  # over a question and all less significant ones
    stepwise = (largest >= z[0, order] - _TIE).sum(0) / (n + 1)
    result = np.empty(len(order))
    result[order] = np.maximum.accumulate(stepwise)
    adjusted[asked] = result
    return p, adjusted


@dataclass(frozen=True)
class Selectivity:
    """Whether a minority drops more than the majority of the same label and margin.

    Arguments:
        difference: drop of the minority minus that of the majority, over strata with both; nan where there are none.
        p: of it.
        overlap: share of the minority that has majority samples in its stratum.
        n_minority, n_majority: samples in strata with both.
    """

    difference: float
    p: float
    overlap: float
    n_minority: int
    n_majority: int


def selectivity(
    drop: ArrayLike,
    is_minority: ArrayLike,
    margin_before: ArrayLike,
    half: ArrayLike | None = None,
    *,
    n_permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Selectivity:
    """Does a minority drop more than the majority of its label, sample for sample of like margin before the edit?

    The null reassigns who is of the minority within strata: quartiles of the minority's margins, apart for each half
    of the samples that was measured with units selected on the other.

    Arguments:
        drop: correct before minus correct after (a mean over repeats), [samples], all of one label.
        is_minority: [samples].
        margin_before: [samples].
        half: [samples]; one if not given.
        n_permutations: draws of the null.
        seed: of these.
    """
    drop, margin = np.asarray(drop, float).round(12), np.asarray(margin_before, float)
    member = np.asarray(is_minority, bool)
    halves = np.zeros(len(drop), np.int64) if half is None else np.asarray(half)
    rng = np.random.default_rng([seed, 0x5E1EC7])
    sums, observed, n_majority, n_minority = np.zeros(n_permutations), 0.0, 0, 0
    for number in np.unique(halves[member]):
        here = halves == number
        ours = margin[member & here]
        n_cuts = min(3, len(ours) // 4)
        cuts = np.quantile(ours, np.arange(1, n_cuts + 1) / (n_cuts + 1), method="inverted_cdf")
        # A cut is a member's own margin and a stratum of its own: between cuts all reassignments are as likely.
        stratum = np.searchsorted(cuts, margin) + np.searchsorted(cuts, margin, side="right")
        for place in range(2 * n_cuts + 1):
            inside = here & (stratum == place)
            values, theirs = drop[inside], ~member[inside]
            if not theirs.any() or theirs.all():
                continue
            n, m = len(values), int((~theirs).sum())
            n_minority, n_majority = n_minority + m, n_majority + n - m
            drawn = _sums_of_random_members(values, m, n_permutations, rng)
            sums += drawn - (values.sum() - drawn) * m / (n - m)
            observed += values[~theirs].sum() - values[theirs].sum() * m / (n - m)
    n_all = int(member.sum())
    overlap = n_minority / n_all if n_all else 0.0
    if not n_minority:
        return Selectivity(math.nan, math.nan, overlap, 0, 0)
    p = (1 + int((sums >= observed - 1e-6).sum())) / (1 + n_permutations)
    return Selectivity(float(observed) / n_minority, p, overlap, n_minority, n_majority)


def _sums_of_random_members(values: Array, m: int, n: int, rng: np.random.Generator) -> Array:
    """Sum of `m` of the values drawn without replacement, `n` times; values take few numbers, so that they are drawn as
    counts."""
    numbers, counts = np.unique(values, return_counts=True)
    drawn = rng.multivariate_hypergeometric(counts, m, size=n)
    sums: Array = drawn @ numbers
    return sums


@dataclass(frozen=True)
class Contrast:
    """Drop of the margin on training samples minus that on unseen ones, with its 95 % interval.

    Arguments:
        value: the contrast; nan, as are the bounds, where either side has fewer than two samples.
        low, high: bounds.
        n_train, n_unseen: samples.
    """

    value: float
    low: float
    high: float
    n_train: int
    n_unseen: int


def memorization(train: ArrayLike, unseen: ArrayLike, level: float = 0.95) -> Contrast:
    """Does an edit hurt the training samples of a group more than unseen ones? A channel that holds a feature of the
    group hurts both, one that holds its samples hurts training only.

    Arguments:
        train: drop of the margin of each training sample of the group.
        unseen: the same of val and test samples.
        level: of the interval (Welch 1947: unequal variances).
    """
    train, unseen = np.asarray(train, float), np.asarray(unseen, float)
    if min(len(train), len(unseen)) < 2:
        return Contrast(math.nan, math.nan, math.nan, len(train), len(unseen))
    value = float(train.mean() - unseen.mean())
    if train.std() < _TIE and unseen.std() < _TIE:  # nothing moves, or everything alike: no sampling error is left
        return Contrast(value, value, value, len(train), len(unseen))
    parts = np.array([sample.var(ddof=1) / len(sample) for sample in (train, unseen)])
    freedom = parts.sum() ** 2 / (parts[0] ** 2 / (len(train) - 1) + parts[1] ** 2 / (len(unseen) - 1))
    half = float(stats.t.ppf((1 + level) / 2, freedom) * np.sqrt(parts.sum()))
    return Contrast(value, value - half, value + half, len(train), len(unseen))


@dataclass(frozen=True)
class Answers:
    """The answers about one selected set and group. None is "can't be told here".

    Arguments:
        influential: it drops the group more than matched controls do.
        selective: and more than the majority of the same label and margin; None for a group that is no minority.
        memorizing: and its training samples more than unseen ones.
        reason: why one of them is None, in words.
    """

    influential: bool | None
    selective: bool | None
    memorizing: bool | None
    reason: str = ""

    @property
    def verdict(self) -> Verdict:
        """The strongest word that the answers allow."""
        if self.influential is None:
            return "no verdict"
        if self.influential and self.selective:
            return "memorizing" if self.memorizing else "critical"
        if self.influential:
            return "influential"
        return "selective" if self.selective else "none"


def answers(
    drop: float,
    p_influential: float,
    n_controls: int,
    norm_ratio: float,
    selective: Selectivity | None,
    contrast: Contrast | None,
    level: float = LEVEL,
) -> Answers:
    """Answers from what was calculated.

    Arguments:
        drop: of the group's accuracy, on the samples that the controls were measured on.
        p_influential: adjusted.
        n_controls, norm_ratio: of the matched controls; the ratio is nan where it is not known.
        selective: None for a group that is no minority.
        contrast: None where the third question is not asked.
    """
    reasons = []
    influential: bool | None = None
    if n_controls < MIN_CONTROLS:
        reasons.append(f"{n_controls} controls: {MIN_CONTROLS} are needed")
    elif norm_ratio < NORM_RATIOS[0] or norm_ratio > NORM_RATIOS[1]:
        reasons.append(f"no matched controls: their norm is {norm_ratio:.2g} times the selected set's")
    elif math.isnan(p_influential):
        reasons.append("no samples of this group on the controls' side")
    else:
        influential = p_influential <= level and drop > 0
    is_selective: bool | None = None
    if selective is not None:
        if selective.overlap < MIN_OVERLAP:
            reasons.append(f"only {selective.overlap:.0%} of the group have majority samples of their label and margin")
        else:
            is_selective = selective.p <= level and selective.difference >= MIN_DIFFERENCE - _TIE
    remembers: bool | None = None
    if contrast is not None and not math.isnan(contrast.low):
        remembers = contrast.low > 0
    elif contrast is not None and selective is not None:
        reasons.append("no unseen samples of this group were measured: add --split val,test")
    return Answers(influential, is_selective, remembers, "; ".join(reasons))
