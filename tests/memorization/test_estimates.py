"""Memorization scores from the answers of networks, against plain loops and simulated samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spurious_memorization.memorization.estimates import estimated_scores

SEEDS = st.integers(0, 2**32)


@settings(max_examples=50, deadline=None)
@given(seed=SEEDS, networks=st.integers(1, 12), samples=st.integers(1, 6))
def test_scores_are_those_of_a_plain_loop(seed, networks, samples):
    rng = np.random.default_rng(seed)
    is_in, correct = rng.random((2, networks, samples)) < 0.6
    found = estimated_scores(is_in, correct)
    for i in range(samples):
        with_it = [bool(c) for c, inside in zip(correct[:, i], is_in[:, i], strict=True) if inside]
        without = [bool(c) for c, inside in zip(correct[:, i], is_in[:, i], strict=True) if not inside]
        assert (found.n_in[i], found.n_out[i]) == (len(with_it), len(without))
        if not with_it or not without:
            assert math.isnan(found.score[i])
            assert math.isnan(found.standard_error[i])
            continue
        shares = [sum(of) / len(of) for of in (with_it, without)]
        assert (found.accuracy_in[i], found.accuracy_out[i]) == pytest.approx(shares)
        assert found.score[i] == pytest.approx(shares[0] - shares[1])
        smoothed = [((sum(of) + 1) / (len(of) + 2), len(of) + 2) for of in (with_it, without)]
        assert found.standard_error[i] ** 2 == pytest.approx(sum(p * (1 - p) / n for p, n in smoothed))


def test_standard_errors_are_those_of_repetitions():
    rng = np.random.default_rng(0)
    is_in = np.tile(np.arange(40)[:, None] < 28, 4000)
    correct = rng.random(is_in.shape) < np.where(is_in, 0.8, 0.3)
    found = estimated_scores(is_in, correct)
    assert found.score.mean() == pytest.approx(0.5, abs=0.01)
    assert np.sqrt((found.standard_error**2).mean()) == pytest.approx(found.score.std(), rel=0.08)
