"""Units: which there are, their text, the first of them by score."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor, nn

import spurious_memorization as sm
from spurious_memorization.networks.build import NetworkSettings, build
from spurious_memorization.networks.units import sites, touched

QUICK = settings(max_examples=30, deadline=None)
LAYOUTS = {"channel": (4, 6), "weight": (108, 24)}


class Plain(nn.Module):
    """Two layers that count, a norm, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.linear = nn.Linear(4, 6)
        self.out = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.linear(self.norm(self.conv(x)).mean((2, 3))).relu())


class Attention(nn.Module):
    """Separate projections, as in BERT."""

    def __init__(self, names: tuple[str, str, str], bias: bool = True) -> None:
        super().__init__()
        self.num_attention_heads = 3
        for name in names:
            setattr(self, name, nn.Linear(12, 12, bias=bias))


@pytest.fixture(scope="module")
def plain() -> nn.Module:
    return Plain()


@pytest.fixture(scope="module")
def deit() -> nn.Module:
    return build(NetworkSettings(model="deit_tiny", n_classes=3, image_size=32))


def test_channels_are_filters_and_rows_with_their_bias(plain):
    found = sites(plain, sm.Selection())
    assert list(found) == ["conv.weight", "linear.weight"]
    assert [site.n for site in found.values()] == [4, 6]
    assert set(found["conv.weight"].held) == {"conv.weight"}
    assert set(found["linear.weight"].held) == {"linear.weight", "linear.bias"}
    assert set(sites(plain, sm.Selection(with_bias=False))["linear.weight"].held) == {"linear.weight"}


def test_weights_have_the_shape_of_their_tensor(plain):
    found = sites(plain, sm.Selection(unit="weight"))
    assert {name: site.shape for name, site in found.items()} == {"conv.weight": (4, 3, 3, 3), "linear.weight": (6, 4)}


@pytest.mark.parametrize(
    ("select", "names"),
    [
        ({"layers": ("conv",)}, {"conv.weight"}),
        ({"layers": ("linear",)}, {"linear.weight"}),
        ({"tensors": ("lin*",)}, {"linear.weight"}),
        ({"tensors": ("conv", "linear.weight")}, {"conv.weight", "linear.weight"}),
        ({"exclude": ("*conv*",)}, {"linear.weight"}),
    ],
)
def test_selection_of_tensors(plain, select, names):
    assert set(sites(plain, sm.Selection(**select))) == names
    assert set(sm.criteria.weight_norm(plain, select=sm.Selection(**select))) == names


def test_nothing_selected_is_refused_and_says_what_there_is(plain):
    with pytest.raises(sm.UserError, match=r"choose among conv\.weight, linear\.weight"):
        sites(plain, sm.Selection(tensors=("layer9*",)))
    with pytest.raises(sm.UserError, match="no attention whose heads are known"):
        sites(plain, sm.Selection(unit="head"))


def test_the_head_is_what_timm_states():
    resnet = build(NetworkSettings(model="resnet18", n_classes=3))
    names = list(sites(resnet, sm.Selection()))
    assert len(names) == 20
    assert "fc.weight" not in names
    assert "layer2.0.downsample.0.weight" in names


def test_a_tied_tensor_counts_once():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3, bias=False), nn.Linear(3, 2))
    model[1].weight = model[0].weight
    assert list(sites(model, sm.Selection())) == ["0.weight"]
    assert sm.criteria.weight_norm(model)["0.weight"].shape == (3,)


def test_heads_of_timm(deit):
    found = sites(deit, sm.Selection(unit="head"))
    assert list(found) == [f"blocks.{i}.attn" for i in range(12)]
    assert found["blocks.0.attn"].n == 3
    rows = touched(deit, sm.parse_units(deit, "blocks.4.attn:1", sm.Selection(unit="head")))
    expected = torch.cat([torch.arange(64, 128) + start for start in (0, 192, 384)])
    assert set(rows) == {"blocks.4.attn.qkv.weight", "blocks.4.attn.qkv.bias"}
    assert all(torch.equal(found.sort().values, expected) for found in rows.values())


@pytest.mark.parametrize("names", [("q_proj", "k_proj", "v_proj"), ("q", "k", "v"), ("query", "key", "value")])
@pytest.mark.parametrize("with_bias", [True, False])
def test_heads_of_separate_projections(names, with_bias):
    model = nn.ModuleDict({"self": Attention(names), "head": nn.Linear(12, 2)})
    select = sm.Selection(unit="head", with_bias=with_bias)
    rows = touched(model, sm.parse_units(model, "self:2", select))
    parts = ("weight", "bias") if with_bias else ("weight",)
    assert {name: found.tolist() for name, found in rows.items()} == {
        f"self.{name}.{part}": [8, 9, 10, 11] for name in names for part in parts
    }


def test_heads_of_separate_projections_without_bias():
    model = nn.ModuleDict({"self": Attention(("q", "k", "v"), bias=False), "head": nn.Linear(12, 2)})
    assert set(touched(model, sm.parse_units(model, "self:0", sm.Selection(unit="head")))) == {
        "self.q.weight",
        "self.k.weight",
        "self.v.weight",
    }


def test_heads_of_pytorch_attention():
    model = nn.ModuleDict({"attention": nn.MultiheadAttention(6, 2), "head": nn.Linear(6, 2)})
    rows = touched(model, sm.parse_units(model, "attention:1", sm.Selection(unit="head")))
    assert {name: found.tolist() for name, found in rows.items()} == {
        f"attention.in_proj_{part}": [3, 4, 5, 9, 10, 11, 15, 16, 17] for part in ("weight", "bias")
    }


class Traced(nn.Module):
    """Attention with layers of unusual names, three heads of four numbers; `layout` cuts one layer into q, k and v."""

    def __init__(self, layout: str, n_shared: int = 1) -> None:
        super().__init__()
        self.layout, self.n_shared = layout, n_shared
        self.all = nn.Linear(5, 36 if layout != "separate" else 12)
        if layout == "separate":
            self.other = nn.ModuleList(nn.Linear(5, 12 // n_shared) for _ in range(2))
        self.out = nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x[:, None] * torch.arange(1.0, 7, device=x.device)[:, None]
        rows = self.all(tokens)
        if self.layout == "parts first":
            q, k, v = rows.unflatten(-1, (3, 3, 4)).permute(2, 0, 3, 1, 4)
        elif self.layout == "heads first":
            q, k, v = rows.unflatten(-1, (3, 12)).transpose(1, 2).chunk(3, -1)
        elif self.layout == "width first":
            q, k, v = rows.unflatten(-1, (3, 4, 3)).permute(2, 0, 4, 1, 3)
        else:
            others = [layer(tokens) for layer in self.other]
            q, k, v = (y.unflatten(-1, (-1, 4)).transpose(1, 2) for y in (rows, *others))
            k, v = (y.repeat_interleave(self.n_shared, 1) for y in (k, v))
        heads = ((q * 0.5) @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.out(heads.transpose(1, 2).flatten(2).mean(1))


@pytest.mark.parametrize(
    ("layout", "rows"),
    [
        ("parts first", [*range(4, 8), *range(16, 20), *range(28, 32)]),
        ("heads first", list(range(12, 24))),
        ("separate", [4, 5, 6, 7]),
    ],
)
def test_heads_are_traced_whatever_the_names_and_the_order_of_rows(layout, rows, capsys):
    found = sites(nn.Sequential(Traced(layout)), sm.Selection(unit="head"))
    assert "attention modules with heads: 1 by tracing" in capsys.readouterr().err
    assert list(found) == ["0"]
    layers = ["all", "other.0", "other.1"] if layout == "separate" else ["all"]
    assert {name: of[1].tolist() for name, of in found["0"].held.items()} == {
        f"0.{layer}.{part}": rows for layer in layers for part in ("weight", "bias")
    }


@pytest.mark.parametrize("model", [Traced("width first"), Traced("separate", n_shared=3)])
def test_heads_that_share_keys_or_are_no_blocks_of_rows_are_refused(model):
    with pytest.raises(sm.UserError, match="no attention whose heads are known"):
        sites(nn.Sequential(model), sm.Selection(unit="head"))


def test_heads_of_pytorch_attention_with_other_widths_of_keys():
    model = nn.ModuleDict({"a": nn.MultiheadAttention(6, 2, kdim=4, vdim=5), "head": nn.Linear(6, 2)})
    found = sites(model, sm.Selection(unit="head"))["a"].held
    assert {name: of[1].tolist() for name, of in found.items()} == {
        **{f"a.{part}_proj_weight": [3, 4, 5] for part in "qkv"},
        "a.in_proj_bias": [3, 4, 5, 9, 10, 11, 15, 16, 17],
    }


class OwnAttention(nn.Module):
    """PyTorch's attention, another of it that the logits do not depend on, and a head."""

    def __init__(self, **widths: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True, **widths)
        self.unused = nn.MultiheadAttention(6, 2)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x[:, None] * torch.arange(1.0, 4, device=x.device)[:, None]
        keys, values = tokens[..., : self.attention.kdim], tokens[..., : self.attention.vdim]
        return self.head(self.attention(tokens, keys, values)[0].mean(1))


def test_channels_of_pytorch_attention():
    model = OwnAttention()
    found = sites(model, sm.Selection())
    assert {name: site.n for name, site in found.items()} == {
        "attention.in_proj_weight": 18,
        "attention.out_proj.weight": 6,
    }
    rows = touched(model, sm.parse_units(model, "attention.in_proj_weight:7"))
    assert {name: of.tolist() for name, of in rows.items()} == {
        "attention.in_proj_weight": [7],
        "attention.in_proj_bias": [7],
    }
    assert sites(model, sm.Selection(unit="weight"))["attention.in_proj_weight"].shape == (18, 6)
    assert list(sites(model, sm.Selection(exclude=("*in_proj*",)))) == ["attention.out_proj.weight"]
    with pytest.raises(sm.UserError, match="no convolution or linear layer"):
        sites(model, sm.Selection(layers=("conv",)))


def test_channels_of_pytorch_attention_with_other_widths_of_keys():
    model = OwnAttention(kdim=4, vdim=5)
    units = sm.parse_units(model, "attention.k_proj_weight:1,attention.q_proj_weight:2,attention.v_proj_weight:0")
    assert {name: of.tolist() for name, of in touched(model, units).items()} == {
        "attention.k_proj_weight": [1],
        "attention.in_proj_bias": [7, 2, 12],
        "attention.q_proj_weight": [2],
        "attention.v_proj_weight": [0],
    }


def flat_scores(values: np.ndarray, first: int) -> sm.Scores:
    return sm.Scores({"a.weight": torch.from_numpy(values[:first]), "b.weight": torch.from_numpy(values[first:])})


SCORES = arrays(np.float32, st.integers(2, 30), elements=st.integers(-3, 3).map(float) | st.floats(-5, 5, width=32))


@QUICK
@given(values=SCORES, cut=st.floats(0, 1), share=st.floats(0, 1), largest=st.booleans())
def test_top_is_sorted_exact_and_nested(values, cut, share, largest):
    scores = flat_scores(values, int(cut * len(values)))
    n = max(1, int(share * len(values)))
    units = sm.top(scores, n, largest=largest)
    starts = {"a.weight": 0, "b.weight": len(scores["a.weight"])}
    positions = [starts[name] + index for name, index in units]
    # Python's sort is stable: ties stay in the order of positions.
    assert positions == sorted(range(len(values)), key=lambda i: -values[i] if largest else values[i])[:n]
    if n > 1:
        assert list(sm.top(scores, n - 1, largest=largest)) == list(units)[: n - 1] == list(units.first(n - 1))


def test_top_takes_a_plain_mapping_for_channels():
    units = sm.top({"a.weight": torch.tensor([1.0, 3.0]), "b.weight": torch.tensor([2.0])}, 2)
    assert (units.kind, list(units)) == ("channel", [("a.weight", 1), ("b.weight", 0)])


@pytest.mark.parametrize("n", [0, -1, 4])
def test_top_refuses_a_size_that_there_is_not(n):
    with pytest.raises(sm.UserError, match="choose from 1 to 3"):
        sm.top({"a.weight": torch.arange(3.0)}, n)


def test_top_refuses_scores_that_are_no_numbers():
    with pytest.raises(sm.UserError, match="not a number"):
        sm.top({"a.weight": torch.tensor([1.0, torch.nan])}, 1)


def test_first_refuses_more_than_there_are():
    with pytest.raises(sm.UserError, match="larger than the 2 channels"):
        sm.top({"a.weight": torch.arange(3.0)}, 2).first(3)


@pytest.mark.parametrize(("size", "n"), [(3, 3), (0.5, 5), (0.05, 1), (1.0, 10), (0.11, 2)])
def test_count_of_rounds_a_fraction_up(size, n):
    assert sm.count_of(sm.Scores({"a": torch.zeros(10)}), size) == n


@QUICK
@given(st.data())
def test_units_survive_their_text(data):
    model = Plain()
    unit = data.draw(st.sampled_from(sorted(LAYOUTS)))
    sizes = LAYOUTS[unit]
    every = [("conv.weight", i) for i in range(sizes[0])] + [("linear.weight", i) for i in range(sizes[1])]
    chosen = data.draw(st.lists(st.sampled_from(every), unique=True, min_size=1, max_size=8))
    select = sm.Selection(unit=unit, with_bias=data.draw(st.booleans()))
    text = ",".join(f"{name}:{index}" for name, index in chosen)
    units = sm.parse_units(model, text, select)
    again = sm.parse_units(model, str(units), select)
    assert list(units) == list(again) == chosen
    assert units.digest() == again.digest()
    assert (again.kind, again.with_bias) == (unit, select.with_bias)


def test_threshold_units_survive_their_text(plain):
    scores = sm.criteria.weight_norm(plain, select=sm.Selection(unit="weight"))
    units = sm.by_threshold(plain, scores, 12)
    assert any(name.startswith("norm") for name in units.by_name())
    assert list(sm.parse_units(plain, str(units), sm.Selection(unit="weight"))) == list(units)


def test_parse_units_takes_a_list_and_blanks(plain):
    units = sm.parse_units(plain, ["conv:1, linear:5", " linear.weight:0"])
    assert list(units) == [("conv.weight", 1), ("linear.weight", 5), ("linear.weight", 0)]
    assert str(units) == "conv:1,linear:5,linear:0"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layer9.conv:1", "no tensor 'layer9.conv'"),
        ("out:0", "no tensor 'out'"),
        ("conv:4", "conv has 4 channels: 4 is too large"),
        ("conv", "write TENSOR:NUMBER"),
        ("conv:-1", "write TENSOR:NUMBER"),
        ("conv:1,", "write TENSOR:NUMBER"),
        ("", "write TENSOR:NUMBER"),
        ("conv:1,linear:1,conv.weight:1", "named twice"),
    ],
)
def test_parse_units_refuses(plain, text, message):
    with pytest.raises(sm.UserError, match=message):
        sm.parse_units(plain, text)


def test_digest_tells_sets_apart_whatever_their_order(plain):
    def digest(text: str, **select: object) -> str:
        return sm.parse_units(plain, text, sm.Selection(**select)).digest()

    assert digest("conv:1,conv:2") == digest("conv:2,conv:1")
    different = [digest("conv:1"), digest("conv:2"), digest("linear:1"), digest("conv:1,conv:2")]
    different += [digest("conv:1", with_bias=False), digest("conv:1", unit="weight")]
    assert len(set(different)) == len(different)


@pytest.mark.parametrize(("probability", "low", "high"), [(0.0, 500, 500), (1.0, 0, 0), (0.8, 60, 140)])
def test_spared_leaves_some_out(probability, low, high):
    units = sm.top({"a.weight": torch.arange(500.0)}, 500)
    kept = sm.random_dropout(units, probability, seed=1)
    assert low <= len(kept) <= high
    assert set(kept) <= set(units)
    assert list(kept) == list(sm.random_dropout(units, probability, seed=1))
    if 0 < probability < 1:
        assert list(kept) != list(sm.random_dropout(units, probability, seed=2))


@pytest.mark.parametrize(("kind", "index"), [("channel", 9), ("weight", 9999)])
def test_units_of_another_network_are_refused(plain, kind, index):
    for name in ("conv.weight", "elsewhere.weight"):
        units = sm.Units(kind, (name,), np.array([0]), np.array([index]))
        with pytest.raises(sm.UserError, match=f"no {kind} "):
            touched(plain, units)
