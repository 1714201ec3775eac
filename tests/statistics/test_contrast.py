"""The contrast of training and unseen samples, against SciPy, all permutations and simulated nulls."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from spurious_memorization.statistics.contrast import contrast_p
from spurious_memorization.statistics.sample_effects import SampleEffects

SEEDS = st.integers(0, 2**32)


def of_margins(changes: np.ndarray, half: np.ndarray | None = None) -> SampleEffects:
    n = len(changes)
    return SampleEffects(
        index=np.arange(n),
        half=np.zeros(n, np.int64) if half is None else half,
        accuracy_change=np.zeros(n),
        margin_before=np.zeros(n),
        margin_change=np.asarray(changes, float),
    )


def drop(train: np.ndarray, unseen: np.ndarray) -> float:
    return float(unseen.mean() - train.mean())


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, n=st.integers(2, 7), m=st.integers(2, 7), is_coarse=st.booleans())
def test_p_is_that_of_all_permutations(seed, n, m, is_coarse):
    rng = np.random.default_rng(seed)
    train, unseen = rng.normal(-0.5, 1, n), rng.normal(0, 1, m)
    if is_coarse:
        train, unseen = train.round(), unseen.round()
    exact = stats.permutation_test((train, unseen), drop, alternative="greater", n_resamples=np.inf).pvalue
    found = contrast_p(of_margins(train), of_margins(unseen), seed=seed)
    assert found == pytest.approx(exact, abs=5 * math.sqrt(exact * (1 - exact) / 9999) + 2e-4)


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS)
def test_samples_change_places_within_their_half(seed):
    """Each half has its own edit. Every pair of permutations, one of each half, by a plain loop."""
    rng = np.random.default_rng(seed)
    train, unseen = rng.normal(-1, 1, 6), rng.normal(0, 1, 5)
    half, half_unseen = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 1, 1])
    train[half == 1] -= 4  # the edit of this half does more
    unseen[half_unseen == 1] -= 4
    parts = [np.concatenate([train[half == h], unseen[half_unseen == h]]) for h in (0, 1)]
    sums = [[sum(values[list(c)]) for c in itertools.combinations(range(len(values)), 3)] for values in parts]
    exact = np.mean([one + other <= train.sum() + 1e-9 for one, other in itertools.product(*sums)])
    found = contrast_p(of_margins(train, half), of_margins(unseen, half_unseen), seed=seed)
    assert found == pytest.approx(exact, abs=5 * math.sqrt(exact * (1 - exact) / 9999) + 2e-4)


def test_exchangeable_samples_are_called_different_at_the_level():
    rng = np.random.default_rng(0)
    ps = []
    for _ in range(600):
        values = rng.exponential(size=50)
        ps.append(contrast_p(of_margins(values[:20]), of_margins(values[20:]), seed=1, n_permutations=199))
    false = sum(p <= 0.05 for p in ps)
    assert stats.binom.ppf(0.0005, 600, 0.05) <= false <= stats.binom.ppf(0.9995, 600, 0.05)


def test_held_samples_are_found():
    rng = np.random.default_rng(0)
    train, unseen = rng.normal(0, 1, 60), rng.normal(0, 1, 60)
    train[:6] -= 10
    assert contrast_p(of_margins(train), of_margins(unseen), seed=0) < 0.01
    assert contrast_p(of_margins(unseen), of_margins(train), seed=0) > 0.99  # one-sided


def test_without_one_of_the_two_there_is_no_p():
    some, none = of_margins(np.ones(3)), of_margins(np.ones(0))
    assert math.isnan(contrast_p(some, none, seed=0))
    assert math.isnan(contrast_p(none, some, seed=0))
    assert contrast_p(some, some, seed=0) == 1
    apart = of_margins(np.ones(3), np.ones(3, np.int64))
    assert contrast_p(some, apart, seed=0) == 1  # no half has both, so that nothing can change places


def test_large_groups_take_several_chunks(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    train, unseen = of_margins(rng.normal(-0.2, 1, 60)), of_margins(rng.normal(0, 1, 60))
    whole = contrast_p(train, unseen, seed=0)
    monkeypatch.setattr("spurious_memorization.statistics.contrast._CHUNK", 1000)
    assert contrast_p(train, unseen, seed=0) == whole
