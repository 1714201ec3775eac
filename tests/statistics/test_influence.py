"""Question 1: drops ranked plainly, and ranked after regression on the norm."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from max_statistic import step_down
from scipy import stats

from spurious_memorization.statistics.influence import influence, residuals
from spurious_memorization.statistics.verdicts import MIN_CONTROLS

QUICK = settings(max_examples=40, deadline=None)
SEEDS = st.integers(0, 2**32)


@QUICK
@given(seed=SEEDS, n=st.integers(2, 40), tests=st.integers(1, 5), flat=st.booleans())
def test_residuals_are_those_of_numpys_straight_line(seed, n, tests, flat):
    rng = np.random.default_rng(seed)
    values, norms = rng.normal(size=(n, tests)), rng.normal(size=(n, tests))
    if flat:
        norms[:, 0] = 0.25
    found = residuals(values, norms)
    for q in range(tests):
        if flat and q == 0:
            expected = values[:, q] - values[:, q].mean()
        else:
            expected = values[:, q] - np.polyval(np.polyfit(norms[:, q], values[:, q], 1), norms[:, q])
        np.testing.assert_allclose(found[:, q], expected, atol=1e-8)


@QUICK
@given(seed=SEEDS, n=st.integers(2, 30), tests=st.integers(1, 4))
def test_both_ranks_are_those_of_a_plain_loop(seed, n, tests):
    rng = np.random.default_rng(seed)
    changes, norms = rng.integers(-6, 3, (n + 1, tests)) / 6, rng.normal(size=(n + 1, tests))
    found = influence(changes, norms)
    drops = -changes
    left = np.column_stack([y - np.polyval(np.polyfit(x, y, 1), x) for x, y in zip(norms.T, drops.T, strict=True)])
    np.testing.assert_allclose(found.p, [(drops[:, q] >= drops[0, q] - 1e-9).sum() / (n + 1) for q in range(tests)])
    np.testing.assert_allclose(found.p_adjusted, step_down(drops[0], drops[1:]))
    np.testing.assert_allclose(found.p_beyond_norm, step_down(left[0], left[1:]))
    assert found.p_decisive.tolist() == [max(p) for p in zip(found.p_adjusted, found.p_beyond_norm, strict=True)]
    plain = influence(changes)
    assert plain.p_beyond_norm.tolist() == plain.p_adjusted.tolist() == found.p_adjusted.tolist()


def test_a_drop_that_the_norm_explains_is_not_influential():
    """The selected set has by far the largest norm and drop, just as much as the norm alone gives; with noise it is
    called influential in no more than 0.05 (bound: the 0.9999 quantile of Binomial(400, 0.05))."""
    norms = np.append(3.0, np.random.default_rng(0).normal(size=99))
    drops = 0.1 * norms
    exact = influence(-drops[:, None], norms[:, None])
    assert exact.p_adjusted[0] == 0.01
    assert exact.p_beyond_norm[0] > 0.9
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(400):
        norms = rng.normal(size=100)
        norms[[0, norms.argmax()]] = norms[[norms.argmax(), 0]]
        drops = norms + rng.normal(size=100) / 4
        found = influence(-drops[:, None], norms[:, None])
        assert found.p_adjusted[0] <= 0.2
        wrong += found.p_decisive[0] <= 0.05
    assert wrong <= stats.binom.ppf(0.9999, 400, 0.05)


def test_a_drop_that_the_norm_hides_is_not_influential_either():
    """A small set that hurts more than others of its norm, but less than most random sets: both ranks are needed."""
    norms = np.append(-2.0, np.linspace(-2, 2, 99))
    drops = 0.1 * norms
    drops[0] += 0.1
    found = influence(-drops[:, None], norms[:, None])
    assert found.p_beyond_norm[0] == 0.01
    assert found.p_decisive[0] == found.p_adjusted[0] > 0.5


def test_a_drop_beyond_the_norm_is_found():
    rng = np.random.default_rng(0)
    norms = rng.normal(size=100)
    drops = norms / 10 + rng.normal(size=100) / 20
    drops[0] = 0.1 * norms[0] + 0.5
    found = influence(-drops[:, None], norms[:, None])
    assert found.p_decisive[0] == pytest.approx(0.01)


def test_with_the_least_null_sets_an_answer_is_possible_and_with_fewer_not():
    for n in (MIN_CONTROLS - 1, MIN_CONTROLS):
        found = influence(np.append(-1.0, np.zeros(n))[:, None])
        assert (found.p[0] <= 0.05) == (n == MIN_CONTROLS)


def test_nothing_to_compare_with():
    found = influence([[0.5, 0.1]], [[0.0, 0.0]])
    for p in (found.p, found.p_adjusted, found.p_beyond_norm, found.p_decisive):
        assert p.shape == (2,)
        assert np.isnan(p).all()
    unmeasured = influence([[-1.0, np.nan], *([[0.0, np.nan]] * 19)], np.zeros((20, 2)))
    assert unmeasured.p_decisive[0] == pytest.approx(0.05)
    assert np.isnan(unmeasured.p_decisive[1])
