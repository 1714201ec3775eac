"""The prefix engine compared with full forward passes: networks of every kind."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from engine_cases import EXACT, assert_same_block, full_passes, run_both, units
from engine_networks import OWN, Unused
from torch import nn

import spurious_memorization as sm
from spurious_memorization.engine.prefix.network import segmented
from spurious_memorization.networks.selection import Selection
from spurious_memorization.networks.units import sites

QUICK = {"dense", "grouped", "tied without bias", "shared norm", "late bias", "no cuts", "signals"}


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in OWN])
def test_networks_of_all_kinds(name):
    make, shape, texts = OWN[name]
    torch.manual_seed(7)
    net, x = make(), torch.randn(12, *shape)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    net.eval()
    chosen = [units(net, text) for text in texts]
    means = {key.removesuffix(".weight"): torch.randn(site.n) for key, site in sites(net, Selection()).items()}
    every = [units(net, f"{key}:0", unit="weight") for key, _ in net.named_parameters()]
    ends = [f"{key}:{0 if value.ndim > 1 else len(value) - 1}" for key, value in net.named_parameters()]
    every.append(units(net, ends, unit="weight"))
    edits = [
        edit
        for u in chosen
        for edit in (sm.edits.zero(u), sm.edits.mean(u, means), sm.edits.random_init(u, 1.0, seed=3))
    ]
    edits += [sm.edits.random_noise(u, 3.0, seed=4) for u in every]
    path, given, plain = run_both(net, edits, x)
    assert path == "shared prefix"
    output, y = full_passes(net, edits, x), torch.arange(12) % 2
    assert_same_block(given, output, y)
    assert_same_block(plain, output, y)
    moved = np.array([float((after - output[0]).abs().max()) for after in output[1:]])
    assert (moved[: 3 * len(chosen)] > 3 * EXACT).mean() > 0.8
    assert (moved[3 * len(chosen) :] > 3 * EXACT).mean() > 0.5
    inner = segmented(net, x, "float32")
    assert (len(inner.segments) == 1) == (name == "no cuts")


def test_whole_numbers_as_inputs():
    torch.manual_seed(8)
    net = nn.Sequential(nn.Embedding(300, 8), nn.Linear(8, 16), nn.ReLU(), nn.Flatten(), nn.Linear(80, 2))
    x = torch.randint(0, 300, (12, 5))
    edits = [
        sm.edits.zero(units(net, "1:3")),
        sm.edits.random_noise(units(net, f"0:{8 * int(x[0, 0])}", unit="weight"), 9.0),
    ]
    path, given, plain = run_both(net, edits, x)
    assert path == "shared prefix"
    assert_same_block(given, full_passes(net, edits, x), torch.arange(12) % 2)
    path, half, _ = run_both(net, edits, x, "bf16")  # 257 is no number of bfloat16
    assert path == "shared prefix"
    np.testing.assert_allclose(half.margin, plain.margin, atol=0.05 * np.abs(plain.margin).max())


@pytest.mark.parametrize(
    "net", [nn.Identity(), nn.Flatten(), nn.Sequential(nn.Identity(), nn.Softmax(1))], ids=["same", "flat", "softmax"]
)
def test_networks_without_parameters(net):
    path, given, plain = run_both(net, [], torch.randn(5, 2))
    assert path.startswith(("plain", "shared prefix"))
    np.testing.assert_allclose(given.margin, plain.margin, rtol=1e-5, atol=1e-6)


def test_a_network_that_is_one_layer():
    torch.manual_seed(12)
    net, x = nn.Linear(6, 2), torch.randn(12, 6)
    edits = [
        sm.edits.zero(units(net, "weight:3,weight:8", unit="weight")),
        sm.edits.zero(units(net, "bias:0", unit="weight")),
    ]
    path, given, _ = run_both(net, edits, x)
    assert path == "shared prefix"
    assert_same_block(given, full_passes(net, edits, x), torch.arange(12) % 2)


def test_a_layer_that_nothing_reads_has_no_units():
    torch.manual_seed(13)
    net = Unused()
    with pytest.raises(sm.UserError, match="no tensor 'unused' with channels"):
        units(net, "unused:1")
    path, given, plain = run_both(net, [sm.edits.zero(units(net, "inner:1"))], torch.randn(12, 6))
    assert path == "shared prefix"
    np.testing.assert_allclose(given.loss, plain.loss, rtol=1e-5, atol=1e-6)
    assert not np.array_equal(given.loss[1], given.loss[0])
