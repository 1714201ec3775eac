"""NT-Xent against a calculation written here."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import spurious_memorization as sm

Capture = pytest.CaptureFixture[str]


def test_nt_xent_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(2, 5, 3))
    views = np.concatenate([one, two])
    views /= np.linalg.norm(views, axis=1, keepdims=True)
    losses = []
    for i in range(10):
        others = [np.exp(views[i] @ views[k] / 0.3) for k in range(10) if k != i]
        losses.append(-np.log(np.exp(views[i] @ views[(i + 5) % 10] / 0.3) / sum(others)))
    assert float(sm.nt_xent(torch.tensor(one), torch.tensor(two), 0.3)) == pytest.approx(np.mean(losses), rel=1e-5)
