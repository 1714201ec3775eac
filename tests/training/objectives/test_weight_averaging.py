"""weight-averaging against the mean of ERM's checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_training import settings
from torch import nn

import spurious_memorization as sm


@pytest.mark.slow
@pytest.mark.parametrize(("options", "weights"), [("", {1: 1, 2: 1, 3: 1}), (":first=2", {2: 1, 3: 1}),
                                                  (":decay=0.9", {1: 0.81, 2: 0.09, 3: 0.1})])  # fmt: skip
def test_the_mean_of_the_epochs(options: str, weights: dict[int, float], squares: Path, tmp_path: Path) -> None:
    erm = sm.train(squares, tmp_path / "erm", settings("erm"))
    run = sm.train(squares, tmp_path / "mean", settings(f"weight-averaging{options}"))
    total = sum(weights.values())
    expected = erm.network(3)
    for name, value in expected.named_parameters():
        mean = sum(weight * erm.state(epoch)[name] for epoch, weight in weights.items())
        value.data.copy_(mean / total)
        torch.testing.assert_close(run.state(3)[name], value.data)

    data = sm.read_data(squares)
    norms = [module for module in expected.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over batches
    expected.train()
    with torch.no_grad():
        for batch in data.train.batches(8):
            expected(batch.inputs)
    for name, value in expected.state_dict().items():
        if "running" in name:
            torch.testing.assert_close(run.state(3)[name], value)


@pytest.mark.slow
def test_before_the_first_epoch_the_network_is_the_trained_one(squares: Path, tmp_path: Path) -> None:
    erm = sm.train(squares, tmp_path / "erm", settings("erm"))
    run = sm.train(squares, tmp_path / "mean", settings("weight-averaging:first=3"))
    for epoch in (1, 2, 3):
        assert torch.equal(run.state(epoch)["fc.weight"], erm.state(epoch)["fc.weight"])
