"""balanced-sampling: the draws."""

from __future__ import annotations

import numpy as np
import pytest

import spurious_memorization as sm
from spurious_memorization.training.balance import balanced_draw

Capture = pytest.CaptureFixture[str]


def test_balanced_draws_are_balanced(data: sm.Dataset) -> None:
    drawn = np.concatenate([balanced_draw(data, "group", 0, epoch).g for epoch in range(200)])
    np.testing.assert_allclose(np.bincount(drawn) / len(drawn), 1 / 4, atol=0.02)
    assert len(balanced_draw(data, "class", 0, 1)) == len(data.train)
