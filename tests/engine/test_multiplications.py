"""Multiplications are counted as by hand and as PyTorch counts them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from engine_cases import network, samples_of, units
from engine_networks import OWN, Own, conv
from tiny_networks import small_convnet
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
    net = Own(conv(of=3), conv(groups=8), F.relu)
    engine = engine_for(net, samples_of(torch.randn(3, 3, 8, 8), 2))
    first, second, head = 36 * 8 * 27, 16 * 8 * 9, 8 * 2
    assert engine.pass_multiplications == first + second + head
    fractions = engine.pass_fractions([sm.edits.zero(units(net, text)) for text in ("a:1", "b:3")])
    np.testing.assert_allclose(fractions, (second + head) / engine.pass_multiplications)


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
