"""Kernels can be switched off, and a missing or wrong one is replaced by PyTorch's own operations."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from engine_cases import samples_of
from torch import Tensor, nn

import spurious_memorization as sm
from spurious_memorization.engine.cpu import fused, kernels, memory
from spurious_memorization.engine.cpu.winograd import MIN_CHANNELS
from spurious_memorization.engine.evaluate import engine_for
from spurious_memorization.engine.outcomes import Block
from spurious_memorization.engine.prefix.network import SegmentedNetwork, segmented

FUSED = "mkldnn._convolution_pointwise"


class Wide(nn.Module):
    """A block with a sum and a relu after a convolution that is wide enough for the Winograd kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, MIN_CHANNELS, 3, padding=1)
        self.conv = nn.Conv2d(MIN_CHANNELS, MIN_CHANNELS, 3, padding=1)
        self.fc = nn.Linear(MIN_CHANNELS, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        return self.fc((self.conv(x) + x).relu().mean((2, 3)))


@pytest.fixture
def wide() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return Wide().eval(), torch.randn(6, 3, 8, 8)


@pytest.fixture(autouse=True)
def checked_anew() -> Iterator[None]:
    """Check the fused operation again in each test; otherwise it is checked once per process."""
    fused._is_available.cache_clear()
    yield
    fused._is_available.cache_clear()


def targets(network: SegmentedNetwork) -> str:
    """The operations of all segments."""
    functions: Any = network.functions
    return " ".join(str(node.target) for module in functions for node in module.graph.nodes)


def outcomes(net: nn.Module, x: Tensor) -> Block:
    edits = [sm.edits.zero(sm.parse_units(net, text)) for text in ("stem:3", "conv:5", "conv:1,conv:2")]
    return engine_for(net, samples_of(x)).run(edits, range(-1, 3), samples_of(x))


def assert_near(one: Block, two: Block) -> None:
    assert np.array_equal(one.predicted, two.predicted)
    np.testing.assert_allclose(one.margin, two.margin, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(one.loss, two.loss, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", set(kernels.NAMES)),
        ("all", set(kernels.NAMES)),
        ("none", set()),
        ("fused", {"fused"}),
        (" winograd, memory ", {"winograd", "memory"}),
    ],
)
def test_the_environment_switches_kernels(text, expected, monkeypatch, wide):
    monkeypatch.setenv(kernels.VARIABLE, text)
    used = []
    monkeypatch.setattr(memory, "_glibc", lambda: used.append("memory"))
    net, x = wide
    network = segmented(net, x[:1], "float32")
    assert kernels.switched_on() == expected
    assert bool(network.kernels) == ("winograd" in expected)
    assert (FUSED in targets(network)) == ("fused" in expected)
    with kernels.reused_memory() as return_memory:
        return_memory()
    assert bool(used) == ("memory" in expected)


def test_an_unknown_kernel_is_an_error(monkeypatch, wide):
    monkeypatch.setenv(kernels.VARIABLE, "winograd,fast")
    with pytest.raises(sm.UserError, match="SPURMEM_KERNELS names no kernel 'fast': give all, none, or some of"):
        engine_for(wide[0], samples_of(wide[1]))


@pytest.mark.slow
@pytest.mark.parametrize("text", ["none", "fused", "winograd"])
def test_switches_change_no_outcome(text, monkeypatch, wide):
    expected = outcomes(*wide)
    monkeypatch.setenv(kernels.VARIABLE, text)
    assert_near(outcomes(*wide), expected)


class Sums(nn.Module):
    """Two blocks, each with a sum before a relu.

    Arguments:
        kind: what the second block adds, and what reads that value besides the sum.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.stem, self.first, self.second, self.third = (nn.Conv2d(n, 4, 3, padding=1) for n in (3, 4, 4, 4))
        self.fc = nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        x = self.first(self.stem(images)).relu()
        of_view = x.transpose(2, 3)
        other = self.third(x) if self.kind == "a convolution" else x
        between = other if self.kind == "the same convolution" else self.second(x)
        y = (self.third(between) + other).relu()
        match self.kind:
            case "a later sum":
                y = y + x
            case "a later convolution":
                y = y + self.second(x)
            case "a view":
                y = y + of_view
        return self.fc(torch.cat([y.mean((2, 3)), y.amax((2, 3))], 1))


@pytest.mark.parametrize(
    ("kind", "is_overwritten"),
    [
        ("the input", True),
        ("a convolution", True),
        ("the same convolution", False),
        ("a later sum", False),
        ("a later convolution", False),
        ("a view", False),
    ],
)
def test_a_sum_is_written_only_over_what_nothing_else_reads(kind, is_overwritten, monkeypatch):
    monkeypatch.setenv(kernels.VARIABLE, "fused")
    torch.manual_seed(0)
    net, x = Sums(kind).eval(), torch.randn(5, 3, 8, 8)
    network = segmented(net, x[:1], "float32")
    assert ("_summed_over" in targets(network)) == is_overwritten
    given = x.clone()
    with torch.no_grad():
        value, shared = network.enter(x)
        for position in range(len(network.segments)):
            value = network.run_segment(position, value, shared)
        torch.testing.assert_close(value, net(given), rtol=1e-4, atol=1e-5)
    assert torch.equal(x, given)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", ["channels last", "channels first", "rows last", "part of a larger value"])
def test_a_sum_is_right_in_every_layout(layout, dtype):
    generator = torch.Generator().manual_seed(0)
    x, weight, other = (torch.randn(n, generator=generator) for n in ((3, 4, 6, 6), (5, 4, 3, 3), (3, 5, 6, 6)))
    expected = (torch.conv2d(x, weight, padding=1) + other).relu()
    match layout:
        case "channels last":
            other = other.contiguous(memory_format=torch.channels_last)
        case "rows last":
            other = other.transpose(2, 3).contiguous().transpose(2, 3)
        case "part of a larger value":
            other = torch.cat([other, other], 1)[:, :5]
    given = (x.contiguous(memory_format=torch.channels_last), other, weight)
    x, other, weight = (value.to(dtype) for value in given)
    before = other.clone()
    found = fused._summed_over(x, other, weight, None, [1, 1], [1, 1], [1, 1], 1, "add", 1.0, "relu", [], "")
    tolerance = 1e-5 if dtype == torch.float32 else 0.1
    torch.testing.assert_close(found.float(), expected, rtol=tolerance, atol=tolerance)
    assert torch.equal(other, before) == (layout != "channels last")


def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "mkldnn", SimpleNamespace())


def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> Tensor:
        raise RuntimeError("built without oneDNN")

    monkeypatch.setattr(
        fused, "mkldnn", SimpleNamespace(_convolution_pointwise=SimpleNamespace(default=fails, binary=fails))
    )


def without_relu(monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.ops.mkldnn._convolution_pointwise

    def wrong(x: Tensor, weight: Tensor, bias: Tensor | None, padding: Any, stride: Any, dilation: Any, *rest: Any):
        return torch.conv2d(x, weight, bias, stride, padding, dilation, rest[0])

    monkeypatch.setattr(
        fused, "mkldnn", SimpleNamespace(_convolution_pointwise=SimpleNamespace(default=wrong, binary=real.binary))
    )


def of_another_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = SimpleNamespace(default=lambda *_: torch.zeros(5, 7), binary=lambda *_: torch.zeros(5, 7))
    monkeypatch.setattr(fused, "mkldnn", SimpleNamespace(_convolution_pointwise=wrong))


@pytest.mark.slow
@pytest.mark.parametrize(
    "broken",
    [missing, without_relu, *(pytest.param(how, marks=pytest.mark.slow) for how in (failing, of_another_shape))],
)
def test_a_missing_or_wrong_fused_operation_is_not_used(broken, monkeypatch, wide):
    net, x = wide
    assert FUSED in targets(segmented(net, x[:1], "float32"))
    expected = outcomes(net, x)
    fused._is_available.cache_clear()
    broken(monkeypatch)
    network = segmented(net, x[:1], "float32")
    assert FUSED not in targets(network)
    assert "relu" in targets(network)
    assert_near(outcomes(net, x), expected)


def test_checking_the_fused_operation_leaves_random_numbers_alone():
    before = torch.get_rng_state()
    fused._is_available()
    assert torch.equal(torch.get_rng_state(), before)
