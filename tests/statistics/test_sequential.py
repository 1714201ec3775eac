"""Sequential tests: SciPy's exact intervals, the exact probability of a false answer, and simulated families."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from spurious_memorization.statistics.max_statistic import ranks_and_adjusted
from spurious_memorization.statistics.sequential import DOUBT, LOOKS, is_decided, looks


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 1500), data=st.data())
def test_decided_is_where_scipys_exact_interval_leaves_the_level_out(n, data):
    """Counts around the level, where it changes."""
    as_large = data.draw(st.integers(0, min(n, n // 5 + 12)))
    interval = stats.binomtest(as_large, n, 0.05).proportion_ci(1 - 2 * DOUBT, method="exact")
    assert bool(is_decided((1 + as_large) / (n + 1), n)) == (not interval.low < 0.05 < interval.high)


def test_several_tests_at_once_and_nothing_to_test():
    p = np.array([0.001, 0.04, 0.06, 0.5, math.nan, 1.0])
    assert is_decided(p, 999).tolist() == [True, False, False, True, True, True]
    assert is_decided([0.05, 0.1, 0.3, 0.35, 1.0], 19).tolist() == [False, False, False, True, True]


def test_looks_end_with_what_is_wanted():
    assert looks(999) == LOOKS == (19, 49, 99, 199, 499, 999)
    assert looks(19) == (19,)
    assert looks(100) == (19, 49, 99, 100)
    assert looks(5) == (5,)
    assert looks(2000) == (*LOOKS, 2000)


def false_answers(most: int) -> tuple[float, float, dict[int, float]]:
    """The exact probability of p <= 0.05 where the null hypothesis holds without ties, by dynamic programming.

    If the observed value and the null values are exchangeable, the next null value is at least as large as the observed
    one with probability (c + 1) / (n + 2), given that c of n are: Polya's urn.

    Returns:
        That probability, the expected number of null values, and the probability of stopping at each look.
    """
    left, n, wrong, expected = [1.0], 0, 0.0, 0.0  # left: probability of each count, where the test still goes on
    stopped = {}
    for look in looks(most):
        while n < look:
            after = [0.0] * (n + 2)
            for c, probability in enumerate(left):
                after[c + 1] += probability * (c + 1) / (n + 2)
                after[c] += probability * (n + 1 - c) / (n + 2)
            left, n = after, n + 1
        p = (np.arange(n + 1) + 1) / (n + 1)
        stops = is_decided(p, n) | (look == most)
        stopped[look] = math.fsum(x for x, stop in zip(left, stops, strict=True) if stop)
        wrong += math.fsum(x for x, stop, of in zip(left, stops, p, strict=True) if stop and of <= 0.05)
        expected += look * stopped[look]
        left = [0.0 if stop else x for x, stop in zip(left, stops, strict=True)]
    return wrong, expected, stopped


def test_the_exact_probability_of_a_false_answer():
    """Without stopping it would be 50 / 1000. Most tests stop at once."""
    wrong, expected, stopped = false_answers(999)
    assert sum(stopped.values()) == pytest.approx(1)
    assert wrong <= 0.05
    assert wrong == pytest.approx(0.0499971, abs=1e-7)
    assert stopped[19] == pytest.approx(0.7)  # six or more of 19 are at least as large
    assert expected < 150


@pytest.mark.parametrize("most", [19, 20, 49, 60, 99, 150, 199, 250, 400, 499, 700])
def test_no_other_number_of_null_sets_exceeds_the_level(most):
    assert false_answers(most)[0] <= 0.05 + 1e-12


def in_rounds(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Adjusted p-values when all of a family's tests are decided, and the number of null values."""
    for n in looks(len(values) - 1):
        _, adjusted = ranks_and_adjusted(values[: n + 1])
        if is_decided(adjusted, n).all():
            break
    return adjusted, n


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.95])
def test_false_answers_of_families_in_rounds(correlation):
    """400 families of 6 correlated tests. The bound is the 0.9999 quantile of Binomial(400, 0.05), a rate of 0.0925: a
    true rate of 0.13 would be found with probability 0.98."""
    rng = np.random.default_rng(int(100 * correlation))
    wrong, drawn = 0, []
    for _ in range(400):
        shared, own = rng.normal(size=(1000, 1)), rng.exponential(size=(1000, 6))
        adjusted, n = in_rounds(math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * own)
        wrong += (adjusted <= 0.05).any()
        drawn.append(n)
    assert wrong <= stats.binom.ppf(0.9999, 400, 0.05)
    assert np.mean(drawn) < 500


def test_clear_answers_are_found_and_stay_what_they_are_with_all_null_values():
    """One test of three has an effect of 5 standard deviations."""
    rng = np.random.default_rng(0)
    for _ in range(40):
        values = rng.normal(size=(1000, 3))
        values[0] = [5, 0, 0]
        adjusted, n = in_rounds(values)
        _, in_the_end = ranks_and_adjusted(values)
        assert ((adjusted <= 0.05) == (in_the_end <= 0.05)).all()
        assert adjusted[0] <= 0.05
        assert n <= 199
