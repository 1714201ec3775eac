"""Controls: the same number of units, matched in place and folded norm; and folded norms like the engine's own."""

from __future__ import annotations

import functools
import math
import warnings
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import timm
import tiny_networks
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from timm.layers import ConvNormAct
from torch import Tensor, nn

import spurious_memorization as sm
from spurious_memorization.controls.matched_sets import matched_rankings
from spurious_memorization.controls.norms import folded_norms, norms_of_units, stage_of
from spurious_memorization.engine.prefix.batch_norms import folded_weight
from spurious_memorization.engine.prefix.export import export_program
from spurious_memorization.statistics.permutation import influence

QUICK = settings(max_examples=30, deadline=None)
SEEDS = st.integers(0, 2**32)


class Staged(nn.Module):
    """Two stages of two convolutions each, some with a batch norm, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3)
        self.layer1 = nn.Sequential(nn.Conv2d(6, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 9, 1))
        self.layer2 = nn.Sequential(nn.Conv2d(9, 12, 3), nn.BatchNorm2d(12, affine=False), nn.Conv2d(12, 30, 1))
        self.fc = nn.Linear(30, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer2(self.layer1(self.stem(x))).mean((2, 3)))


def shaken(model: nn.Module, seed: int = 0) -> nn.Module:
    """Norms and statistics of a trained network: far apart, factors of either sign."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            with torch.no_grad():
                norm_of = torch.randn(len(module.weight), generator=generator).exp()
                module.weight.copy_(torch.randn(module.weight.shape, generator=generator))
                module.weight.mul_(norm_of.reshape(-1, *[1] * (module.weight.ndim - 1)))
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.copy_(torch.randn(module.num_features, generator=generator).exp())
            if module.weight is not None:
                module.weight.data.copy_(torch.randn(module.num_features, generator=generator))
    return model


MODEL = shaken(Staged())
SIZES = {"stem": 6, "layer1.0": 16, "layer1.3": 9, "layer2.0": 12, "layer2.2": 30}
NORM_BEHIND = {"layer1.0": MODEL.layer1[1], "layer2.0": MODEL.layer2[1]}
EVERY = [(f"{name}.weight", i) for name, n in SIZES.items() for i in range(n)]


@functools.cache
def log_norms(unit: tuple[str, int]) -> float:
    """Log of the folded norm of a channel of MODEL, by hand."""
    layer = unit[0].removesuffix(".weight")
    weight = MODEL.get_parameter(unit[0])[unit[1]].detach().double()
    norm = NORM_BEHIND.get(layer)
    factor = 1.0
    if norm is not None:
        factor = 1 / math.sqrt(float(norm.running_var[unit[1]]) + norm.eps)
        factor *= abs(float(norm.weight.detach()[unit[1]])) if norm.affine else 1
    return math.log(factor * math.sqrt(float((weight**2).sum())))


def level(one: str, other: str) -> int:
    """0: the same tensor, 1: the same stage, 2: the same network."""
    return 0 if one == other else 1 if one.split(".")[0] == other.split(".")[0] else 2


def units_of(chosen: Sequence[tuple[str, int]]) -> sm.Units:
    return sm.parse_units(MODEL, [f"{name}:{i}" for name, i in chosen])


def nearest(chosen: Sequence[Sequence[tuple[str, int]]], position: int) -> list[tuple[str, int]]:
    """The units that may stand at a position, nearest first."""
    tensor = chosen[0][position][0]
    middle = sum(log_norms(ranking[position]) for ranking in chosen) / len(chosen)
    free = [unit for unit in EVERY if not any(unit in ranking for ranking in chosen)]
    return sorted(free, key=lambda unit: (level(tensor, unit[0]), abs(log_norms(unit) - middle)))


RANKINGS = st.lists(st.sampled_from(EVERY), unique=True, min_size=1, max_size=8)


@QUICK
@given(chosen=RANKINGS, n=st.integers(1, 80), seed=SEEDS)
def test_controls_are_the_nearest_units(chosen, n, seed):
    matched = matched_rankings(MODEL, [units_of(chosen)], n, seed=seed)
    drawn = [list(control) for control in matched.rankings]
    assert len(drawn) == min(n, len(EVERY) - len(chosen))
    for control in drawn:
        assert len(set(control)) == len(chosen)
        assert not set(control) & set(chosen)
        assert set(control) <= set(EVERY)
    levels = []
    for position, (tensor, _) in enumerate(chosen):
        here = [control[position] for control in drawn]
        assert len(set(here)) == len(here)  # no unit stands for two controls
        pool = nearest([chosen], position)[: max(len(drawn), 2 * len(chosen))]
        assert set(here) <= set(pool)
        if len(pool) == len(here):
            assert set(here) == set(pool)
        levels += [level(tensor, unit[0]) for unit in pool]
    assert matched.reach == ("tensor", "stage", "network")[max(levels)]
    own = [unit[0] == tensor for control in drawn for unit, (tensor, _) in zip(control, chosen, strict=True)]
    assert matched.same_tensor == pytest.approx(sum(own) / len(own))
    rms = [math.sqrt(np.mean(np.exp(2 * np.array([log_norms(u) for u in units])))) for units in (chosen, *drawn)]
    assert matched.norm_ratios == (pytest.approx(np.median(rms[1:]) / rms[0]),)


@pytest.mark.parametrize(
    ("text", "n", "reach", "same_tensor"),
    [
        ("layer2.2:0", 29, "tensor", 1.0),
        ("layer2.2:0", 41, "stage", 29 / 41),
        ("layer2.2:0", 42, "network", 29 / 42),
        ("layer2.2:0,layer1.3:1", 23, "stage", (23 + 8) / 46),
        ("stem:0", 5, "tensor", 1.0),
        ("stem:0", 6, "network", 5 / 6),
    ],
)
def test_how_far_the_units_are_drawn_from(text, n, reach, same_tensor):
    matched = matched_rankings(MODEL, [sm.parse_units(MODEL, text)], n)
    assert len(matched.rankings) == n
    assert (matched.reach, matched.same_tensor) == (reach, pytest.approx(same_tensor))


@QUICK
@given(data=st.data(), n=st.integers(1, 60), seed=SEEDS)
def test_rankings_that_share_their_controls(data, n, seed):
    """Three rankings with the same tensors: controls hold no unit of any, and are nearest to their mean."""
    tensors = data.draw(st.lists(st.sampled_from(list(SIZES)), min_size=1, max_size=3))
    shared = []
    for _ in range(3):
        ranking: list[tuple[str, int]] = []
        for tensor in tensors:
            free = [i for i in range(SIZES[tensor]) if (f"{tensor}.weight", i) not in ranking]
            ranking.append((f"{tensor}.weight", data.draw(st.sampled_from(free))))
        shared.append(ranking)
    matched = matched_rankings(MODEL, [units_of(ranking) for ranking in shared], n, seed=seed)
    for position in range(len(tensors)):
        here = [list(control)[position] for control in matched.rankings]
        assert len(set(here)) == len(here)
        assert set(here) <= set(nearest(shared, position)[: max(n, 2 * len(tensors))])
    alone = [matched_rankings(MODEL, [units_of(ranking)], n, seed=seed) for ranking in shared]
    assert len(matched.norm_ratios) == 3
    rms = [np.sqrt(np.mean(np.exp([2 * log_norms(u) for u in ranking]))) for ranking in shared]
    for i in (1, 2):  # one set of controls, compared with each ranking
        assert matched.norm_ratios[i] / matched.norm_ratios[0] == pytest.approx(rms[0] / rms[i])
    if all(ranking == shared[0] for ranking in shared):
        assert [c.digest() for c in matched.rankings] == [c.digest() for c in alone[0].rankings]


@QUICK
@given(chosen=RANKINGS, seed=SEEDS)
def test_controls_follow_from_their_seed(chosen, seed):
    one, two, other = (
        [list(c) for c in matched_rankings(MODEL, [units_of(chosen)], 30, seed=s).rankings]
        for s in (seed, seed, seed + 1)
    )
    assert one == two
    assert one != other


def test_no_two_controls_are_the_same_set():
    for text in ("layer2.2:0,layer2.2:1", "layer1.3:0,layer1.3:1", "stem:0,layer2.2:5,layer2.2:6"):
        for seed in range(30):
            drawn = matched_rankings(MODEL, [sm.parse_units(MODEL, text)], 40, seed=seed).rankings
            assert len({frozenset(control) for control in drawn}) == len(drawn) == 40


def test_controls_are_the_same_edit_matched_to_theirs():
    units = sm.parse_units(MODEL, "layer1.0:5,stem:0,layer2.2:7", sm.Selection(with_bias=False))
    edit = sm.edits.random_noise(units, 0.02, noise="uniform", seed=5)
    controls = sm.matched_controls(MODEL, edit, n=20)
    assert len(controls) == 20
    assert {control.matched_to for control in controls} == {edit.digest()}
    assert edit.matched_to is None
    assert {(c.kind, str(c), c.units.with_bias) for c in controls} == {("random_noise", str(edit), False)}
    assert len({control.seed for control in controls} | {edit.seed}) == 21
    older = MODEL.state_dict()
    assert all(c.tensors is older for c in sm.matched_controls(MODEL, sm.edits.rewind(units, older), n=3))
    drawn = matched_rankings(MODEL, [units], 20).rankings
    assert [list(c.units) for c in controls] == [list(u) for u in drawn]
    zeroed = sm.matched_controls(MODEL, units, n=2)  # units alone stand for zeroing them
    assert {(c.kind, c.matched_to) for c in zeroed} == {("zero", sm.edits.zero(units).digest())}
    one, two = (sm.matched_controls(MODEL, edit, n=9, seed=seed) for seed in (1, 2))
    assert {c.units.digest() for c in one} != {c.units.digest() for c in two}


def test_the_network_stays_as_it_is():
    before = {name: value.clone() for name, value in MODEL.state_dict().items()}
    MODEL.train()
    sm.matched_controls(MODEL, sm.parse_units(MODEL, "stem:0"), n=4)
    assert MODEL.training
    assert all(torch.equal(value, before[name]) for name, value in MODEL.state_dict().items())


@pytest.mark.parametrize(
    ("n_units", "n"),
    [(1, 72), (2, 71), (18, 55), (19, 0), (30, 0), (73, 0)],  # 73 channels; of 19, fewer than 3 a position are left
)
def test_a_small_network_has_fewer_and_says_so(n_units, n):
    units = units_of(EVERY[:n_units])
    with pytest.warns(UserWarning, match=f"only {n} of 99 controls") as caught:
        controls = sm.matched_controls(MODEL, units)
    assert len(controls) == n
    assert len(caught) == 1
    matched = matched_rankings(MODEL, [units], 99)
    assert len(matched.rankings) == n
    assert math.isnan(matched.norm_ratios[0]) == (n == 0)


def test_enough_controls_need_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(sm.matched_controls(MODEL, units_of(EVERY[:1]), n=72)) == 72


def test_heads():
    model = timm.create_model("vit_tiny_patch16_224", depth=2, img_size=32, num_classes=2)
    heads = sm.parse_units(model, "blocks.1.attn:2", sm.Selection(unit="head"))
    matched = matched_rankings(model, [heads], 5)
    drawn = [next(iter(control)) for control in matched.rankings]
    assert set(drawn) == {("blocks.0.attn", i) for i in range(3)} | {("blocks.1.attn", i) for i in (0, 1)}
    assert {control.kind for control in matched.rankings} == {"head"}
    assert (matched.reach, matched.same_tensor) == ("network", 2 / 5)
    assert {next(iter(c))[0] for c in matched_rankings(model, [heads], 2).rankings} == {"blocks.1.attn"}
    assert matched_rankings(model, [heads], 2).reach == "tensor"


# single weights

with torch.random.fork_rng():
    torch.manual_seed(0)
    LINEARS = nn.Sequential(nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.Linear(500, 300), nn.Linear(300, 2))


def weights(**index: Sequence[int]) -> sm.Units:
    names = tuple(name.replace("_", ".").removeprefix("p") for name in index)
    place = np.concatenate([np.full(len(i), p) for p, i in enumerate(index.values())])
    return sm.Units("weight", names, place, np.concatenate([np.asarray(i, np.int64) for i in index.values()]))


def test_weights_are_drawn_near_their_own():
    values = LINEARS[2].weight.detach().flatten().abs().double().numpy()
    order = np.argsort(values)
    chosen = order[[40_000, 90_000, 149_990]]
    matched = matched_rankings(LINEARS, [weights(p2_weight=chosen)], 50)
    rank = np.empty(len(order), int)
    rank[order] = np.arange(len(order))
    near = np.concatenate([np.arange(p - 52, p + 53) for p in (40_000, 90_000, 149_990)])
    for control in matched.rankings:
        drawn = control.by_name()["2.weight"]
        assert len(set(drawn.tolist())) == 3
        assert not np.isin(drawn, chosen).any()
        assert np.isin(rank[drawn], near).all()
    assert len({control.digest() for control in matched.rankings}) == 50
    assert (matched.reach, matched.same_tensor) == ("tensor", 1.0)
    assert 0.5 < matched.norm_ratios[0] < 1.5


def test_a_large_set_of_weights():
    index = torch.randperm(150_000, generator=torch.Generator().manual_seed(0))[:4000].numpy()
    units = weights(p2_weight=index, p0_weight=[17])
    matched = matched_rankings(LINEARS, [units], 5)
    assert len({control.digest() for control in matched.rankings}) == 5
    for control in matched.rankings:
        drawn = control.by_name()
        assert {name: len(values) for name, values in drawn.items()} == {"2.weight": 4000, "0.weight": 1}
        assert len(np.unique(drawn["2.weight"])) == 4000
        assert not np.isin(drawn["2.weight"], index).any()
        assert drawn["2.weight"].max() < 150_000
        assert abs(drawn["2.weight"].mean() - 75_000) < 5000
    assert matched.norm_ratios[0] == pytest.approx(1, abs=0.05)


def test_all_that_the_papers_threshold_selects():
    """Every parameter takes part, and of some tensors nearly all weights."""
    scores = sm.Scores(
        {name: p.detach().abs() for name, p in LINEARS.named_parameters() if p.ndim > 1}, "weight", False
    )
    units = sm.by_threshold(LINEARS, scores, 3000)
    chosen = units.by_name()
    assert {"1.weight", "3.weight"} <= chosen.keys()
    assert len(chosen["1.weight"]) == 12  # factors of 1
    for control in matched_rankings(LINEARS, [units], 3).rankings:
        assert {name: len(index) for name, index in control.by_name().items()} == {
            name: len(index) for name, index in chosen.items()
        }
        assert all(len(np.unique(index)) == len(index) for index in control.by_name().values())
        assert control.by_name()["2.weight"].tolist() != chosen["2.weight"].tolist()


def test_few_weights_take_part_once():
    """As for channels: at each position no weight stands for two controls, and where a tensor has too few there are
    fewer controls. Otherwise the strongest of few weights would be beaten by none of its controls too often."""
    for units in (weights(p0_weight=[4]), weights(p0_weight=[4, 9]), weights(p0_bias=[4])):
        drawn = [list(control) for control in matched_rankings(LINEARS, [units], 60).rankings]
        for position in range(len(units)):
            here = [control[position] for control in drawn]
            assert len(set(here)) == len(here)


def test_rankings_of_weights_share_their_controls():
    shared = [weights(p0_weight=[4, 9]), weights(p0_weight=[5, 4])]
    matched = matched_rankings(LINEARS, shared, 7)
    assert len(matched.norm_ratios) == 2
    for control in matched.rankings:
        assert not {4, 5, 9} & set(control.index.tolist())


def test_units_that_the_network_lacks_are_errors():
    for name, number in (("9.weight", 0), ("fc.weight", 0), ("stem.weight", 6)):
        units = sm.Units("channel", (name,), np.array([0]), np.array([number]))
        with pytest.raises(sm.UserError, match="the network has no channel"):
            sm.matched_controls(MODEL, sm.edits.zero(units))


# norms


def folded_by_the_engine(model: nn.Module, example: Tensor) -> dict[str, Tensor]:
    """{weight name: norm of each row of the weight that the engine computes with}."""
    program = export_program(model, example)
    found = {}
    for node, value in program.constants().items():
        if node.target is folded_weight:
            (name,) = (str(n.target) for n in node.all_input_nodes[:1])
            found[name] = value.double().flatten(1).norm(dim=1)
        elif node.op == "get_attr" and value.ndim > 1 and str(node.target).endswith("weight"):
            found.setdefault(str(node.target), value.double().flatten(1).norm(dim=1))
    return found


def timm_layers() -> nn.Module:
    """Batch norms with an activation of their own."""
    layers = (ConvNormAct(3, 6, 3), ConvNormAct(6, 5, 1, apply_act=False), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(5, 2))


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (lambda: timm.create_model("resnet18", num_classes=2), 64),
        (timm_layers, 16),
        (Staged, 16),
        (tiny_networks.small_convnet, 16),
    ],
    ids=["resnet18", "timm layers", "staged", "tiny"],
)
def test_folded_norms_are_those_of_the_engine(make, size):
    torch.manual_seed(0)
    model = shaken(make()).eval()
    norms, theirs = folded_norms(model), folded_by_the_engine(model, torch.zeros(1, 3, size, size))
    assert set(norms) == {n for n, p in model.named_parameters() if p.ndim == 4}  # all but the head
    n_folded = 0
    for name, values in norms.items():
        assert values.dtype == torch.float64
        torch.testing.assert_close(values, theirs[name], rtol=1e-5, atol=1e-7)
        plain = model.get_parameter(name).detach().double().flatten(1).norm(dim=1)
        n_folded += not torch.allclose(values, plain, rtol=1e-3)
    assert n_folded == sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())


def test_norms_of_a_transformer_are_plain():
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", depth=2, img_size=32, num_classes=2)
    for name, values in folded_norms(model).items():
        torch.testing.assert_close(values, model.get_parameter(name).detach().double().flatten(1).norm(dim=1))
    heads = folded_norms(model, "head")
    assert set(heads) == {"blocks.0.attn", "blocks.1.attn"}
    qkv = model.blocks[1].attn.qkv.weight.detach().double().reshape(3, 3, 64, 192)  # q, k, v x head x rows
    torch.testing.assert_close(heads["blocks.1.attn"], qkv.square().sum((0, 2, 3)).sqrt())


def test_norms_of_weights_and_of_chosen_tensors():
    factor = MODEL.layer1[1].weight.detach().double() / (MODEL.layer1[1].running_var.double() + 1e-5).sqrt()
    wanted = (MODEL.layer1[0].weight.detach().double() * factor.reshape(-1, 1, 1, 1)).abs()
    norms = folded_norms(MODEL, "weight")
    torch.testing.assert_close(norms["layer1.0.weight"], wanted)
    torch.testing.assert_close(norms["stem.weight"], MODEL.stem.weight.detach().double().abs())
    assert set(folded_norms(MODEL, select=sm.Selection(tensors=("layer2*",)))) == {"layer2.0.weight", "layer2.2.weight"}
    some = units_of([("layer2.0.weight", 3), ("stem.weight", 1), ("layer1.0.weight", 15)])
    np.testing.assert_allclose(np.log(norms_of_units(MODEL, some)), [log_norms(unit) for unit in some])


def test_a_batch_norm_before_any_layer_or_of_another_width_is_not_folded():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.PixelShuffle(2), nn.BatchNorm2d(1), nn.Conv2d(1, 5, 1), nn.Flatten())
    model = nn.Sequential(nn.BatchNorm2d(3), *shaken(model), nn.Linear(5, 2))
    for name, values in folded_norms(model).items():
        torch.testing.assert_close(values, model.get_parameter(name).detach().double().flatten(1).norm(dim=1))
    assert stage_of("layer3.0.conv2.weight") == "layer3"
    assert stage_of("blocks.5.attn.qkv.weight") == "blocks.5"
    assert stage_of("blocks.5.attn") == "blocks.5"
    assert stage_of("conv1.weight") == "conv1"
    assert stage_of("stages.2.blocks.1.conv.weight") == "stages.2"
    assert stage_of("0.weight") != stage_of("1.weight")


# the null: selected units that are as good as random

STRENGTHS: dict[str, Callable[[np.random.Generator], dict[tuple[str, int], float]]] = {
    "unit": lambda rng: {unit: rng.exponential() ** 3 for unit in EVERY},
    "few units": lambda rng: {unit: float(rng.random() < 0.06) for unit in EVERY},
    "tensor": lambda rng: {unit: float(SIZES[unit[0].removesuffix(".weight")] < 10) for unit in EVERY},
    "tensor and unit": lambda rng: {unit: level("stem.weight", unit[0]) * 5 + rng.normal() for unit in EVERY},
    "norm": lambda rng: {unit: log_norms(unit) for unit in EVERY},
    "quiet": lambda rng: {unit: -log_norms(unit) for unit in EVERY},
    "norm and unit": lambda rng: {unit: math.exp(log_norms(unit)) * rng.exponential() for unit in EVERY},
}


@pytest.mark.parametrize("size", [1, 2, 3])
def test_random_units_are_as_likely_first_as_any(size):
    """Units at random, 19 controls each, on strengths of units that depend on the unit alone, its tensor or its norm
    (new ones each time): p of 0.05 may come up in 0.05 of 500 at most, p of 0.2 in 0.2. The bounds are 0.9999 quantiles
    of the binomial: true rates of 0.12 and 0.32 would be found with probability 0.99."""
    rng = np.random.default_rng(size)
    p: dict[str, list[float]] = {name: [] for name in STRENGTHS}
    for number in range(500):
        chosen = [EVERY[i] for i in rng.permutation(len(EVERY))[:size]]
        controls = matched_rankings(MODEL, [units_of(chosen)], 19, seed=number).rankings
        sets = [chosen, *map(list, controls)]
        for name, strengths in STRENGTHS.items():
            strength = strengths(rng)
            drops = [sum(strength[unit] for unit in units) for units in sets]
            p[name].append(float(influence(-drops[0], -np.array(drops[1:])[:, None])[0][0]))
    for name, values in p.items():
        for bound in (0.05, 0.2):
            assert (np.array(values) <= bound + 1e-9).sum() <= stats.binom.ppf(0.9999, 500, bound), (name, bound)
    for bound in (0.05, 0.2):  # and it is not only conservative: strengths that differ by the unit alone
        assert (np.array(p["unit"]) <= bound + 1e-9).sum() >= stats.binom.ppf(0.0001, 500, bound)
    assert Counter(np.array(p["unit"]).round(2)).keys() == set(np.arange(1, 21) / 20)
