"""group-dro against plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_training import batches, begun

import spurious_memorization as sm

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize("moves", [True, False])
def test_group_dro_against_plain_numpy(moves: bool, data: sm.Dataset, model: torch.nn.Module, trained: sm.Run) -> None:
    absent_weights = "" if moves else ",absent=keep"
    objective = begun(f"group-dro:step=0.3,adjustment=2{absent_weights}", data, model, trained)
    weights, sizes = np.full(4, 1 / 4), np.bincount(data.train.g)
    absent = 0
    for batch in batches(data, 6)[:5]:
        found = float(objective.loss(batch.inputs, batch.y, batch.index).detach())
        probabilities = model(batch.inputs).softmax(1).detach().numpy().astype(float)
        losses = -np.log(probabilities[np.arange(len(batch.y)), batch.y])
        groups = data.g[batch.index.numpy()]
        means = np.zeros(4)
        for group in range(4):
            here = groups == group
            absent += not here.any()
            if here.any() or moves:
                means[group] = (losses[here].mean() if here.any() else 0) + 2 / np.sqrt(sizes[group])
                weights[group] *= np.exp(0.3 * means[group])
        weights /= weights.sum()
        assert found == pytest.approx(float(weights @ means), rel=1e-5)
        np.testing.assert_allclose(objective.state()["weights"], weights, rtol=1e-5)
    assert absent
    assert weights.max() > 0.27
