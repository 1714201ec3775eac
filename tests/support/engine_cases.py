"""Networks, samples and edits for tests of the engine, and comparisons with full forward passes."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from engine_networks import Residual
from torch import Tensor, nn

import spurious_memorization as sm
from spurious_memorization.edits.edit import Edit
from spurious_memorization.engine.evaluate import engine_for
from spurious_memorization.engine.outcomes import Block
from spurious_memorization.engine.plain import PlainEngine
from spurious_memorization.engine.prefix.edit_cache import EditCache
from spurious_memorization.engine.prefix.engine import UNEDITED, PrefixEngine, edited_logits
from spurious_memorization.engine.prefix.network import SegmentedNetwork, segmented
from spurious_memorization.engine.protocol import Engine
from spurious_memorization.networks.build import NetworkSettings, build
from spurious_memorization.networks.forward import logits, working_copy
from spurious_memorization.networks.losses import margin
from spurious_memorization.networks.units import Units

EXACT = 1e-4


def turned(numbers: Tensor, generator: torch.Generator, by: float) -> Tensor:
    """A user's own kind of edit."""
    return by * numbers.flip(0) + 0.1 * torch.rand(numbers.shape, generator=generator)


def lively(net: nn.Module, x: Tensor) -> nn.Module:
    """Random statistics and affine parameters, and a head that tells these samples apart."""
    with torch.no_grad():
        for name, value in (*net.named_parameters(), *net.named_buffers()):
            if name.endswith("running_mean") or (value.ndim == 1 and name.endswith("bias")):
                value.normal_(0, 0.2)
            elif value.ndim == 1 and value.is_floating_point():  # scales, variances
                value.uniform_(0.5, 1.5)
            elif name.endswith(("pos_embed", "cls_token")):
                value.normal_()
        head = [module for module in net.modules() if isinstance(module, nn.Linear)][-1]
        head.bias.zero_()
        output = net.eval()(x)
        scale = 2 / (output - output.mean(0)).std()
        head.weight.mul_(scale)
        head.bias.copy_(-scale * output.mean(0))
    return net


def images(n: int, size: int) -> Tensor:
    """Images of different brightness, color and pattern."""
    coarse = F.interpolate(torch.randn(n, 3, 4, 4), size, mode="nearest")
    return coarse * torch.rand(n, 1, 1, 1) * 3 + torch.randn(n, 3, 1, 1) + 0.3 * torch.randn(n, 3, size, size)


def samples_of(x: Tensor, n_classes: int = 3) -> sm.Samples:
    return sm.from_tensors(x, np.arange(len(x)) % n_classes, np.zeros(len(x), int)).train


@functools.cache
def network(name: str) -> tuple[nn.Module, sm.Samples, SegmentedNetwork, Engine]:
    torch.manual_seed(1)
    x = images(6, 32)
    net = lively(build(NetworkSettings(model=name, n_classes=3, image_size=32)), x)
    inner = segmented(working_copy(net), x[:1], "float32")
    return net, samples_of(x), inner, PrefixEngine(inner, x[:1], loss="cross_entropy", execution=sm.Execution())


@functools.cache
def numbers_put_in(name: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What the edits `mean` and `rewind` put in."""
    net, samples, *_ = network(name)
    torch.manual_seed(2)
    older = {key: value + 0.3 * value.std() * torch.randn(value.shape) for key, value in net.named_parameters()}
    return sm.edits.channel_means(net, samples), older


def edit_of(name: str, kind: str, units: Units, std: float, seed: int) -> Edit:
    means, older = numbers_put_in(name)
    match kind:
        case "mean":
            return sm.edits.mean(units, means)
        case "rewind":
            return sm.edits.rewind(units, older)
        case "zero":
            return sm.edits.zero(units)
        case "random_init" | "random_noise":
            return Edit(kind, units, {"std": std}, seed=seed)
        case _:
            return Edit(kind, units, {"by": 1 + std}, seed=seed)


def full_passes(net: nn.Module, edits: Sequence[Edit], x: Any) -> list[Tensor]:
    """Logits of each edited network, after those of the network before any edit."""
    with torch.no_grad():
        return [logits(n.eval(), x) for n in (copy.deepcopy(net), *(sm.edits.edited(net, edit) for edit in edits))]


def assert_same_logits(given: dict[int, Tensor], expected: Sequence[Tensor]) -> None:
    assert sorted(given) == list(range(UNEDITED, len(expected) - 1))
    for row, output in enumerate(expected, UNEDITED):
        scale = max(1.0, float(output.abs().max()))
        np.testing.assert_allclose(given[row], output, rtol=0, atol=EXACT * scale)


def assert_same_block(block: Block, expected: Sequence[Tensor], y: Tensor) -> None:
    """Margins and losses are near those of these logits; predictions are equal but where two classes nearly tie."""
    assert block.edits.tolist() == list(range(UNEDITED, len(expected) - 1))
    for row, output in enumerate(expected):
        near = EXACT * max(1.0, float(output.abs().max()))
        np.testing.assert_allclose(block.margin[row], margin(output, y), rtol=0, atol=near)
        np.testing.assert_allclose(block.loss[row], F.cross_entropy(output, y, reduction="none"), rtol=0, atol=near)
        best = output.topk(2, 1).values
        clear = (best[:, 0] - best[:, 1] > 2 * near).numpy()
        assert np.array_equal(block.predicted[row][clear], output.argmax(1).numpy()[clear])


def prefix_logits(inner: SegmentedNetwork, edits: Sequence[Edit], x: Tensor) -> dict[int, Tensor]:
    with torch.no_grad():
        return dict(edited_logits(inner, dict(enumerate(edits)), x, EditCache(inner), unedited=True))


def run_both(net: nn.Module, edits: Sequence[Edit], x: Any, precision: Any = "float32") -> tuple[str, Block, Block]:
    """The description of the engine, its outcomes, and those of full forward passes."""
    samples, rows = samples_of(x, 2), range(-1, len(edits))
    engine = engine_for(net, samples, precision=precision)
    blocks = (e.run(edits, rows, samples) for e in (engine, PlainEngine(net, precision=precision)))
    return engine.description, *blocks


def units(net: nn.Module, text: str, **select: Any) -> Units:
    return sm.parse_units(net, text, sm.Selection(**select))


@functools.cache
def trained() -> tuple[nn.Module, sm.Samples]:
    """A network that has learnt which of three colors is the brightest."""
    torch.manual_seed(5)
    y = torch.arange(240) % 3
    x = torch.randn(240, 3, 12, 12)
    x[torch.arange(240), y] += 0.4
    net = Residual()
    optimizer = torch.optim.AdamW(net.parameters(), 1e-2)
    for step in range(40):
        part = torch.arange(step % 4, 240, 4)
        loss = F.cross_entropy(net(x[part]), y[part])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        assert float((net.eval()(x).argmax(1) == y).float().mean()) > 0.95
    return net, samples_of(x)


def some_edits(net: nn.Module) -> list[Edit]:
    """Sixty edits of one to five filters, or of ten weights."""
    random = np.random.default_rng(0)
    layers, edits = ("stem", "conv1", "conv2"), []
    for i in range(60):
        if i % 6 == 5:
            numbers = random.permutation(400)[:10]
            chosen = units(net, [f"{layers[i // 6 % 3]}:{k}" for k in numbers], unit="weight")
        else:
            chosen = units(net, [f"{layers[(i + k) % 3]}:{k * 3 + i % 3}" for k in range(1 + i % 5)])
        edits.append(Edit("random_noise", chosen, {"std": 1.0}, seed=i) if i % 2 else sm.edits.zero(chosen))
    return edits
