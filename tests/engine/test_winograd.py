"""Winograd's convolutions compared with PyTorch's own, in float64 and in networks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from spurious_memorization.engine.cpu import winograd
from spurious_memorization.engine.cpu.winograd import MIN_CHANNELS, Winograd
from spurious_memorization.engine.prefix.network import segmented


def layer(seed: int, inputs: int, outputs: int, *sizes: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """An input, a weight and a bias."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*sizes[:1], inputs, *sizes[1:], generator=generator)
    weight = torch.randn(outputs, inputs, 3, 3, generator=generator) / (9 * inputs) ** 0.5
    return x, weight, torch.randn(outputs, generator=generator)


@given(
    seed=st.integers(0, 99),
    channels=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    sizes=st.tuples(st.integers(1, 5), st.integers(1, 13), st.integers(1, 13)),
    has_bias=st.booleans(),
    adds=st.booleans(),
    relu=st.booleans(),
    together=st.sampled_from([1, 10_000, 10**9]),
)
def test_any_layer_equals_a_convolution_in_float64(seed, channels, sizes, has_bias, adds, relu, together):
    x, weight, bias = layer(seed, *channels, *sizes)
    other = torch.randn(len(x), len(weight), *x.shape[2:]) if adds else None
    expected = F.conv2d(x.double(), weight.double(), bias.double() if has_bias else None, padding=1)
    expected = expected if other is None else expected + other
    expected = expected.relu() if relu else expected
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "CHUNK_BYTES", together)
        given = Winograd(weight, bias if has_bias else None)(x, other, relu=relu)
    assert given.shape == expected.shape
    torch.testing.assert_close(given.double(), expected, rtol=0, atol=1e-5)


def test_its_error_is_that_of_float32():
    x, weight, bias = layer(0, 256, 256, 2, 14, 14)
    exact = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    error = (Winograd(weight, bias)(x) - exact).std() / exact.std()
    assert error < 2e-6  # 1.2e-6; of PyTorch's own convolution 6e-7


def plain_net(first: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, MIN_CHANNELS, 1),
        first,
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(MIN_CHANNELS, 2),
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("convolution", "size", "kernels"),
    [
        (nn.Conv2d(MIN_CHANNELS, MIN_CHANNELS, 3, padding=1), 7, 1),
        (nn.Conv2d(MIN_CHANNELS, MIN_CHANNELS, 3, padding="same"), 7, 0),  # another operation for torch.export
        (nn.Conv2d(MIN_CHANNELS, MIN_CHANNELS, 3, padding=1), 2, 0),  # a tile would be mostly empty
        (nn.Conv2d(MIN_CHANNELS, MIN_CHANNELS, 3, padding=1, stride=2), 7, 0),
        (nn.Conv2d(MIN_CHANNELS, MIN_CHANNELS, 3, padding=2, dilation=2), 7, 0),
        (nn.Conv2d(MIN_CHANNELS, MIN_CHANNELS, 3, padding=1, groups=2), 7, 0),
        (nn.Conv2d(MIN_CHANNELS, MIN_CHANNELS, 5, padding=2), 9, 0),
        (nn.Conv2d(MIN_CHANNELS, MIN_CHANNELS, 3), 9, 0),
    ],
)
def test_which_layers_use_the_kernel_and_that_logits_stay_equal(convolution, size, kernels):
    torch.manual_seed(0)
    net, x = plain_net(convolution).eval(), torch.randn(4, 3, size, size)
    network = segmented(net, x[:1], "float32")
    assert len(network.kernels) == kernels
    value = x
    with torch.no_grad():
        for function in network.functions:
            value = function(value)
        torch.testing.assert_close(value, net(x), rtol=1e-4, atol=1e-5)


def test_no_layer_uses_the_kernel_in_bf16():
    net = plain_net(nn.Conv2d(MIN_CHANNELS, MIN_CHANNELS, 3, padding=1)).eval()
    assert not segmented(net, torch.randn(1, 3, 7, 7), "bf16").kernels
