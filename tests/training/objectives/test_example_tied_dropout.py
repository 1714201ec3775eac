"""example-tied-dropout: which channels each sample uses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_training import batches, begun
from torch import nn

import spurious_memorization as sm
from spurious_memorization.training.objectives.example_tied_dropout import tied_layers, uniform

Capture = pytest.CaptureFixture[str]


def test_example_tied_dropout(data: sm.Dataset, model: torch.nn.Module, trained: sm.Run) -> None:
    objective = begun("example-tied-dropout:generalizing=0.25,memorizing=0.5", data, model, trained)
    batch, seen = batches(data, 20)[0], []
    hook = model.relu1.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    for _ in range(2):
        objective.loss(batch.inputs, batch.y, batch.index)
    hook.remove()
    active = (seen[0] != 0).flatten(2).any(2)  # [samples, channels]
    assert torch.equal(active, (seen[1] != 0).flatten(2).any(2))
    assert bool(active[:, :2].all())
    assert 0.3 < active[:, 2:].float().mean() < 0.7
    assert len({tuple(row) for row in active.tolist()}) > 10
    deployed = objective.deployed().eval()
    with torch.no_grad():
        out = deployed.bn1(deployed.conv1(batch.inputs))
    assert not out[:, 2:].any()
    assert bool((out[:, :2] != 0).flatten(2).any(2).all())
    assert model.bn1.weight.all()


@pytest.mark.parametrize(("deployed", "first", "others"), [("drop-and-rescale", 1.75, 0.0), ("scale", 1.0, 0.3)])
def test_what_the_authors_code_does_for_prediction(
    deployed: str, first: float, others: float, data: sm.Dataset, model: torch.nn.Module, trained: sm.Run
) -> None:
    objective = begun(f"example-tied-dropout:generalizing=0.4,memorizing=0.3,deployed={deployed}", data, model, trained)
    network = objective.deployed().eval()
    batch, model = batches(data, 20)[0], model.eval()
    with torch.no_grad():
        out, plain = (net.bn1(net.conv1(batch.inputs)) for net in (network, model))
    n = int(0.4 * plain.shape[1])
    assert 0.4 * plain.shape[1] != n
    torch.testing.assert_close(out[:, :n], first * plain[:, :n])
    torch.testing.assert_close(out[:, n:], others * plain[:, n:])


def test_tied_draws_are_uniform() -> None:
    drawn = uniform(np.arange(300), 200, seed=7)
    assert np.histogram(drawn, 10, (0, 1))[0].min() > 5600
    np.testing.assert_array_equal(uniform(np.array([5, 2]), 200, 7), drawn[[5, 2]])
    assert abs(np.corrcoef(drawn[:-1].ravel(), drawn[1:].ravel())[0, 1]) < 0.02


def test_layers_that_the_network_does_not_call_are_not_tied() -> None:
    model = nn.ModuleDict({"a": nn.Linear(6, 6), "attention": nn.MultiheadAttention(6, 2), "head": nn.Linear(6, 2)})
    assert tied_layers(model) == ("a",)
