"""What chance does to an accuracy, against SciPy, statsmodels and plain sums."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from statsmodels.stats.proportion import proportion_confint

from spurious_memorization.statistics.noise_band import noise_band, sidak_level

QUICK = settings(max_examples=80, deadline=None)
LEVELS = st.sampled_from([0.8, 0.95, 0.999])


def below(k: int, n: int, p: float) -> float:
    """Chance of less than `k` correct answers."""
    return math.fsum(math.comb(n, j) * p**j * (1 - p) ** (n - j) for j in range(k))


@QUICK
@given(n=st.integers(1, 120), p=st.floats(0.01, 0.99), level=LEVELS)
def test_the_band_is_the_narrowest_with_small_tails(n: int, p: float, level: float) -> None:
    low, high = (float(end) for end in noise_band(p, n, level))
    assert (low, high) == pytest.approx(tuple(end / n for end in binom.interval(level, n, p)))
    first, last, tail = round(low * n), round(high * n), (1 - level) / 2
    assert below(first, n, p) <= tail + 1e-9
    assert below(first + 1, n, p) >= tail - 1e-9
    assert 1 - below(last + 1, n, p) <= tail + 1e-9
    assert 1 - below(last, n, p) >= tail - 1e-9


@QUICK
@given(n=st.integers(1, 300), share=st.floats(0, 1), threshold=st.floats(0.01, 0.99), level=LEVELS)
def test_below_the_band_is_what_the_exact_interval_excludes(
    n: int, share: float, threshold: float, level: float
) -> None:
    correct = round(share * n)
    _, upper = proportion_confint(correct, n, alpha=1 - level, method="beta")
    if abs(upper - threshold) > 1e-9:
        assert (correct / n < noise_band(threshold, n, level)[0]) == (correct < n and upper < threshold)


def test_extremes_and_no_samples() -> None:
    low, high = noise_band([0, 1, -0.2, 1.3, 0.5], [10, 10, 10, 10, 0])
    assert low[:4].tolist() == high[:4].tolist() == [0, 1, 0, 1]
    assert np.isnan([low[4], high[4]]).all()


def test_sidak() -> None:
    assert sidak_level(1) == 0.95
    assert sidak_level(8) ** 8 == pytest.approx(0.95)
