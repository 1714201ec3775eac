"""Null sets: random units of the same layers, exchanged for all sets at once. Folded norms like the engine's."""

from __future__ import annotations

import functools
import itertools
import math
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence

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
from spurious_memorization.controls import null_sets as null_sets_module
from spurious_memorization.controls.norms import folded_norms, log_norm, norms_of_units, relative_norms, stage_of
from spurious_memorization.controls.null_sets import NullSets, SetsOfManySizes
from spurious_memorization.engine.prefix.batch_norms import folded_weight
from spurious_memorization.engine.prefix.export import export_program
from spurious_memorization.statistics.influence import influence

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


def units_of(chosen: Sequence[tuple[str, int]]) -> sm.Units:
    return sm.parse_units(MODEL, [f"{name}:{i}" for name, i in chosen])


def many(drawn: NullSets, n: int) -> list[list[sm.Units]]:
    return [drawn.draw(k) for k in range(n)]


@st.composite
def several_sets(draw: st.DrawFn) -> list[list[tuple[str, int]]]:
    """Two rankings of units, as from two halves of the samples, cut at several sizes."""
    rankings = [draw(st.lists(st.sampled_from(EVERY), unique=True, min_size=3, max_size=12)) for _ in range(2)]
    if draw(st.booleans()):
        rankings[1] = rankings[0][:2] + [unit for unit in rankings[1] if unit not in rankings[0][:2]]
    sizes = draw(st.sets(st.integers(1, 3), min_size=1))
    return [ranking[: size * len(ranking) // 3] for ranking in rankings for size in sorted(sizes)]


@QUICK
@given(sets=several_sets(), reach=st.sampled_from(["layer", "stage", "network"]), seed=SEEDS)
def test_all_sets_undergo_the_same_exchange(sets, reach, seed):
    """Each selected unit becomes another unit of its region, the same one in all sets. So every count, overlap and
    nesting stays."""
    region = {"layer": lambda name: name, "stage": lambda name: name.split(".")[0], "network": lambda _: ""}[reach]
    drawn = NullSets(MODEL, [units_of(chosen) for chosen in sets], reach=reach, seed=seed)
    for new in many(drawn, min(5, 5 if drawn.n is None else drawn.n)):
        became: dict[tuple[str, int], tuple[str, int]] = {}
        for old, units in zip(sets, new, strict=True):
            assert len(units) == len(old) == len(set(units))
            for before, after in zip(old, units, strict=True):
                assert became.setdefault(before, after) == after
                assert region(before[0]) == region(after[0])
                assert after in EVERY
        assert len(set(became.values())) == len(became)


class Small(nn.Module):
    """Four layers of few units, two of them in one stage."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1))
        self.b = nn.Conv2d(5, 3, 1)
        self.tail = nn.Conv2d(3, 2, 1)
        self.fc = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.tail(self.b(self.layer1(x))).mean((2, 3)))


SMALL = Small()
LAYERS = {"layer1.0.weight": 4, "layer1.1.weight": 5, "b.weight": 3, "tail.weight": 2}
ARRANGEMENTS = {
    "one unit": [["layer1.1:2"]],
    "one set": [["layer1.1:2", "layer1.1:0"]],
    "half of a layer": [["layer1.0:3", "layer1.0:1"]],
    "nested sizes": [
        ["layer1.1:4"],
        ["layer1.1:4", "layer1.1:0"],
        ["layer1.1:4", "layer1.1:0", "layer1.1:2", "layer1.1:3"],
    ],
    "overlapping halves": [["layer1.1:0", "layer1.1:1"], ["layer1.1:1", "layer1.1:2"]],
    "equal halves": [["layer1.1:0", "layer1.1:1"], ["layer1.1:1", "layer1.1:0"]],
    "disjoint halves": [["layer1.1:0", "layer1.1:1"], ["layer1.1:2", "layer1.1:3"]],
    "several layers": [["layer1.0:0", "b:2"], ["layer1.0:0", "layer1.0:2", "b:1"]],
    "a whole layer": [["b:0", "b:1", "b:2"]],
    "a whole layer and a unit": [["b:0", "b:1", "b:2", "layer1.0:1"]],
    "nested halves": [["layer1.0:0"], ["layer1.0:0", "layer1.0:1"], ["layer1.0:1"], ["layer1.0:1", "layer1.0:2"]],
}


def as_sets(sets: Sequence[sm.Units]) -> tuple[frozenset[tuple[str, int]], ...]:
    return tuple(map(frozenset, sets))


def every_exchange(sets: Sequence[sm.Units], reach: str) -> set[tuple[frozenset[tuple[str, int]], ...]]:
    """What the sets become by any permutation of the units of each region that holds some of them."""
    region = {"layer": lambda name: name, "stage": lambda name: name.split(".")[0], "network": lambda _: ""}[reach]
    held: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for name, n in LAYERS.items():
        held[region(name)] += [(name, i) for i in range(n)]
    used = {region(name) for units in sets for name, _ in units}
    found = {as_sets(sets)}
    for one in used:
        found = {
            tuple(frozenset(dict(zip(held[one], new, strict=True)).get(unit, unit) for unit in units) for units in some)
            for some in found
            for new in itertools.permutations(held[one])
        }
    return found


@pytest.mark.parametrize("case", ARRANGEMENTS)
def test_few_null_sets_are_each_used_once(case):
    sets = [sm.parse_units(SMALL, units) for units in ARRANGEMENTS[case]]
    drawn = NullSets(SMALL, sets, seed=3)
    assert drawn.n is not None
    found = [as_sets(new) for new in many(drawn, drawn.n)]
    assert len(set(found)) == len(found)
    assert {*found, as_sets(sets)} == every_exchange(sets, "layer")
    assert as_sets(sets) not in found
    again, other = (NullSets(SMALL, sets, seed=seed) for seed in (3, 4))
    assert [as_sets(new) for new in many(again, drawn.n)] == found
    if drawn.n > 8:  # in random order
        assert [as_sets(new) for new in many(other, drawn.n)] != found


def test_few_null_sets_of_a_stage():
    sets = [sm.parse_units(SMALL, ["layer1.0:1"])]
    drawn = NullSets(SMALL, sets, reach="stage")
    assert {as_sets(new) for new in many(drawn, 8)} == every_exchange(sets, "stage") - {as_sets(sets)}
    assert (drawn.n, NullSets(SMALL, sets, reach="network").n, NullSets(SMALL, sets).n) == (8, 13, 3)


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("layer2.2:0", 29),
        ("layer2.2:0,layer2.2:1", 434),
        ("layer2.2:0,layer2.2:1,layer2.2:2", None),  # 4060
        ("layer2.2:0,layer2.2:1,stem:0", None),  # 435 * 6
        ("stem:0,layer1.0:0,layer1.3:0", 6 * 16 * 9 - 1),
        ("stem:0,stem:1,stem:2,stem:3,stem:4,stem:5", 0),
    ],
)
def test_the_number_of_different_null_sets(text, n):
    assert NullSets(MODEL, [sm.parse_units(MODEL, text)]).n == n


def test_at_most_999_are_used_once():
    layers = nn.Sequential(nn.Conv2d(3, 1000, 1), nn.Conv2d(1000, 1001, 1), nn.Flatten(), nn.Linear(1001, 2))
    assert NullSets(layers, [sm.parse_units(layers, "0:7")]).n == 999
    assert NullSets(layers, [sm.parse_units(layers, "1:7")]).n is None


def test_every_unit_is_as_likely_and_so_is_every_pair():
    """Two nested sets of 2 and 4 units of 16, with the selected ones; the bound of chi-square is one in a million."""
    chosen = [("layer1.0.weight", i) for i in (3, 0, 9, 4)]
    drawn = NullSets(MODEL, [units_of(chosen[:2]), units_of(chosen)], seed=1)
    assert drawn.n is None
    small, large, pairs = Counter[int](), Counter[int](), Counter[frozenset[int]]()
    for few, several in many(drawn, 4000):
        small.update(few.index.tolist())
        large.update(several.index.tolist())
        pairs[frozenset(few.index.tolist())] += 1
    for counts, n in ((small, 16), (large, 16), (pairs, 120)):
        assert len(counts) == n
        assert stats.chisquare(list(counts.values())).pvalue > 1e-6


@QUICK
@given(seed=SEEDS, number=st.integers(0, 500), reach=st.sampled_from(["layer", "stage", "network"]))
def test_a_null_set_depends_on_its_number_and_the_seed_alone(seed, number, reach):
    sets = [sm.parse_units(MODEL, "layer1.0:5,stem:0,layer2.2:7,layer2.2:8")]
    one, other = (NullSets(MODEL, sets, reach=reach, seed=seed) for _ in range(2))
    many(other, 3)
    assert one.draw(number)[0].digest() == other.draw(number)[0].digest()
    assert one.draw(number)[0].digest() != one.draw(number + 1)[0].digest()
    assert one.draw(number)[0].digest() != NullSets(MODEL, sets, reach=reach, seed=seed + 1).draw(number)[0].digest()


@pytest.mark.parametrize(
    ("reach", "tensors"),
    [
        ("layer", {"layer1.0.weight"}),
        ("stage", {"layer1.0.weight", "layer1.3.weight"}),
        ("network", {f"{name}.weight" for name in SIZES}),
    ],
)
def test_how_far_the_units_are_drawn_from(reach, tensors):
    sets = [sm.parse_units(MODEL, "layer1.0:5,layer1.0:2,layer1.0:7,layer1.0:8,layer1.0:0")]
    drawn = NullSets(MODEL, sets, reach=reach)
    counts = Counter(unit for new in many(drawn, 1500) for unit in new[0])
    assert {name for name, _ in counts} == tensors == set(drawn.tensors)
    assert len(counts) == sum(SIZES[name.removesuffix(".weight")] for name in tensors)
    assert stats.chisquare(list(counts.values())).pvalue > 1e-6


# exactness


def false_answers(answers: Sequence[float], level: float) -> float:
    return float((np.array(answers) <= level + 1e-9).mean())


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, levels=st.sampled_from([2, 4, 1000]), size=st.integers(1, 3))
def test_the_rank_of_any_set_is_exact(seed, levels, size):
    """Effects of sets of 5 units are arbitrary, and any set may be the selected one: p <= a in a share of a at most."""
    rng = np.random.default_rng(seed)
    every = list(itertools.combinations(range(5), size))
    effect = {frozenset(units): rng.integers(0, levels) / levels for units in every}
    answers = []
    for selected in every:
        drawn = NullSets(SMALL, [sm.parse_units(SMALL, [f"layer1.1:{i}" for i in selected])])
        rows = [selected, *(new[0].index.tolist() for new in many(drawn, len(every) - 1))]
        changes = -np.array([[effect[frozenset(units)]] for units in rows])
        answers.append(influence(changes).p[0])
    for level in np.unique(answers):
        assert false_answers(answers, level) <= level + 1e-9
    if len(set(effect.values())) == len(every):
        assert sorted(answers) == pytest.approx([k / len(every) for k in range(1, len(every) + 1)])


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, halves=st.booleans())
def test_the_decisive_p_of_nested_sets_and_halves_is_exact(seed, halves):
    """Two sizes, or two halves that share a unit: drops and norms of every arrangement are arbitrary, and any of them
    may be the selected one."""
    first = (
        [["layer1.1:0"], ["layer1.1:0", "layer1.1:1"]]
        if not halves
        else [["layer1.1:0", "layer1.1:1"], ["layer1.1:1", "layer1.1:2"]]
    )
    every = sorted(
        every_exchange([sm.parse_units(SMALL, units) for units in first], "layer"),
        key=lambda t: str([sorted(s) for s in t]),
    )
    rng = np.random.default_rng(seed)
    drops = dict(zip(every, rng.normal(size=(len(every), 2)).round(1), strict=True))
    norms = dict(zip(every, rng.normal(size=(len(every), 2)), strict=True))
    answers, plain = [], []
    for selected in every:
        # the order of units within a set says nothing: the shared one is known by the sets
        drawn = NullSets(SMALL, [units_in(SMALL, units) for units in selected])
        assert drawn.n == len(every) - 1
        rows = [selected, *(as_sets(new) for new in many(drawn, drawn.n))]
        found = influence(-np.array([drops[row] for row in rows]), np.array([norms[row] for row in rows]))
        answers.append(found.p_decisive.min())
        plain.append(found.p_adjusted.min())
    for level in np.unique([*answers, *plain]):
        assert false_answers(answers, level) <= level + 1e-9
        assert false_answers(plain, level) <= level + 1e-9


def units_in(model: nn.Module, units: frozenset[tuple[str, int]]) -> sm.Units:
    return sm.parse_units(model, [f"{name.removesuffix('.weight')}:{i}" for name, i in sorted(units)])


def test_drawn_null_sets_are_exact(monkeypatch):
    """The same where null sets are drawn, 19 of them: with any of 30 arrangements selected and 20 seeds, p = 0.05 in
    at most 0.05. The bound is the 0.9999 quantile of Binomial(600, 0.05): a rate of 0.12 would be found with
    probability 0.99."""
    monkeypatch.setattr(null_sets_module, "MAX_ENUMERATED", 0)
    rng = np.random.default_rng(0)
    every = [(frozenset({a}), frozenset({a, b})) for a, b in itertools.permutations(range(6), 2)]
    drops = dict(zip(every, rng.exponential(size=(len(every), 2)) ** 2, strict=True))
    norms = dict(zip(every, rng.normal(size=(len(every), 2)), strict=True))
    answers: dict[str, list[float]] = {"p": [], "p_adjusted": [], "p_decisive": []}
    for (one, two), number in itertools.product(every, range(20)):
        sets = [sm.parse_units(MODEL, [f"stem:{i}" for i in sorted(units)]) for units in (one, two)]
        drawn = NullSets(MODEL, sets, seed=number)
        assert drawn.n is None
        rows = [(one, two), *(tuple(frozenset(u.index.tolist()) for u in new) for new in many(drawn, 19))]
        found = influence(-np.array([drops[row] for row in rows]), np.array([norms[row] for row in rows]))
        for name, of in answers.items():
            of.append(getattr(found, name)[0] if name == "p" else getattr(found, name).min())
    for of in answers.values():
        assert (np.array(of) <= 0.05 + 1e-9).sum() <= stats.binom.ppf(0.9999, 600, 0.05)
    # 19 draws of 30, of which none is at least as large as the r-th largest
    expected = np.mean([(1 - r / 30) ** 19 for r in range(1, 31)])
    low, high = stats.binom.ppf([0.0001, 0.9999], 600, expected)
    assert low <= (np.array(answers["p"]) <= 0.05 + 1e-9).sum() <= high


# edits


def test_null_sets_are_the_same_edit():
    units = sm.parse_units(MODEL, "layer1.0:5,stem:0,layer2.2:7,layer2.2:9", sm.Selection(with_bias=False))
    edit = sm.edits.random_noise(units, 0.02, noise="uniform", seed=5)
    null = sm.null_sets(MODEL, edit, n=20)
    assert len(null) == 20
    assert {control.matched_to for control in null} == {edit.digest()}
    assert edit.matched_to is None
    assert {(c.kind, str(c), c.units.with_bias) for c in null} == {("random_noise", str(edit), False)}
    assert len({control.seed for control in null} | {edit.seed}) == 21
    older = MODEL.state_dict()
    assert all(c.tensors is older for c in sm.null_sets(MODEL, sm.edits.rewind(units, older), n=3))
    drawn = NullSets(MODEL, [units])
    assert [list(c.units) for c in null] == [list(drawn.draw(k)[0]) for k in range(20)]
    assert [c.units.digest() for c in sm.null_sets(MODEL, edit, n=3)] == [c.units.digest() for c in null[:3]]
    zeroed = sm.null_sets(MODEL, units, n=2)  # units alone stand for zeroing them
    assert {(c.kind, c.matched_to) for c in zeroed} == {("zero", sm.edits.zero(units).digest())}
    one, two = (sm.null_sets(MODEL, edit, n=9, seed=seed) for seed in (1, 2))
    assert {c.units.digest() for c in one} != {c.units.digest() for c in two}
    far = sm.null_sets(MODEL, edit, n=30, reach="network")
    assert {name for c in far for name, _ in c.units} == {f"{name}.weight" for name in SIZES}


def test_the_network_stays_as_it_is():
    before = {name: value.clone() for name, value in MODEL.state_dict().items()}
    MODEL.train()
    sm.null_sets(MODEL, sm.parse_units(MODEL, "stem:0"), n=4)
    sm.sets_of_many_sizes(MODEL, sm.parse_units(MODEL, "stem:0"), n=4)
    assert MODEL.training
    assert all(torch.equal(value, before[name]) for name, value in MODEL.state_dict().items())


@pytest.mark.parametrize(("text", "n"), [("stem:0", 5), ("stem:0,stem:1", 14), ("layer2.2:0", 29)])
def test_a_small_layer_has_fewer_and_says_so(text, n):
    units = sm.parse_units(MODEL, text)
    with pytest.warns(UserWarning, match=f"only {n} of 99 null sets") as caught:
        null = sm.null_sets(MODEL, units)
    assert len(null) == n
    assert len(caught) == 1
    assert len({c.units.digest() for c in null} | {units.digest()}) == n + 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(sm.null_sets(MODEL, units, n=n)) == n


def test_units_that_the_network_lacks_are_errors():
    for name, number in (("9.weight", 0), ("fc.weight", 0), ("stem.weight", 6)):
        units = sm.Units("channel", (name,), np.array([0]), np.array([number]))
        for function in (sm.null_sets, sm.sets_of_many_sizes):
            with pytest.raises(sm.UserError, match="the network has no channel"):
                function(MODEL, sm.edits.zero(units))


def test_heads():
    model = timm.create_model("vit_tiny_patch16_224", depth=2, img_size=32, num_classes=2)
    heads = sm.parse_units(model, "blocks.1.attn:2", sm.Selection(unit="head"))
    for reach, expected in (
        ("layer", {("blocks.1.attn", i) for i in (0, 1)}),
        ("stage", {("blocks.1.attn", i) for i in (0, 1)}),
        ("network", {("blocks.0.attn", i) for i in range(3)} | {("blocks.1.attn", i) for i in (0, 1)}),
    ):
        drawn = NullSets(model, [heads], reach=reach)
        new = [one for (one,) in many(drawn, len(expected))]
        assert {unit for one in new for unit in one} == expected
        assert {one.kind for one in new} == {"head"}


# single weights

with torch.random.fork_rng():
    torch.manual_seed(0)
    LINEARS = nn.Sequential(nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.Linear(500, 300), nn.Linear(300, 2))


def weights(**index: Sequence[int]) -> sm.Units:
    names = tuple(name.replace("_", ".").removeprefix("p") for name in index)
    place = np.concatenate([np.full(len(i), p) for p, i in enumerate(index.values())])
    return sm.Units("weight", names, place, np.concatenate([np.asarray(i, np.int64) for i in index.values()]))


@pytest.mark.slow
def test_a_large_set_of_weights():
    index = torch.randperm(150_000, generator=torch.Generator().manual_seed(0))[:4000].numpy()
    units = weights(p2_weight=index, p0_weight=[17])
    drawn = NullSets(LINEARS, [units])
    new = [one for (one,) in many(drawn, 5)]
    assert len({one.digest() for one in new}) == 5
    for one in new:
        by_name = one.by_name()
        assert {name: len(values) for name, values in by_name.items()} == {"2.weight": 4000, "0.weight": 1}
        assert len(np.unique(by_name["2.weight"])) == 4000
        assert by_name["2.weight"].max() < 150_000
        assert abs(by_name["2.weight"].mean() - 75_000) < 5000
        # selected weights are as likely as others: 4000 * 4000 / 150000 = 107 on average
        assert 50 < np.isin(by_name["2.weight"], index).sum() < 170


@pytest.mark.slow
def test_all_that_the_papers_threshold_selects():
    """Every parameter takes part, and of some tensors all weights."""
    scores = sm.Scores(
        {name: p.detach().abs() for name, p in LINEARS.named_parameters() if p.ndim > 1}, "weight", False
    )
    units = sm.by_threshold(LINEARS, scores, 3000)
    chosen = units.by_name()
    assert {"1.weight", "3.weight"} <= chosen.keys()
    assert len(chosen["1.weight"]) == 12  # factors of 1
    for (one,) in many(NullSets(LINEARS, [units]), 3):
        assert {name: len(index) for name, index in one.by_name().items()} == {
            name: len(index) for name, index in chosen.items()
        }
        assert all(len(np.unique(index)) == len(index) for index in one.by_name().values())
        assert one.by_name()["2.weight"].tolist() != chosen["2.weight"].tolist()


def test_few_weights_take_part_once():
    drawn = NullSets(LINEARS, [weights(p0_bias=[4])])
    assert drawn.n == 11
    assert sorted(one.index.item() for (one,) in many(drawn, 11)) == [i for i in range(12) if i != 4]
    assert NullSets(LINEARS, [weights(p0_weight=[4])]).n == 323
    assert NullSets(LINEARS, [weights(p0_weight=[4]), weights(p0_weight=[5])]).n is None  # 324 * 323


# sets of many sizes


@QUICK
@given(sets=several_sets(), seed=SEEDS, number=st.integers(0, 300))
def test_sets_of_many_sizes_hold_other_units_of_the_same_layers(sets, seed, number):
    drawn = SetsOfManySizes(MODEL, [units_of(chosen) for chosen in sets], seed=seed)
    selected = {unit for chosen in sets for unit in chosen}
    layers = {name for name, _ in selected}
    free = {unit for unit in EVERY if unit[0] in layers} - selected
    assert drawn.most == len(free)
    assert set(drawn.tensors) == layers
    units = list(drawn.draw(number))
    assert 1 <= len(units) <= len(free)
    assert len(set(units)) == len(units)
    assert set(units) <= free
    low, high = sorted((1 + number % len(free), 1 + seed % len(free)))
    within = drawn.draw(number, (low, high))
    assert low <= len(within) <= high
    assert set(within) <= free
    assert set(drawn.draw(number, (len(free), len(free)))) == free
    assert drawn.draw(number).digest() == drawn.draw(number).digest()


def test_sizes_are_log_uniform_and_layers_have_their_share():
    chosen = [("layer2.2.weight", 3), ("layer2.2.weight", 5), ("layer2.2.weight", 6), ("layer1.0.weight", 0)]
    drawn = SetsOfManySizes(MODEL, [units_of(chosen)], seed=0)
    sets = [list(drawn.draw(k)) for k in range(2000)]
    sizes = np.array([len(units) for units in sets])
    logs = np.log(sizes[sizes > 4])
    assert stats.kstest(logs, "uniform", args=(math.log(4.5), math.log(42.5 / 4.5))).statistic < 0.06
    assert abs((sizes == 1).mean() - math.log(1.5) / math.log(42)) < 0.03
    few = [unit for units in sets if len(units) <= 6 for unit in units]
    assert abs(np.mean([name == "layer2.2.weight" for name, _ in few]) - 0.75) < 0.04
    counts = Counter(few)
    for layer, n in (("layer2.2.weight", 27), ("layer1.0.weight", 15)):
        here = [count for (name, _), count in counts.items() if name == layer]
        assert len(here) == n
        assert stats.chisquare(here).pvalue > 1e-6


def test_sets_of_many_sizes_from_the_whole_network():
    chosen = [("layer2.2.weight", 3), ("layer2.2.weight", 5)]
    drawn = SetsOfManySizes(MODEL, [units_of(chosen)], reach="network", seed=0)
    free = set(EVERY) - set(chosen)
    assert (set(drawn.draw(0, (len(free), len(free)))), drawn.most) == (free, len(free))
    assert drawn.place == "the whole network"
    single = Counter(unit for k in range(3000) for unit in drawn.draw(k, (1, 1)))
    assert stats.chisquare([single[unit] for unit in sorted(free)]).pvalue > 1e-6  # any unit is equally likely
    of_stage = SetsOfManySizes(MODEL, [units_of(chosen)], reach="stage", seed=0)
    assert {name.split(".")[0] for name in of_stage.tensors} == {"layer2"}
    assert all(len(set(of_stage.draw(k))) == len(of_stage.draw(k)) for k in range(50))


def test_edits_on_sets_of_many_sizes():
    units = sm.parse_units(MODEL, "layer2.2:0,layer2.2:1")
    edit = sm.edits.random_noise(units, 0.02, seed=5)
    beside = sm.sets_of_many_sizes(MODEL, edit, n=60, seed=1)
    assert len(beside) == 60
    assert {other.matched_to for other in beside} == {edit.digest()}
    assert {str(other) for other in beside} == {str(edit)}
    assert len({other.seed for other in beside} | {edit.seed}) == 61
    sizes = {len(other.units) for other in beside}
    assert 2 not in sizes  # these would count as null sets
    assert {1, 3} <= sizes
    assert max(sizes) > 20
    shorter = sm.sets_of_many_sizes(MODEL, edit, n=7, seed=1)
    assert [one.units.digest() for one in shorter] == [one.units.digest() for one in beside[:7]]
    zeroed = sm.sets_of_many_sizes(MODEL, units, n=1)
    assert (zeroed[0].kind, zeroed[0].matched_to) == ("zero", sm.edits.zero(units).digest())


@pytest.mark.parametrize("units", [["b:0", "b:1", "b:2"], ["tail:0"]])
def test_a_layer_without_other_units_has_no_sets_of_many_sizes(units):
    with pytest.raises(sm.UserError, match=r"sets of many sizes need units that are not selected: \d of \w+.weight"):
        sm.sets_of_many_sizes(SMALL, sm.parse_units(SMALL, units))


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


@pytest.mark.slow
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


@pytest.mark.slow
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
    assert stage_of("visual.transformer.resblocks.5.mlp.c_fc.weight") == "visual.transformer.resblocks.5"
    assert stage_of("visual.layer3.0.conv2.weight") == "visual.layer3"
    assert stage_of("bert.encoder.layer.0.attention.self") == "bert.encoder.layer.0"


def test_norms_relative_to_the_layer():
    """By hand: the root mean square over a set of each unit's norm over the root mean square of its layer."""
    some = [("layer2.0.weight", 3), ("stem.weight", 1), ("stem.weight", 4)]
    relative = relative_norms(MODEL, units_of(some), ["layer2.0.weight", "stem.weight", "layer1.3.weight"])
    assert {name: len(values) for name, values in relative.items()} == {
        "layer2.0.weight": 12, "stem.weight": 6, "layer1.3.weight": 9
    }  # fmt: skip

    def own(unit: tuple[str, int]) -> float:
        layer = [math.exp(log_norms(other)) for other in EVERY if other[0] == unit[0]]
        return math.exp(log_norms(unit)) / math.sqrt(sum(n**2 for n in layer) / len(layer))

    for name, values in relative.items():
        assert values.tolist() == pytest.approx([own((name, i)) for i in range(len(values))])
    root = math.sqrt(sum(own(unit) ** 2 for unit in some) / 3)
    assert log_norm(relative, units_of(some)) == pytest.approx(math.log(root + 1e-3))
    nothing = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(4, 2))
    nn.init.zeros_(nothing[0].weight)
    unit = sm.parse_units(nothing, "0:1")
    assert log_norm(relative_norms(nothing, unit, ["0.weight"]), unit) == pytest.approx(math.log(1e-3))
