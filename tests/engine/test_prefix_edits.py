"""The prefix engine compared with full forward passes: edits of every kind, size and place."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from engine_cases import (
    EXACT,
    assert_same_block,
    assert_same_logits,
    edit_of,
    full_passes,
    lively,
    network,
    prefix_logits,
    some_edits,
    trained,
    units,
)
from engine_networks import Residual
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import spurious_memorization as sm
from spurious_memorization.edits.edit import Edit
from spurious_memorization.engine.evaluate import engine_for
from spurious_memorization.engine.plain import PlainEngine
from spurious_memorization.engine.prefix.engine import UNEDITED
from spurious_memorization.engine.prefix.network import segmented
from spurious_memorization.networks.selection import Selection
from spurious_memorization.networks.units import Units, sites

NETWORKS = (
    "resnet18",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("deit_tiny", "resnet50", "convnext_atto", "regnety_002")),
)
KINDS = ("zero", "mean", "random_init", "random_noise", "rewind", "engine_cases:turned")


@st.composite
def edits_on(draw: st.DrawFn, name: str) -> list[Edit]:
    """One to four edits: of one unit up to a whole layer, in one layer up to four."""
    net = network(name)[0]
    edits = []
    for _ in range(draw(st.integers(1, 4))):
        unit = draw(st.sampled_from(("channel", "channel", "weight", *(("head",) if name == "deit_tiny" else ()))))
        with_bias = draw(st.booleans())
        if unit == "weight":
            n_of = {key: value.numel() for key, value in net.named_parameters()}
        else:
            n_of = {key: site.n for key, site in sites(net, Selection(unit=unit, with_bias=with_bias)).items()}
        names = draw(st.lists(st.sampled_from(list(n_of)), min_size=1, max_size=4, unique=True))
        random = np.random.default_rng(draw(st.integers(0, 999)))
        sizes = [draw(st.sampled_from((1, 1, 2, 7, 30, 10**9))) for _ in names]
        index = [
            random.permutation(n_of[key])[: min(k, 2000)] if unit == "weight" else random.permutation(n_of[key])[:k]
            for key, k in zip(names, sizes, strict=True)
        ]
        place = np.repeat(np.arange(len(names)), [len(i) for i in index])
        units = Units(unit, tuple(names), place, np.concatenate(index), with_bias)
        kind = draw(st.sampled_from([kind for kind in KINDS if kind != "mean" or unit != "weight"]))
        edits.append(edit_of(name, kind, units, draw(st.sampled_from((0.02, 0.3))), draw(st.integers(0, 9))))
    return edits


def assert_equals_full_passes(name: str, edits: Sequence[Edit]) -> list[Tensor]:
    """Both engines against full passes of edited copies, whose logits are given back."""
    net, samples, inner, engine = network(name)
    x, rows = samples.batch().inputs, range(-1, len(edits))
    expected = full_passes(net, edits, x)
    assert_same_logits(prefix_logits(inner, edits, x), expected)
    for block in (engine.run(edits, rows, samples), PlainEngine(net).run(edits, rows, samples)):
        assert_same_block(block, expected, samples.batch().y)
    return expected


@pytest.mark.parametrize("name", NETWORKS)
def test_any_edits_equal_full_passes(name):
    @settings(deadline=None, derandomize=True, max_examples=3 if name == "resnet50" else 5, database=None)
    @given(edits_on(name))
    def holds(edits: list[Edit]) -> None:
        assert_equals_full_passes(name, edits)

    _, samples, _, engine = network(name)
    assert len(np.unique(engine.run([], range(-1, 0), samples).predicted)) > 1
    holds()


QUICK = {("resnet18", "engine_cases:turned")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(name, kind, marks=() if (name, kind) in QUICK else pytest.mark.slow)
        for name in ("resnet18", "deit_tiny")
        for kind in KINDS
    ],
)
def test_each_kind_of_edit_at_each_depth(name, kind):
    net = network(name)[0]
    layers = [*sites(net, Selection())]
    early, middle, late = (sm.Selection(tensors=(layers[i],)) for i in (0, len(layers) // 2, -1))
    chosen = [
        units(net, f"{layers[0]}:1"),
        units(net, f"{layers[-1]}:3,{layers[len(layers) // 2]}:5,{layers[len(layers) // 3]}:0"),
        units(net, f"{layers[1]}:2,{layers[1]}:9", with_bias=False),
        *(units(net, [f"{s.tensors[0]}:{i}" for i in range(sites(net, s)[s.tensors[0]].n)]) for s in (early, late)),
        units(net, [f"{middle.tensors[0]}:{i}" for i in range(0, 40, 2)]),
    ]
    if kind != "mean":
        head = "fc.weight" if name == "resnet18" else "head.weight"
        chosen += [
            units(net, f"{head}:{i},{head}:{i + 5}", unit="weight") for i in (0, net.get_parameter(head).numel() - 9)
        ]
        chosen.append(units(net, f"{layers[3]}:40,{head}:3,{layers[0]}:0", unit="weight"))
    if name == "deit_tiny":
        chosen.append(units(net, "blocks.2.attn:1,blocks.9.attn:0", unit="head"))
    edits = [edit_of(name, kind, u, 0.3, 4) for u in chosen]
    before, *after = assert_equals_full_passes(name, edits)
    assert all(float((output - before).abs().max()) > 1e-3 for output in after)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("resnet18", ["bn1.weight", "bn1.bias", "layer2.0.downsample.1.weight", "layer4.1.bn2.bias", "fc.bias"]),
        pytest.param(
            "deit_tiny",
            ["pos_embed", "cls_token", "blocks.0.norm1.weight", "blocks.5.norm2.bias", "norm.weight"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "convnext_atto",
            ["stem.1.weight", "stages.0.blocks.1.gamma", "stages.2.blocks.3.norm.weight"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_single_weights_of_any_parameter(name, parameters):
    net = network(name)[0]
    singles = [units(net, f"{parameter}:0", unit="weight") for parameter in parameters]
    together = units(net, [f"{parameter}:1" for parameter in parameters], unit="weight")
    edits = [Edit("random_noise", u, {"std": 9.0}, seed=i) for i, u in enumerate([*singles, together])]
    before, *after = assert_equals_full_passes(name, edits)
    assert all(float((output - before).abs().max()) > 3 * EXACT * float(before.abs().max()) for output in after)


@pytest.mark.slow
def test_a_zeroed_filter_stays_at_the_constant_behind_its_batch_norm():
    torch.manual_seed(6)
    x = torch.randn(9, 3, 8, 8)
    net = lively(Residual(), x)
    for layer, norm in ((net.stem, net.norm), (net.conv1, net.norm1)):
        name = next(key for key, module in net.named_modules() if module is layer)
        nn.init.ones_(norm.bias)

        def held(module: nn.BatchNorm2d, _inputs: object, output: Tensor) -> Tensor:
            constant = module.bias - module.weight * module.running_mean / (module.running_var + module.eps).sqrt()
            output = output.clone()
            output[:, 5] = constant[5]
            return output

        hook = norm.register_forward_hook(held)
        with torch.no_grad():
            expected = net(x)
        hook.remove()
        given = prefix_logits(segmented(net, x, "float32"), [sm.edits.zero(units(net, f"{name}:5"))], x)
        np.testing.assert_allclose(given[0], expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
        assert float((given[0] - given[UNEDITED]).abs().max()) > 1e-3 * float(expected.abs().max())


@pytest.mark.parametrize("name", ["resnet18", pytest.param("deit_tiny", marks=pytest.mark.slow)])
def test_edits_that_do_nothing_equal_the_row_before_exactly(name):
    net, samples, _, engine = network(name)
    layers = [*sites(net, Selection())]
    here, far = units(net, f"{layers[1]}:0"), units(net, f"{layers[0]}:3,{layers[-1]}:5,{layers[4]}:2")
    one = units(net, f"{layers[2]}:9", unit="weight")
    own = dict(net.state_dict())
    idle = [sm.edits.random_noise(u, 0.0) for u in (here, far, one)] + [
        sm.edits.rewind(u, own) for u in (here, far, one)
    ]
    edits = [idle[0], sm.edits.zero(here), *idle[1:], sm.edits.zero(far), sm.edits.zero(one)]
    block = engine.run(edits, range(-1, len(edits)), samples)
    for row, edit in enumerate(edits, 1):
        is_same = np.array_equal(block.loss[row], block.loss[0]) and np.array_equal(block.margin[row], block.margin[0])
        assert is_same == (edit in idle)


def test_part_of_the_edits_without_the_network_before():
    net, samples = trained()
    engine, edits = engine_for(net, samples), some_edits(net)
    whole, part = (engine.run(edits, rows, samples) for rows in (range(-1, 12), range(5, 12)))
    assert part.edits.tolist() == list(range(5, 12))
    np.testing.assert_allclose(part.loss, whole.loss[6:], rtol=1e-5, atol=1e-5)
    assert np.array_equal(part.predicted, whole.predicted[6:])


@pytest.mark.slow
def test_the_network_stays_as_it_is():
    net = copy.deepcopy(trained()[0]).train()
    net.conv1.weight.requires_grad_(False)
    before = {name: (value.clone(), value.stride(), value.data_ptr()) for name, value in net.state_dict().items()}
    engine = engine_for(net, trained()[1])
    engine.run(some_edits(net), range(-1, 60), trained()[1])
    for name, value in net.state_dict().items():
        old, stride, place = before[name]
        assert torch.equal(value, old)
        assert (value.stride(), value.data_ptr()) == (stride, place)
    assert all(module.training for module in net.modules())
    assert [name for name, p in net.named_parameters() if not p.requires_grad] == ["conv1.weight"]
    assert not any(module._forward_hooks for module in net.modules())
