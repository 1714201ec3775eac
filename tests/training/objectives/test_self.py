"""self: which samples are chosen, and the training of the head."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from scipy.special import rel_entr
from tiny_training import settings

import spurious_memorization as sm
from spurious_memorization.training.heads import Features, Head, retrained
from spurious_memorization.training.objectives.self import chosen_samples

Capture = pytest.CaptureFixture[str]


def test_the_samples_of_largest_disagreement_or_loss() -> None:
    rng = np.random.default_rng(4)
    early, last = rng.dirichlet(np.ones(3), 40), rng.dirichlet(np.ones(3), 40)
    y = rng.integers(0, 3, 40)
    divergence = rel_entr(last, early).sum(1)
    chosen = chosen_samples(early, last, y, 7, "early-disagreement")
    assert set(chosen) == set(np.argsort(divergence)[-7:])
    losses = F.cross_entropy(torch.from_numpy(early).log(), torch.from_numpy(y), reduction="none")
    by_loss = chosen_samples(early, last, y, 7, "early-misclassification")
    assert set(by_loss) == set(losses.topk(7).indices.tolist())
    losses = F.cross_entropy(torch.from_numpy(last).log(), torch.from_numpy(y), reduction="none")
    assert set(chosen_samples(early, last, y, 7, "misclassification")) == set(losses.topk(7).indices.tolist())
    assert len(chosen_samples(early, last, y, 500, "misclassification")) == 40


def test_the_head_is_trained_as_a_linear_layer_would_be() -> None:
    rng = np.random.default_rng(0)
    values, y = rng.normal(size=(20, 4)), np.array([0] * 15 + [1] * 5)
    layer = torch.nn.Linear(4, 2).double()
    head = Head(layer.weight.detach().numpy().copy(), layer.bias.detach().numpy().copy())
    found = retrained(head, Features(values, y, y), steps=30, batch_size=8, lr=0.1, seed=6)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    draws = np.random.default_rng([6, 0x5E1F])
    drawn_of_1 = 0
    for _ in range(30):
        batch = draws.choice(20, 8, p=np.where(y == 0, 1 / 30, 1 / 10))
        drawn_of_1 += int((y[batch] == 1).sum())
        optimizer.zero_grad()
        F.cross_entropy(layer(torch.from_numpy(values[batch])), torch.from_numpy(y[batch])).backward()
        optimizer.step()
    np.testing.assert_allclose(found.weight, layer.weight.detach().numpy(), rtol=1e-9)
    np.testing.assert_allclose(found.bias, layer.bias.detach().numpy(), rtol=1e-9)
    assert 90 < drawn_of_1 < 150


def test_self_as_a_run(squares: Path, trained: sm.Run, tmp_path: Path, capsys: Capture) -> None:
    run = sm.train(squares, tmp_path / "run", settings("self:early=1,n=4+8,lrs=0.1", start=f"{trained.path}@3"))
    changed = {name for name, value in run.state(1).items() if not torch.equal(value, run.state(0)[name])}
    assert changed == {"fc.weight", "fc.bias"}
    flags = (
        "--model",
        tiny.NETWORK,
        "--from",
        trained.path,
        "--out",
        tmp_path / "other",
        "--objective",
        "self:early=7",
    )
    assert "no checkpoint of epoch 7" in tiny.spurmem(capsys, "train", squares, *flags).error
    assert not (tmp_path / "other").exists()
