"""The prefix engine compared with full forward passes: networks of every kind."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from engine_cases import EXACT, assert_same_block, full_passes, run_both, units
from engine_networks import OWN, Unused
from torch import Tensor, nn

import spurious_memorization as sm
from spurious_memorization.engine.evaluate import engine_for
from spurious_memorization.engine.prefix.network import segmented
from spurious_memorization.networks.selection import Selection
from spurious_memorization.networks.units import sites

QUICK = {"dense", "many groups", "depthwise", "tied without bias", "shared norm", "late bias", "no cuts", "signals"}


@pytest.mark.slow
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


class Masked(nn.Module):
    """Three layers that all read a mask, which is computed from two inputs by name."""

    def __init__(self, sizes: tuple[int, ...] = (6, 8, 8)) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.fc = nn.Linear(sizes[-1], 2)

    def forward(self, x: Tensor, mask: Tensor, scale: Tensor) -> Tensor:
        weight = (mask.float() * scale)[..., None]
        for layer in self.layers:
            x = (layer(x) * weight).relu()
        return self.fc(x.mean(1))


class Product(nn.Module):
    """A single value is computed from two inputs by name."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.fc = nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.fc(self.inner(left * right))


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_inputs_by_name_share_their_prefix(precision):
    torch.manual_seed(10)
    net = Masked()
    x = {"x": torch.randn(12, 5, 6), "mask": (torch.rand(12, 5) > 0.3).long(), "scale": torch.rand(12, 5) + 0.5}
    samples = sm.from_tensors(x, [0, 1] * 6, [0] * 12).train
    names = [f"layers.{i}:{channel}" for i in range(2) for channel in range(8)]
    edits = [sm.edits.zero(sm.parse_units(net, name)) for name in names]
    engine = engine_for(net, samples, precision=precision, execution=sm.Execution(eval_batch_size=5))
    given = engine.run(edits, range(-1, len(edits)), samples)
    assert engine.description == "shared prefix"
    assert engine.pass_fractions(edits)[-1] < engine.pass_fractions(edits)[0] < 1
    for row, edit in enumerate([None, *edits]):
        edited = net if edit is None else sm.edits.edited(net, edit)
        with torch.no_grad():
            losses = nn.functional.cross_entropy(edited(**x), torch.from_numpy(samples.y), reduction="none")
        np.testing.assert_allclose(given.loss[row], losses, atol=1e-5 if precision == "float32" else 0.05)


def test_one_value_of_several_inputs_is_the_prefix():
    torch.manual_seed(10)
    net, x = Product(), {"left": torch.randn(12, 6), "right": torch.randn(12, 6)}
    samples = sm.from_tensors({name: x[name] for name in ("right", "left")}, [0, 1] * 6, [0] * 12).train
    edit = sm.edits.zero(sm.parse_units(net, "inner:3"))
    result = sm.evaluate(net, [edit], samples)
    assert result.engine == "shared prefix"
    with torch.no_grad():
        after = sm.edits.edited(net, edit)(x["left"], x["right"])
    losses = nn.functional.cross_entropy(after, torch.from_numpy(samples.y), reduction="none")
    np.testing.assert_allclose(result.after.loss[0], losses, atol=1e-5)
