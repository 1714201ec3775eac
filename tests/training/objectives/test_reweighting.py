"""reweighting: the weights of the losses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_training import batches, begun

import spurious_memorization as sm

Capture = pytest.CaptureFixture[str]


def test_the_square_root_rule(data: sm.Dataset, model: torch.nn.Module, trained: sm.Run) -> None:
    objective = begun("reweighting:power=0.5", data, model, trained)
    counts, groups = np.bincount(data.train.g), data.train.g
    expected = counts[groups] ** -0.5 / (counts[groups] ** -0.5).mean()
    found = []
    for one in data.train.index:
        batch = data.train.at([one]).batch()
        loss = F.cross_entropy(model(batch.inputs), batch.y)
        found.append(float((objective.loss(batch.inputs, batch.y, batch.index) / loss).detach()))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    plain = begun("reweighting:power=0", data, model, trained)
    assert plain.weights[data.train.index].eq(1).all()  # type: ignore[attr-defined]


def test_reweighting(data: sm.Dataset, model: torch.nn.Module, trained: sm.Run) -> None:
    objective = begun("reweighting:by=group", data, model, trained)
    counts = np.bincount(data.train.g)
    total = torch.zeros(4)
    for batch in batches(data, 10):
        losses = F.cross_entropy(model(batch.inputs), batch.y, reduction="none").detach()
        weights = torch.tensor(len(data.train) / 4 / counts[data.g[batch.index]], dtype=torch.float32)
        total.index_add_(0, torch.tensor(data.g[batch.index]), weights)
        found = objective.loss(batch.inputs, batch.y, batch.index).detach()
        torch.testing.assert_close(found, (weights * losses).mean())
    torch.testing.assert_close(total, torch.full((4,), 10.0))
