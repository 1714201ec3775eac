"""Outcomes on a GPU compared with those on the CPU, and with each other."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from engine_cases import images, lively, samples_of, some_edits, trained, units
from engine_networks import Residual
from torch import Tensor, nn

import spurious_memorization as sm
from spurious_memorization.engine.evaluate import engine_for
from spurious_memorization.engine.outcomes import Block
from spurious_memorization.engine.plain import PlainEngine
from spurious_memorization.networks.build import NetworkSettings, build

pytestmark = pytest.mark.gpu

NETWORKS = ("resnet18", "deit_tiny")
LAYERS = {
    "resnet18": ("conv1", "layer1.0.conv2", "layer2.0.downsample.0", "layer3.1.conv1", "layer4.1.conv2"),
    "deit_tiny": (
        "patch_embed.proj",
        "blocks.2.mlp.fc1",
        "blocks.5.attn.proj",
        "blocks.8.attn.qkv",
        "blocks.11.mlp.fc2",
    ),
}


@functools.cache
def network(name: str) -> tuple[nn.Module, sm.Samples]:
    torch.manual_seed(1)
    size = 64 if name == "resnet18" else 32
    x = images(6, size)
    return lively(build(NetworkSettings(model=name, n_classes=3, image_size=size)), x), samples_of(x)


def edits_of(name: str) -> list[sm.Edit]:
    """Single channels, several channels, weights and heads, with several kinds of edit."""
    (net, samples), layers = network(name), LAYERS[name]
    head = "fc.weight" if name == "resnet18" else "head.weight"
    several = units(net, ",".join(f"{layer}:7" for layer in layers[1::2]))
    weights = units(net, f"{layers[0]}:40,{head}:3", unit="weight")
    torch.manual_seed(2)
    older = {key: value + 0.3 * value.std() * torch.randn(value.shape) for key, value in net.named_parameters()}
    edits = [sm.edits.zero(units(net, f"{layer}:{i}")) for i, layer in enumerate(layers)]
    edits += [
        sm.edits.mean(several, sm.edits.channel_means(net, samples)),
        sm.edits.random_init(several, 0.3, seed=1),
        sm.edits.random_noise(several, 0.3, seed=1),
        sm.edits.rewind(several, older),
        sm.edits.zero(weights),
        sm.edits.random_noise(weights, 5.0, seed=2),
    ]
    if name == "deit_tiny":
        edits.append(sm.edits.zero(units(net, "blocks.2.attn:1,blocks.9.attn:0", unit="head")))
    return edits


def execution(device: str, size: int = 200) -> sm.Execution:
    return sm.Execution(device=device, eval_batch_size=size, compile=False)


def assert_near(one: Block, two: Block, tolerance: float) -> None:
    """Equal predictions; margins and losses within this share of the largest margin, or of 1."""
    near = tolerance * max(1.0, float(np.abs(two.margin).max()))
    assert np.array_equal(one.predicted, two.predicted)
    np.testing.assert_allclose(one.margin, two.margin, rtol=0, atol=near)
    np.testing.assert_allclose(one.loss, two.loss, rtol=0, atol=near)


def both_engines(
    net: nn.Module, edits: Sequence[sm.Edit], samples: sm.Samples, device: str, size: int = 200
) -> tuple[Block, Block]:
    rows, run = range(-1, len(edits)), execution(device, size)
    engine = engine_for(net, samples, execution=run)
    blocks = engine.run(edits, rows, samples), PlainEngine(net, execution=run).run(edits, rows, samples)
    assert engine.description == "shared prefix"
    return blocks


@pytest.mark.parametrize("name", NETWORKS)
def test_outcomes_are_those_of_the_cpu_whatever_the_batch_size(name: str, device: str) -> None:
    net, samples = network(name)
    edits = edits_of(name)
    expected = PlainEngine(net, execution=execution("cpu")).run(edits, range(-1, len(edits)), samples)
    shared, plain = both_engines(net, edits, samples, device)
    assert_near(shared, expected, 1e-3)
    assert_near(plain, expected, 1e-3)
    assert_near(shared, plain, 1e-4)
    for block, whole in zip(both_engines(net, edits, samples, device, 4), (shared, plain), strict=True):
        assert_near(block, whole, 1e-5)
    before = expected.margin[0]
    assert np.mean([np.abs(after - before).max() > 1e-3 for after in expected.margin[1:]]) > 0.8


def test_outcomes_of_many_samples_are_those_of_the_cpu(device: str) -> None:
    net, samples = trained()
    edits = some_edits(net)
    given, expected = (sm.evaluate(net, edits, samples, execution=execution(kind)) for kind in (device, "cpu"))
    assert given.engine == "shared prefix"
    assert_near(given.before, expected.before, 1e-3)
    assert_near(given.after, expected.after, 1e-3)


def test_same_results_twice(device: str) -> None:
    net, samples = trained()
    one, two = (both_engines(net, some_edits(net), samples, device) for _ in range(2))
    for given, expected in zip(one, two, strict=True):
        assert np.array_equal(given.margin, expected.margin)
        assert np.array_equal(given.loss, expected.loss)


def test_bf16_predicts_as_float32(device: str) -> None:
    net, samples = trained()
    edits, run = some_edits(net), execution(device)
    single = sm.evaluate(net, edits, samples, execution=run)
    half = sm.evaluate(net, edits, samples, precision="bf16", execution=run)
    assert single.engine == half.engine == "shared prefix"
    assert (single.after.predicted == half.after.predicted).mean() >= 0.99
    assert not np.array_equal(single.after.loss, half.after.loss)


def test_inputs_by_name_take_full_passes(device: str) -> None:
    class ByName(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(6, 8)
            self.classifier = nn.Linear(8, 2)

        def forward(self, x: Tensor, scale: Tensor) -> Tensor:
            return self.classifier(self.inner(x * scale[:, None]).relu())

    torch.manual_seed(0)
    net, inputs = ByName(), {"x": torch.randn(12, 6), "scale": torch.rand(12)}
    samples = sm.from_tensors(inputs, [0, 1] * 6, [0, 0, 1] * 4).train
    edit = sm.edits.zero(units(net, "inner:2,inner:5"))
    given, expected = (sm.evaluate(net, edit, samples, execution=execution(kind)) for kind in (device, "cpu"))
    assert given.engine.startswith("plain")
    assert_near(given.before, expected.before, 1e-3)
    assert_near(given.after, expected.after, 1e-3)


def test_the_network_stays_where_it_is(device: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 3, 12, 12)
    net = lively(Residual(), x)
    edit, samples = sm.edits.zero(units(net, "conv1:3")), samples_of(x)
    sm.evaluate(net, edit, samples, execution=execution(device))
    assert all(value.device.type == "cpu" for value in net.state_dict().values())
    there = sm.evaluate(net.to(device), edit, samples, execution=execution(device))
    back = sm.evaluate(net, edit, samples, execution=execution("cpu"))
    assert_near(there.after, back.after, 1e-3)
