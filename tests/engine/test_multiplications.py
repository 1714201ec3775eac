"""Multiplications are counted as by hand and as PyTorch counts them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from engine_cases import network, samples_of, units
from engine_networks import OWN, Own, conv
from tiny_networks import small_convnet
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import spurious_memorization as sm
from spurious_memorization.engine.evaluate import engine_for
from spurious_memorization.engine.plain import PlainEngine


@pytest.mark.slow
def test_pass_fractions_are_counted_as_by_hand():
    net = small_convnet()
    first, second, head = 64 * 8 * 27, 16 * 12 * 72, 12 * 2
    engine = engine_for(net, samples_of(torch.randn(3, 3, 8, 8), 2))
    assert engine.pass_multiplications == first + second + head
    texts = {
        ("conv1:0", "channel"): head,  # the second layer gets a change of low rank
        ("conv2:3", "channel"): 0,
        ("conv1:0", "weight"): first + second + head,
        ("bn1.bias:0", "weight"): first + second + head,
        ("conv2:5", "weight"): second + head,
        ("fc:5", "weight"): head,
    }
    edits = [sm.edits.zero(units(net, text, unit=unit)) for text, unit in texts]
    np.testing.assert_allclose(engine.pass_fractions(edits), np.array([*texts.values()]) / engine.pass_multiplications)
    assert PlainEngine(net).pass_fractions(edits).tolist() == [1] * len(edits)


@pytest.mark.parametrize(("groups", "second"), [(2, 16 * 8 * 36), (8, 16 * 8 * 9)])
def test_a_depthwise_layer_carries_a_changed_channel_on(groups, second):
    net = Own(conv(of=3), conv(groups=groups), F.relu)
    engine = engine_for(net, samples_of(torch.randn(3, 3, 8, 8), 2))
    first, head = 36 * 8 * 27, 8 * 2
    assert engine.pass_multiplications == first + second + head
    fractions = engine.pass_fractions([sm.edits.zero(units(net, text)) for text in ("a:1", "b:3")])
    needed = np.array([0 if groups == 8 else second + head, 0])
    np.testing.assert_allclose(fractions, needed / engine.pass_multiplications)


class Gated(nn.Module):
    """A stem, and a block as in EfficientNet: wide, depthwise, a gate that reads all channels, narrow, a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide, self.depthwise = conv(16, 3), conv(64, 16, 1), conv(64, 64, padding=1, groups=64)
        self.reduce, self.expand, self.narrow = conv(8, 64, 1), conv(64, 8, 1), conv(16, 64, 1)
        self.fc = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = before = F.silu(self.stem(x))
        x = F.silu(self.depthwise(F.silu(self.wide(x))))
        gate = self.expand(F.silu(self.reduce(x.mean((2, 3), keepdim=True)))).sigmoid()
        return self.fc((before + self.narrow(x * gate)).mean((2, 3)))


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("wide:5", "channel"),
        ("depthwise:5", "channel"),
        ("depthwise:5,narrow:3", "channel"),
        ("narrow.weight:0,narrow.weight:80,narrow.weight:160", "weight"),  # more rows than are computed apart
    ],
)
def test_what_is_computed_for_an_edit_is_what_is_counted(text, unit, monkeypatch):
    monkeypatch.setenv("SPURMEM_KERNELS", "none")  # PyTorch counts its own operations alone
    net, samples = Gated(), samples_of(torch.randn(2, 3, 10, 10), 2)
    engine = engine_for(net, samples)
    edit = sm.edits.random_noise(units(net, text, unit=unit), 1.0)

    def computed(edits: list[sm.Edit]) -> float:
        counter = FlopCounterMode(display=False)
        with counter:
            engine.run(edits, range(-1, len(edits)), samples)
        return counter.get_total_flops() / 2 / len(samples)

    computed([edit])  # the first run also passes an image through, to find the layer that gives the logits
    counted = float(engine.pass_fractions([edit])[0]) * engine.pass_multiplications
    of_few_channels = 0.03 * engine.pass_multiplications
    assert counted <= computed([edit]) - computed([]) < counted + of_few_channels


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["resnet18", pytest.param("deit_tiny", marks=pytest.mark.slow), "string padding", "signals"]
)
def test_multiplications_of_a_full_pass(name):
    if name in OWN:
        make, shape, _ = OWN[name]
        net, x = make().eval(), torch.randn(1, *shape)
        work = engine_for(net, samples_of(x)).pass_multiplications
    else:
        net, samples, _, engine = network(name)
        work, x = engine.pass_multiplications, samples.batch().inputs[:1]
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        net(x)
    assert work == counter.get_total_flops() / 2 > 0
