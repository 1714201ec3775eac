"""Criteria and edits of a network on a GPU, compared with those on the CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from engine_cases import trained
from no_float64 import NoFloat64
from torch import nn

import spurious_memorization as sm

pytestmark = pytest.mark.gpu

Criterion = Callable[[nn.Module, sm.Samples], sm.Scores]

CRITERIA: dict[str, Criterion] = {
    "weight_norm": lambda net, samples: sm.criteria.weight_norm(net),
    "gradient": sm.criteria.gradient,
    "gradient of weights": lambda net, samples: sm.criteria.gradient(net, samples, select=sm.Selection(unit="weight")),
    "taylor": sm.criteria.taylor,
    "ablation": sm.ablation,
    "random": lambda net, samples: sm.criteria.random(net, seed=1),
}


@pytest.fixture
def on_both(device: str) -> tuple[nn.Module, nn.Module, sm.Samples]:
    """A network on the CPU, its copy on the GPU, and samples."""
    net, samples = trained()
    return net, copy.deepcopy(net).to(device), samples


@pytest.mark.parametrize("name", CRITERIA)
def test_scores_are_those_of_the_cpu(name: str, on_both: tuple[nn.Module, nn.Module, sm.Samples]) -> None:
    here, there, samples = on_both
    expected = CRITERIA[name](here, samples)
    with NoFloat64():
        given = CRITERIA[name](there, samples)
    assert given.keys() == expected.keys()
    largest = max(float(values.abs().max()) for values in expected.values())
    for key, values in expected.items():
        assert given[key].device.type == "cpu"
        np.testing.assert_allclose(given[key], values, rtol=0, atol=5e-3 * largest)
    assert list(sm.top(given, 1)) == list(sm.top(expected, 1))


@pytest.mark.filterwarnings("ignore:all 240 samples")
def test_hardest_samples_and_means_are_those_of_the_cpu(on_both: tuple[nn.Module, nn.Module, sm.Samples]) -> None:
    here, there, samples = on_both
    with NoFloat64():
        hardest, means = sm.hardest_samples(there, samples, n=20), sm.edits.channel_means(there, samples)
    assert set(hardest.index) == set(sm.hardest_samples(here, samples, n=20).index)
    for layer, values in sm.edits.channel_means(here, samples).items():
        np.testing.assert_allclose(means[layer].cpu(), values, rtol=0, atol=5e-3)


def test_the_strongest_edit_does_the_same_harm(on_both: tuple[nn.Module, nn.Module, sm.Samples], device: str) -> None:
    here, there, samples = on_both
    units = sm.parse_units(here, "conv1:3,conv2:5")
    loss = [
        sm.evaluate(here, sm.edits.strongest_edit(net, units, samples, steps=5), samples).after.loss.mean()
        for net in (here, there)
    ]
    assert loss[1] == pytest.approx(loss[0], rel=0.02)


def test_an_edited_network_stays_on_its_device(on_both: tuple[nn.Module, nn.Module, sm.Samples], device: str) -> None:
    here, there, _ = on_both
    edit = sm.edits.random_noise(sm.parse_units(here, "conv1:3,conv2:5"), 0.3, seed=4)
    one, two = sm.edits.edited(here, edit), sm.edits.edited(there, edit)
    for name, value in two.state_dict().items():
        assert value.device.type == torch.device(device).type
        assert torch.equal(value.cpu(), one.state_dict()[name])
