"""Ranks and the step-down maximum statistic, compared with SciPy, all families of tests and simulated nulls."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from max_statistic import step_down
from scipy import stats

from spurious_memorization.statistics.max_statistic import ranks_and_adjusted

QUICK = settings(max_examples=40, deadline=None)
SEEDS = st.integers(0, 2**32)


def drawn_drops(seed: int, n: int, questions: int, levels: int) -> np.ndarray:
    """An observed row and null rows, with many ties: multiples of 1 / levels."""
    rng = np.random.default_rng(seed)
    observed, null = rng.integers(-1, levels, (1, questions)), rng.integers(-2, levels, (n, questions))
    return np.vstack([observed, null]) / levels


def in_a_loop(values: np.ndarray) -> list[float]:
    """Adjusted p-values by the closure principle: the largest of the p-values of every family of tests to which one
    belongs, each by its largest studentized value."""
    rows, tests = values.tolist(), values.shape[1]
    z = [[0.0] * tests for _ in rows]
    for q in range(tests):
        column = [row[q] for row in rows]
        middle = sum(column) / len(column)
        spread = math.sqrt(sum((value - middle) ** 2 for value in column) / len(column))
        for row, value in enumerate(column):
            z[row][q] = (value - middle) / spread if spread > 1e-9 else 0.0
    adjusted = [0.0] * tests
    for size in range(1, tests + 1):
        for family in itertools.combinations(range(tests), size):
            largest = [max(row[q] for q in family) for row in z]
            p = sum(value >= largest[0] - 1e-9 for value in largest) / len(rows)
            for q in family:
                adjusted[q] = max(adjusted[q], p)
    return adjusted


@QUICK
@given(seed=SEEDS, n=st.integers(1, 6), levels=st.sampled_from([1, 2, 4, 8, 16]))
def test_p_of_one_test_is_scipys(seed, n, levels):
    """SciPy takes no sample of one, so that it permutes all values, the first of which is the observed one."""
    values = drawn_drops(seed, n, 1, levels)
    p, adjusted = ranks_and_adjusted(values)
    assert p[0] == pytest.approx(scipys_p(values[:, 0]))
    assert adjusted[0] == p[0]


def scipys_p(values: np.ndarray) -> float:
    """Exact p of the first value against the others, by all permutations; difference of means."""
    found = stats.permutation_test(
        (values,),
        lambda x, axis: x[..., 0] - x[..., 1:].mean(axis),
        permutation_type="pairings",
        n_resamples=np.inf,
        alternative="greater",
        vectorized=True,
    )
    assert len(found.null_distribution) == math.factorial(len(values))
    return float(found.pvalue)


@QUICK
@given(seed=SEEDS, n=st.integers(1, 40), tests=st.integers(1, 5), levels=st.integers(1, 12))
def test_adjusted_p_is_that_of_every_family_of_tests(seed, n, tests, levels):
    values = drawn_drops(seed, n, tests, levels)
    p, adjusted = ranks_and_adjusted(values)
    np.testing.assert_allclose(adjusted, in_a_loop(values))
    np.testing.assert_allclose(adjusted, step_down(values[0], values[1:]))
    np.testing.assert_allclose(p, [stats.percentileofscore(-column, -column[0], "weak") / 100 for column in values.T])
    assert (adjusted >= p - 1e-12).all()
    assert ((adjusted > 0) & (adjusted <= 1)).all()
    np.testing.assert_allclose((adjusted * (n + 1)).round(), adjusted * (n + 1))


@QUICK
@given(seed=SEEDS, tests=st.integers(2, 6))
def test_the_first_step_is_scipys_test_of_the_maximum(seed, tests):
    rng = np.random.default_rng(seed)
    drops = rng.normal(size=(7, 1)) + rng.normal(size=(7, tests))
    _, adjusted = ranks_and_adjusted(drops)
    largest = ((drops - drops.mean(0)) / drops.std(0)).max(1)
    assert adjusted.min() == pytest.approx(scipys_p(np.round(largest * 2**30)))  # sums without rounding


@QUICK
@given(seed=SEEDS, n=st.integers(2, 30), where=st.sets(st.integers(0, 4), min_size=1, max_size=4), own=st.booleans())
def test_what_is_not_asked_changes_nothing_else(seed, n, where, own):
    values = drawn_drops(seed, n, 5, 10)
    here = sorted(where)
    kept = [q for q in range(5) if q not in where]
    values[0 if own else 1 + seed % n, here] = np.nan
    for found, alone in zip(ranks_and_adjusted(values), ranks_and_adjusted(values[:, kept]), strict=True):
        assert np.isnan(found[here]).all()
        assert found[kept].tolist() == alone.tolist()


@QUICK
@given(seed=SEEDS, n=st.integers(1, 30), tests=st.integers(1, 5))
def test_neither_the_order_of_null_rows_nor_that_of_tests_nor_the_scale_matters(seed, n, tests):
    values, rng = drawn_drops(seed, n, tests, 8), np.random.default_rng(seed)
    rows, columns = np.append(0, 1 + rng.permutation(n)), rng.permutation(tests)
    scale = 2.0 ** rng.integers(-3, 4, tests)
    for found, again in zip(
        ranks_and_adjusted(values), ranks_and_adjusted((values * scale + 1)[rows][:, columns]), strict=True
    ):
        np.testing.assert_allclose(found[columns], again)


def test_nothing_to_compare_with():
    for values in ([[0.5, 0.1]], [[np.nan], [0.1], [0.2]]):
        for found in ranks_and_adjusted(values):
            assert len(found) == len(values[0])
            assert np.isnan(found).all()


def test_without_spread_nothing_is_shown():
    for drop in (0.0, 0.3):
        p, adjusted = ranks_and_adjusted([[drop, 0.9], *([drop, x / 200] for x in range(99))])
        assert (p[0], adjusted[0]) == (1, 1)
        assert (p[1], adjusted[1]) == (0.01, 0.01)


def test_ranks_by_hand():
    """Two tests and four null rows, of which one reaches the first observed value and another the second."""
    null = [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]]
    p, adjusted = ranks_and_adjusted([[1.0, 1.0], *null])
    assert p.tolist() == [0.4, 0.4]
    assert adjusted.tolist() == [0.6, 0.6]  # in either test
    p, adjusted = ranks_and_adjusted([[-1.0, 1.0], *null])
    assert p.tolist() == [1.0, 0.4]
    # The first value is 1.58 deviations below the mean, that of a null row 1.58 above: more than the second one's 1.22.
    assert adjusted.tolist() == [1.0, 0.6]
    assert ranks_and_adjusted([[3.0, 3.0], *null])[1].tolist() == [0.2, 0.2]


def family_wise(n: int, n_samples: int, times: int, heavy: bool) -> int:
    """How often any test gives a false answer where the observed row is one of the null rows' kind: 3 sizes x 4
    groups. A unit's own strength is in all its tests, and larger sets hold the smaller ones."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(times):
        unit = rng.exponential(size=(n + 1, 1, 1)) * rng.random((1, 1, 4))
        strength = (unit + rng.exponential(size=(n + 1, 3, 4)) / 2).cumsum(1).reshape(n + 1, 12)
        drops = np.floor(strength * n_samples / 12) / n_samples if heavy else strength
        _, adjusted = ranks_and_adjusted(drops)
        wrong += (adjusted <= 0.05).any()
    return int(wrong)


@pytest.mark.parametrize(("n", "n_samples"), [(99, 4), (99, 20), (19, 6)])
def test_false_answers_in_a_family(n, n_samples):
    """Of 4000 families at most 0.05 may hold a false answer. The bound is the 0.9999 quantile of Binomial(4000, 0.05),
    a rate of 0.063: a true rate of 0.075 would be found with probability 0.998, of 0.07 with 0.95."""
    assert family_wise(n, n_samples, 4000, heavy=True) <= stats.binom.ppf(0.9999, 4000, 0.05)


def test_without_ties_the_level_is_met():
    """With 99 null rows and no ties the most significant test gives a false answer in exactly 0.05 of all families:
    in 6000, a rate of 0.036 or 0.066 would be found with probability 0.97."""
    low, high = stats.binom.ppf([0.001, 0.999], 6000, 0.05)
    assert low <= family_wise(99, 1, 6000, heavy=False) <= high
