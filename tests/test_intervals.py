"""Intervals, compared with those of statsmodels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import DescrStatsW

from spurious_memorization.intervals import paired_interval, wilson_interval

QUICK = settings(max_examples=60, deadline=None)


@QUICK
@given(n=st.integers(1, 5000), share=st.floats(0, 1), level=st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_equals_statsmodels(n, share, level):
    correct = round(share * n)
    expected = proportion_confint(correct, n, alpha=1 - level, method="wilson")
    assert wilson_interval(correct, n, level) == pytest.approx(expected, abs=1e-12)


def test_wilson_is_element_by_element_and_nan_for_no_samples():
    low, high = wilson_interval([0, 3, 10], [0, 10, 10])
    assert np.isnan([low[0], high[0]]).all()
    assert (low[1], high[1]) == pytest.approx(proportion_confint(3, 10, method="wilson"))
    assert high[2] == pytest.approx(1)
    assert low[2] < 0.8


def changes(right: int, wrong: int, n: int) -> np.ndarray:
    return np.repeat([1.0, -1.0, 0.0], [right, wrong, n - right - wrong])


COUNTS = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(0, 300)).filter(lambda c: sum(c) > 0)


@QUICK
@given(counts=COUNTS, level=st.sampled_from([0.8, 0.95, 0.99]))
def test_paired_is_the_wald_interval_of_the_data_with_one_more_of_each_change(counts, level):
    right, wrong, same = counts
    n = right + wrong + same
    values = changes(right + 1, wrong + 1, n + 2)
    # statsmodels' standard error of the mean divides by n - 1: ddof=1 of the values; Wald's by n.
    spread = DescrStatsW(values, ddof=1)
    middle, half = spread.mean, (spread.zconfint_mean(1 - level)[1] - spread.mean) * np.sqrt((n + 1) / (n + 2))
    expected = max(middle - half, -1), min(middle + half, 1)
    assert paired_interval(right, wrong, n, level) == pytest.approx(expected, abs=1e-9)


@QUICK
@given(counts=COUNTS)
def test_paired_properties(counts):
    right, wrong, same = counts
    n = right + wrong + same
    low, high = (float(bound) for bound in paired_interval(right, wrong, n))
    assert -1 <= low <= (right - wrong) / n <= high <= 1
    assert high > low
    swapped = paired_interval(wrong, right, n)
    assert (-swapped[1], -swapped[0]) == pytest.approx((low, high))
    wide = paired_interval(right, wrong, n, 0.99)
    assert wide[0] <= low
    assert high <= wide[1]
    more = paired_interval(100 * right, 100 * wrong, 100 * n)
    assert more[1] - more[0] < high - low


def test_paired_is_nan_for_no_samples():
    low, high = paired_interval([0, 1], [0, 0], [0, 10])
    assert np.isnan([low[0], high[0]]).all()
    assert np.isfinite([low[1], high[1]]).all()


def test_intervals_cover_at_about_their_level():
    rng = np.random.default_rng(0)
    correct = rng.binomial(50, 0.8, 4000)
    low, high = wilson_interval(correct, np.full(4000, 50))
    assert 0.93 < np.mean((low <= 0.8) & (high >= 0.8)) < 0.97
    drawn = rng.multinomial(50, [0.05, 0.15, 0.8], 4000)
    low, high = paired_interval(drawn[:, 0], drawn[:, 1], np.full(4000, 50))
    assert 0.93 < np.mean((low <= -0.1) & (high >= -0.1)) < 0.98
