"""afr against automatic differentiation, and on samples that the first training held out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from tiny_training import settings

import spurious_memorization as sm
from spurious_memorization.training.heads import Features, Head
from spurious_memorization.training.held_out import held_out
from spurious_memorization.training.objectives.afr import reweighted_heads, sample_weights

Capture = pytest.CaptureFixture[str]


def test_afr_against_automatic_differentiation() -> None:
    rng = np.random.default_rng(0)
    values, y = rng.normal(size=(30, 5)), np.arange(30) % 5 // 2  # 12, 12 and 6 samples of a class
    old = torch.nn.Linear(5, 3).double()
    head = Head(old.weight.detach().numpy().copy(), old.bias.detach().numpy().copy())
    x, labels = torch.from_numpy(values), torch.from_numpy(y)

    true = old(x).softmax(1).gather(1, labels[:, None]).squeeze(1).detach()
    expected = (-7 * true).exp() / torch.bincount(labels)[labels]
    weights = sample_weights(head.probabilities(values), y, 7.0)
    np.testing.assert_allclose(weights, expected / expected.sum(), rtol=1e-10)

    start = [p.detach().clone() for p in old.parameters()]
    optimizer = torch.optim.SGD(old.parameters(), lr=0.05)
    after = {}
    for step in range(1, 26):
        optimizer.zero_grad()
        loss = (torch.from_numpy(weights) * F.cross_entropy(old(x), labels, reduction="none")).sum()
        loss = loss + 0.3 * sum(((p - s) ** 2).sum() for p, s in zip(old.parameters(), start, strict=True))
        loss.backward()
        optimizer.step()
        after[step] = old.weight.detach().numpy().copy(), old.bias.detach().numpy().copy()
    found = list(reweighted_heads(head, Features(values, y, y), weights, 0.3, 0.05, 25))
    assert [step for step, _ in found] == [*range(2, 25, 2), 25]
    for step, one in found:
        np.testing.assert_allclose(one.weight, after[step][0], rtol=1e-9)
        np.testing.assert_allclose(one.bias, after[step][1], rtol=1e-9, atol=1e-12)


def test_afr_fits_on_samples_that_the_first_network_did_not_see(squares: Path, tmp_path: Path) -> None:
    erm = sm.train(squares, tmp_path / "erm", settings("erm", hold_out=0.25, seed=3))
    data = sm.read_data(squares)
    out = held_out(data, 0.25, 3)
    assert np.bincount(data.y[out]).tolist() == [5, 5]
    assert set(data.split[out]) == {"train"}
    cost = erm.record.training_cost
    assert cost is not None
    assert cost.sample_passes == 3 * 30
    run = sm.train(squares, tmp_path / "afr", settings("afr:sharpness=4+10", start=f"{erm.path}@3", seed=1))
    assert run.record.training_cost is not None
    assert run.record.training_cost.sample_passes == 10
    changed = {name for name, value in run.state(1).items() if not torch.equal(value, run.state(0)[name])}
    assert changed == {"fc.weight", "fc.bias"}


def test_afr_needs_held_out_samples(squares: Path, trained: sm.Run, tmp_path: Path, capsys: Capture) -> None:
    flags = ("--model", tiny.NETWORK, "--from", trained.path, "--out", tmp_path / "run", "--objective")
    error = tiny.spurmem(capsys, "train", squares, *flags, "afr").error
    assert "afr fits on training samples that" in error
    assert "train it with --hold-out 0.2, or fit on others with fit_on=val" in error
    assert not (tmp_path / "run").exists()
    assert tiny.spurmem(capsys, "train", squares, *flags, "afr:fit_on=val,sharpness=4").status == 0
