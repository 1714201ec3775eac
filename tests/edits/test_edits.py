"""Edits take effect where the units are, and nowhere else."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

import spurious_memorization as sm
from spurious_memorization.edits.edit import KINDS, parse_edit
from spurious_memorization.networks.build import NetworkSettings, build
from spurious_memorization.networks.units import touched

UNITS = {
    ("resnet18", "channel"): "layer1.0.conv1:3,layer4.1.conv2:500,layer1.0.conv1:0,layer2.0.downsample.0:7",
    ("resnet18", "weight"): "conv1:9407,layer3.0.conv2:0,conv1:5",
    ("deit_tiny", "channel"): "blocks.3.mlp.fc1:700,patch_embed.proj:2,blocks.0.attn.qkv:575,blocks.3.mlp.fc1:1",
    ("deit_tiny", "head"): "blocks.5.attn:2,blocks.0.attn:0,blocks.5.attn:1",
    ("deit_tiny", "weight"): "blocks.11.mlp.fc2:147455,blocks.0.attn.qkv:0,blocks.0.attn.qkv:8",
}
HEAD_1 = [start + i for start in (64, 256, 448) for i in range(64)]
CASES = [
    (network, unit, kind)
    for network, unit in UNITS
    for kind in (*KINDS, "users_edits:double")
    if not (unit == "weight" and kind == "mean")
]


@pytest.fixture(scope="module", autouse=True)
def users_edits(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("modules")
    (folder / "users_edits.py").write_text(
        "import torch\n"
        "def double(numbers, generator, factor=2):\n    return (numbers * factor).double()\n"
        "def draw(numbers, generator):\n    return torch.rand(numbers.shape, generator=generator)\n"
        "def in_place(numbers, generator):\n    return numbers.zero_()\n"
        "def fails(numbers, generator):\n    raise RuntimeError('not today')\n"
        "def small(numbers, generator):\n    return numbers[:0]\n"
        "def nothing(numbers, generator):\n    pass\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield


def network(name: str, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model = build(NetworkSettings(model=name, n_classes=3, image_size=32))
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:
            nn.init.uniform_(norm.weight, 0.5, 1.5)  # timm starts the last norm of a block at 0
            norm.momentum = 1.0
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))  # biases start at 0
        model.train()(torch.randn(16, 3, 32, 32))
    return model


@pytest.fixture(scope="module")
def networks() -> dict[str, SimpleNamespace]:
    torch.manual_seed(0)
    data = sm.from_tensors(torch.randn(6, 3, 32, 32), [0, 1, 2] * 2, [0, 1] * 3)
    found = {}
    for name in ("resnet18", "deit_tiny"):
        model = network(name, 1)
        means = sm.edits.channel_means(model, data.train)
        found[name] = SimpleNamespace(model=model, older=network(name, 2).state_dict(), means=means, data=data)
    return found


def make(there: SimpleNamespace, kind: str, units: sm.Units, seed: int = 0) -> sm.Edit:
    makers: dict[str, Callable[[], sm.Edit]] = {
        "zero": lambda: sm.edits.zero(units),
        "mean": lambda: sm.edits.mean(units, there.means),
        "random_init": lambda: sm.edits.random_init(units, 0.3, seed=seed),
        "random_noise": lambda: sm.edits.random_noise(units, 0.3, seed=seed),
        "rewind": lambda: sm.edits.rewind(units, there.older, epochs=5),
        "transplant": lambda: sm.edits.transplant(units, there.older, "runs/twin@last"),
    }
    return makers[kind]() if kind in makers else sm.Edit(kind, units, {"factor": 3}, seed=seed)


def snapshot(model: nn.Module) -> dict[str, object]:
    """All that an edit could leave behind."""
    return {
        "state": {name: value.clone() for name, value in model.state_dict().items()},
        "identity": [(name, id(value), value.requires_grad) for name, value in model.named_parameters()],
        "buffers": [(name, id(value)) for name, value in model.named_buffers()],
        "mode": [module.training for module in model.modules()],
        "hooks": [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
        "format": [value.stride() for value in model.state_dict().values()],
        "gradients": [value.grad is None for value in model.parameters()],
    }


def same(one: dict[str, object], two: dict[str, object]) -> bool:
    state, other = one.pop("state"), two.pop("state")
    assert isinstance(state, dict)
    assert isinstance(other, dict)
    return one == two and state.keys() == other.keys() and all(torch.equal(state[n], other[n]) for n in state)


def masks(model: nn.Module, units: sm.Units) -> dict[str, Tensor]:
    """Which numbers of which parameter the units hold, written out by hand."""
    parameters = dict(model.named_parameters())
    found: dict[str, Tensor] = {}

    def mark(name: str, index: object) -> None:
        mask = found.setdefault(name, torch.zeros_like(parameters[name], dtype=torch.bool))
        (mask.view(-1) if units.kind == "weight" else mask)[index] = True

    for name, number in units:
        if units.kind == "head":
            for part in ("weight", "bias") if units.with_bias else ("weight",):
                for start in (0, 192, 384):
                    mark(f"{name}.qkv.{part}", slice(start + 64 * number, start + 64 * (number + 1)))
        else:
            mark(name, number)
            bias = name.removesuffix("weight") + "bias"
            if units.kind == "channel" and units.with_bias and bias in parameters:
                mark(bias, number)
    return found


@pytest.mark.parametrize(
    ("name", "unit", "kind", "with_bias"),
    [(*case, with_bias) for case in CASES for with_bias in ([True] if case[1] == "weight" else [True, False])],
)
def test_exactly_the_numbers_of_the_units_change(networks, name, unit, kind, with_bias):
    there = networks[name]
    units = sm.parse_units(there.model, UNITS[name, unit], sm.Selection(unit=unit, with_bias=with_bias))
    before = snapshot(there.model)
    changed = sm.edits.edited_tensors(there.model, make(there, kind, units))
    assert same(before, snapshot(there.model))
    parameters = {n: p.detach() for n, p in there.model.named_parameters()}
    expected = masks(there.model, units)
    held = set()
    if kind == "mean":  # the mean is held by the bias, which a layer gets where it has none
        held = {n.removesuffix("weight") + "bias" for n in expected if n.endswith("weight")}
    assert set(changed) == set(expected) | held
    for parameter in set(expected) - held:
        old, new, mask = parameters[parameter], changed[parameter], expected[parameter]
        assert (new.shape, new.dtype, new.stride()) == (old.shape, old.dtype, old.stride())
        assert torch.equal(new[~mask], old[~mask])
        now, was, past = new[mask], old[mask], there.older[parameter][mask]
        if kind in ("zero", "mean"):
            assert not now.any()
        elif kind in ("rewind", "transplant"):
            assert torch.equal(now, past)
        elif kind == "users_edits:double":
            torch.testing.assert_close(now, 3 * was)
        else:
            drawn = now if kind == "random_init" else now - was
            assert (now != was).all()
            if len(drawn) > 100:
                assert float(drawn.std()) == pytest.approx(0.3, rel=0.25)
                assert abs(float(drawn.mean())) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize(("name", "unit", "kind"), CASES)
def test_outputs_differ_and_edited_is_the_same_as_functional(networks, name, unit, kind):
    there = networks[name]
    units = sm.parse_units(there.model, UNITS[name, unit], sm.Selection(unit=unit))
    edit = make(there, kind, units)
    before = snapshot(there.model)
    new = sm.edits.edited(there.model, edit)
    assert new.training == there.model.training
    assert same(before, snapshot(there.model))
    assert {id(p) for p in new.parameters()}.isdisjoint({id(p) for p in there.model.parameters()})
    x = there.data.train.batch().inputs
    reference = copy.deepcopy(there.model).eval()
    with torch.no_grad():
        unedited, output = reference(x), new.eval()(x)
        functional = functional_call(reference, sm.edits.edited_tensors(reference, edit), (x,))
    torch.testing.assert_close(output, functional, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(output, unedited, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", ["random_init", "random_noise", "users_edits:draw"])
def test_draws_follow_from_the_seed_alone(networks, kind):
    there = networks["resnet18"]
    units = sm.parse_units(there.model, "layer1.0.conv1:3,conv1:1")
    edits = [make(there, kind, units, seed) for seed in (7, 7, 8)]
    edits = [replace(edit, parameters={}) if ":" in kind else edit for edit in edits]
    one = sm.edits.edited_tensors(there.model, edits[0])
    state = torch.random.get_rng_state()
    two, other = (sm.edits.edited_tensors(there.model, edit) for edit in edits[1:])
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert all(not torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(one["conv1.weight"][1].flatten()[:27], one["layer1.0.conv1.weight"][3].flatten()[:27])


def test_uniform_noise_is_from_zero_to_one_times_std(networks):
    there = networks["deit_tiny"]
    units = sm.parse_units(there.model, "blocks.5.attn:2", sm.Selection(unit="head"))
    changed = sm.edits.edited_tensors(there.model, sm.edits.random_init(units, 0.5, noise="uniform"))
    drawn = changed["blocks.5.attn.qkv.weight"][128:192]
    assert 0 <= float(drawn.min()) < 0.01
    assert 0.49 < float(drawn.max()) <= 0.5


@pytest.mark.parametrize(
    ("name", "unit", "text", "layer", "channels"),
    [
        ("resnet18", "channel", "layer1.0.conv1:3", "layer1.0.conv1", [3]),
        ("deit_tiny", "channel", "blocks.3.mlp.fc1:700", "blocks.3.mlp.fc1", [700]),
        ("deit_tiny", "channel", "patch_embed.proj:2", "patch_embed.proj", [2]),
        (
            "deit_tiny",
            "head",
            "blocks.5.attn:1",
            "blocks.5.attn.qkv",
            HEAD_1,
        ),
    ],
)
def test_mean_holds_the_layer_at_its_mean_over_the_samples(networks, name, unit, text, layer, channels):
    there = networks[name]
    model = copy.deepcopy(there.model).eval()
    units = sm.parse_units(model, text, sm.Selection(unit=unit))
    x = there.data.train.batch().inputs

    def outputs(net: nn.Module) -> Tensor:
        seen: list[Tensor] = []
        hook = net.get_submodule(layer).register_forward_hook(lambda _m, _i, output: seen.append(output))
        with torch.no_grad():
            net(x)
        hook.remove()
        axis = 1 if isinstance(net.get_submodule(layer), nn.Conv2d) else -1
        return seen[0].movedim(axis, -1).flatten(0, -2)

    before, after = outputs(model), outputs(sm.edits.edited(model, sm.edits.mean(units, there.means)))
    others = [c for c in range(before.shape[1]) if c not in channels]
    torch.testing.assert_close(there.means[layer], before.mean(0), rtol=1e-4, atol=1e-5)
    for channel in channels:
        assert (after[:, channel] == after[0, channel]).all()
        torch.testing.assert_close(after[0, channel], before[:, channel].mean(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after[:, others], before[:, others], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("convolution", [nn.Conv1d, nn.Conv2d, nn.Conv3d])
@pytest.mark.parametrize("bias", [True, False])
def test_mean_in_every_convolution(convolution, bias):
    torch.manual_seed(0)
    dimensions = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}[convolution]
    model = nn.Sequential(convolution(2, 3, 2, bias=bias), nn.Flatten(), nn.Linear(3 * 2**dimensions, 2))
    data = sm.from_tensors(torch.randn(8, 2, *[3] * dimensions), [0, 1] * 4, [0] * 8)
    edit = sm.edits.mean(sm.parse_units(model, "0:1"), sm.edits.channel_means(model, data.train))
    new = sm.edits.edited(model, edit)
    assert (new[0].bias is not None, model[0].bias is not None) == (True, bias)
    x = data.train.batch().inputs
    channel = new[0](x)[:, 1]
    torch.testing.assert_close(channel, model[0](x)[:, 1].mean().expand(channel.shape))
    torch.testing.assert_close(new[0](x)[:, [0, 2]], model[0](x)[:, [0, 2]])


def test_mean_weighs_every_batch_by_its_samples(networks):
    there = networks["resnet18"]
    for name, values in sm.edits.channel_means(there.model, there.data.train, batch_size=4).items():
        torch.testing.assert_close(values, there.means[name], rtol=1e-4, atol=1e-5)


def test_mean_refuses_weights_and_layers_without_a_mean(networks):
    there = networks["resnet18"]
    weights = sm.parse_units(there.model, "conv1:3", sm.Selection(unit="weight"))
    with pytest.raises(sm.UserError, match="single weight has no mean"):
        sm.edits.mean(weights, there.means)
    with pytest.raises(sm.UserError, match="the means of conv1 are missing"):
        sm.edits.edited(there.model, sm.edits.mean(sm.parse_units(there.model, "conv1:3"), {}))
    model = nn.ModuleDict({"attention": nn.MultiheadAttention(6, 2), "head": nn.Linear(6, 2)})
    units = sm.parse_units(model, "attention:1", sm.Selection(unit="head"))
    with pytest.raises(sm.UserError, match=r"the means of attention\.in_proj_weight are missing"):
        sm.edits.edited_tensors(model, sm.edits.mean(units, {}))


def test_a_zeroed_head_gives_nothing_and_the_others_what_they_gave(networks):
    """Against attention written out by hand from timm's fused layout: [q, k, v] x heads x 64."""
    model = copy.deepcopy(networks["deit_tiny"].model).eval()
    name, head = "blocks.5.attn", 1
    attention = model.get_submodule(name)

    def by_head(net: nn.Module) -> tuple[Tensor, Tensor]:
        seen: dict[str, Tensor] = {}
        module = net.get_submodule(name)
        hooks = [
            module.register_forward_hook(lambda _m, inputs, _o: seen.update(input=inputs[0])),
            module.proj.register_forward_hook(lambda _m, inputs, _o: seen.update(projected=inputs[0])),
        ]
        with torch.no_grad():
            net(networks["deit_tiny"].data.train.batch().inputs)
        for hook in hooks:
            hook.remove()
        return seen["input"], seen["projected"].unflatten(-1, (3, 64))

    def manual(x: Tensor, keep: float) -> Tensor:
        outputs = []
        for h in range(3):
            q, k, v = (
                (x @ attention.qkv.weight[rows].T + attention.qkv.bias[rows]) * (keep if h == head else 1)
                for rows in (slice(start + 64 * h, start + 64 * (h + 1)) for start in (0, 192, 384))
            )
            outputs.append((q @ k.transpose(1, 2) / 8).softmax(-1) @ v)
        return torch.stack(outputs, 2).detach()

    x, before = by_head(model)
    torch.testing.assert_close(before, manual(x, 1.0), rtol=1e-4, atol=1e-5)
    new = sm.edits.edited(model, sm.edits.zero(sm.parse_units(model, f"{name}:{head}", sm.Selection(unit="head"))))
    same_input, after = by_head(new)
    assert torch.equal(x, same_input)
    assert not after[:, :, head].any()
    torch.testing.assert_close(after, manual(x, 0.0), rtol=1e-4, atol=1e-5)
    assert before[:, :, head].abs().max() > 0.01


def test_a_zeroed_head_of_pytorch_attention_gives_nothing():
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(6, 2, batch_first=True)
    with torch.no_grad():
        attention.in_proj_bias.normal_()
        attention.out_proj.weight.copy_(torch.eye(6))
    model = nn.ModuleDict({"attention": attention, "head": nn.Linear(6, 2)})
    x = torch.randn(4, 5, 6)
    new = sm.edits.edited(model, sm.edits.zero(sm.parse_units(model, "attention:1", sm.Selection(unit="head"))))
    before, after = (net["attention"](x, x, x)[0].detach() for net in (model, new))
    torch.testing.assert_close(after[..., :3], before[..., :3])
    assert not after[..., 3:].any()
    assert before[..., 3:].abs().min() > 0


class OwnAttention(nn.Module):
    """PyTorch's attention over three tokens that an image gives, and a head."""

    def __init__(self, batch_first: bool = True, **widths: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tokens = nn.Linear(5, 18)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=batch_first, **widths)
        nn.init.normal_(self.attention.in_proj_bias)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.tokens(x).unflatten(-1, (3, 6))
        x = x if self.attention.batch_first else x.transpose(0, 1)
        keys, values = x[..., : self.attention.kdim], x[..., : self.attention.vdim]
        return self.head(self.attention(x, keys, values)[0].mean(1 if self.attention.batch_first else 0))

    def written_out(self, x: Tensor, part: int, channel: int) -> Tensor:
        """The logits when a channel of the queries (0), keys (1) or values (2) is 0 at every token."""
        x, attention = self.tokens(x).unflatten(-1, (3, 6)), self.attention
        one = attention.in_proj_weight
        weights = one.chunk(3) if one is not None else [attention.get_parameter(f"{k}_proj_weight") for k in "qkv"]
        rows = [
            x[..., : weight.shape[1]] @ weight.T + bias
            for weight, bias in zip(weights, attention.in_proj_bias.chunk(3), strict=True)
        ]
        rows[part] = rows[part] * (torch.arange(6) != channel)
        q, k, v = (of.unflatten(-1, (2, 3)).transpose(1, 2) for of in rows)
        heads = (q @ k.transpose(-2, -1) / 3**0.5).softmax(-1) @ v
        return self.head(attention.out_proj(heads.transpose(1, 2).flatten(2)).mean(1))


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"batch_first": False}, {"kdim": 4, "vdim": 5}], ids=str)
@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_zeroed_channel_of_pytorch_attention_is_0_at_every_token(options, part):
    model, y = OwnAttention(**options).eval(), np.arange(8) % 3
    x = torch.randn(8, 5)
    data = sm.from_tensors(x, y, y % 2)
    unit = f"{'qkv'[part]}_proj_weight:4" if "kdim" in options else f"in_proj_weight:{6 * part + 4}"
    units = sm.parse_units(model, f"attention.{unit}")
    result = sm.evaluate(model, sm.edits.zero(units), data.train)
    with torch.no_grad():
        losses = nn.functional.cross_entropy(model.written_out(x, part, 4), torch.from_numpy(y), reduction="none")
    assert result.engine == "shared prefix"
    np.testing.assert_allclose(result.after.loss[0], losses, rtol=1e-4, atol=1e-5)
    assert np.abs(result.after.loss[0] - result.before.loss).max() > 1e-4


def test_edits_of_pytorch_attention_are_told_apart_by_their_bias():
    model = OwnAttention()
    units, older = sm.parse_units(model, "attention.in_proj_weight:4"), model.state_dict()
    other = {**older, "attention.in_proj_bias": older["attention.in_proj_bias"] + 1}
    assert sm.edits.rewind(units, older).digest() != sm.edits.rewind(units, other).digest()
    bias = sm.edits.edited(model, sm.edits.rewind(units, other)).attention.in_proj_bias
    assert (bias != model.attention.in_proj_bias).nonzero().tolist() == [[4]]


class Bert(nn.Module):
    """Attention with separate projections, its heads side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = 2
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(6, 6) for _ in range(3))
        self.head = nn.Linear(6, 2)

    def heads(self, x: Tensor) -> Tensor:
        q, k, v = (p(x).unflatten(-1, (2, 3)).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
        return nn.functional.scaled_dot_product_attention(q, k, v)


def test_a_zeroed_head_of_separate_projections_gives_nothing():
    torch.manual_seed(0)
    model = nn.Sequential(Bert())
    new = sm.edits.edited(model, sm.edits.zero(sm.parse_units(model, "0:0", sm.Selection(unit="head"))))
    x = torch.randn(4, 5, 6)
    assert not new[0].heads(x)[:, 0].any()
    torch.testing.assert_close(new[0].heads(x)[:, 1], model[0].heads(x)[:, 1])


def test_a_tied_layer_is_edited_in_both_places():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3, bias=False), nn.Linear(3, 2))
    model[1].weight = model[0].weight
    edit = sm.edits.zero(sm.parse_units(model, "0:1"))
    new, x = sm.edits.edited(model, edit), torch.randn(4, 3)
    assert not new[1].weight[1].any()
    torch.testing.assert_close(new(x), functional_call(model, sm.edits.edited_tensors(model, edit), (x,)))
    assert model[1].weight[1].any()


def failing(there: SimpleNamespace) -> dict[str, tuple[sm.Edit, str]]:
    units = sm.parse_units(there.model, "conv1:3,layer1.0.conv1:1")
    wider = {**there.older, "layer1.0.conv1.weight": torch.zeros(64, 64, 1, 1)}
    missing = {name: value for name, value in there.older.items() if name != "layer1.0.conv1.weight"}
    elsewhere = sm.Units("channel", ("conv1.weight", "gone.weight"), units.place, units.index)
    return {
        "unit of no tensor": (sm.edits.zero(elsewhere), "no channel gone:1"),
        "older lacks a tensor": (sm.edits.rewind(units, missing), "no tensor layer1.0.conv1.weight"),
        "older of another shape": (
            sm.edits.rewind(units, wider),
            r"layer1.0.conv1.weight has shape \(64, 64, 1, 1\), not",
        ),
        "mean of one layer only": (
            sm.edits.mean(units, {"conv1": there.means["conv1"]}),
            "the means of layer1.0.conv1 are missing",
        ),
        "function raises": (sm.Edit("users_edits:fails", units), r"users_edits:fails fails: \w+: not today"),
        "function without the parameter": (sm.Edit("users_edits:draw", units, {"std": 1}), "unexpected keyword"),
        "wrong shape": (sm.Edit("users_edits:small", units), "must return a tensor of shape"),
        "no tensor": (sm.Edit("users_edits:nothing", units), "must return a tensor of shape"),
        "no function": (sm.Edit("users_edits:gone", units), "name an importable module and a function"),
        "unknown kind": (sm.Edit("erase", units), "unknown edit 'erase': choose among zero, mean"),
        "no module": (sm.Edit("there_is_no_such_module:f", units), "name an importable module and a function"),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        "older of another shape",
        "function raises",
        "unknown kind",
        pytest.param("unit of no tensor", marks=pytest.mark.slow),
        pytest.param("older lacks a tensor", marks=pytest.mark.slow),
        pytest.param("mean of one layer only", marks=pytest.mark.slow),
        pytest.param("function without the parameter", marks=pytest.mark.slow),
        pytest.param("wrong shape", marks=pytest.mark.slow),
        pytest.param("no tensor", marks=pytest.mark.slow),
        pytest.param("no function", marks=pytest.mark.slow),
        pytest.param("no module", marks=pytest.mark.slow),
    ],
)
def test_a_failing_edit_leaves_the_network_as_it_was(networks, case):
    there = networks["resnet18"]
    edit, message = failing(there)[case]
    good = sm.edits.zero(sm.parse_units(there.model, "conv1:0"))
    before = snapshot(there.model)
    for attempt in (
        lambda: sm.edits.edited_tensors(there.model, edit),
        lambda: sm.edits.edited(there.model, edit),
        lambda: sm.evaluate(there.model, [good, edit], there.data.train),
    ):
        with pytest.raises(sm.UserError, match=message):
            attempt()
    assert same(before, snapshot(there.model))


def test_a_function_that_writes_in_place_leaves_the_network_as_it_was(networks):
    model = networks["resnet18"].model
    before = snapshot(model)
    units = sm.parse_units(model, "conv1:3")
    changed = sm.edits.edited_tensors(model, sm.Edit("users_edits:in_place", units))
    assert not changed["conv1.weight"][3].any()
    assert same(before, snapshot(model))


class Breaks(nn.Module):
    """Fails in the forward pass once armed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x)).mean((2, 3))
        raise RuntimeError(f"broken after {len(x)} samples")


def test_a_failing_forward_leaves_the_network_as_it_was():
    model = Breaks().train()
    model.conv.weight.requires_grad_(False)
    hook = model.conv.register_forward_hook(lambda *_: None)
    data = sm.from_tensors(torch.randn(4, 3, 5, 5), [0, 1] * 2, [0] * 4)
    before = snapshot(model)
    units = sm.parse_units(model, "conv:1")
    for attempt in (
        lambda: sm.evaluate(model, [sm.edits.zero(units)], data.train),
        lambda: sm.criteria.gradient(model, data.train),
        lambda: sm.hardest_samples(model, data.train),
        lambda: sm.edits.channel_means(model, data.train),
    ):
        with pytest.raises(
            sm.UserError, match=r"fails on inputs of shape \[\d, 3, 5, 5\] \(RuntimeError: broken after \d samples"
        ):
            attempt()
    assert same(before, snapshot(model))
    hook.remove()


def test_with_bias_false_keeps_the_bias(networks):
    model = networks["deit_tiny"].model
    name = "blocks.3.mlp.fc1"
    for with_bias in (True, False):
        units = sm.parse_units(model, f"{name}:7", sm.Selection(with_bias=with_bias))
        assert set(touched(model, units)) == {f"{name}.weight"} | ({f"{name}.bias"} if with_bias else set())
        new = sm.edits.edited(model, sm.edits.zero(units)).get_submodule(name)
        assert not new.weight[7].any()
        assert bool(new.bias[7]) is not with_bias


def test_no_units_change_nothing(networks):
    there = networks["resnet18"]
    units = sm.parse_units(there.model, "conv1:3").first(0)
    assert sm.edits.edited_tensors(there.model, sm.edits.zero(units)) == {}


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_flat_positions_of_weights_do_not_depend_on_the_memory_format(layout):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2)).to(memory_format=layout)
    units = sm.parse_units(model, "0:10", sm.Selection(unit="weight"))
    changed = sm.edits.edited_tensors(model, sm.edits.zero(units))["0.weight"]
    assert torch.nonzero(changed != model[0].weight).tolist() == [[0, 1, 0, 1]]


@pytest.mark.parametrize(
    "text",
    [
        "zero",
        "mean",
        "mean:over=unseen",
        "random_init:std=0.02",
        "random_noise:std=0.5,noise=uniform",
        "rewind:epochs=5",
        "users_edits:draw",
        "users_edits:double?factor=3,name=x",
    ],
)
def test_an_edit_survives_its_text(networks, text):
    spec = parse_edit(text)
    assert str(spec) == text
    units = sm.parse_units(networks["resnet18"].model, "conv1:0")
    assert str(sm.Edit(spec.kind, units, spec.parameters)) == text
    assert parse_edit(str(spec)) == spec
    assert spec.is_random is text.startswith("random")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("erase", "unknown edit 'erase': choose among zero, mean"),
        ("zero:std=1", "edit zero has no parameter 'std': it takes no parameters"),
        ("mean:of=unseen", "edit mean has no parameter 'of': it takes over"),
        ("mean:over=test", "or over the others by mean:over=unseen"),
        ("random_init", "needs a number std"),
        ("random_noise:std=big", "needs a number std"),
        ("random_noise:std=-1", "must be a number from 0 up"),
        ("random_noise:std=nan", "must be a number from 0 up"),
        ("random_noise:std=1,noise=pink", "choose among normal, uniform"),
        ("random_noise:0.02", "write parameters as name=value"),
        ("rewind", "needs a whole number of epochs"),
        ("transplant", "needs the run of the twin"),
        ("transplant:run=x", "has no parameter 'run': it takes from"),
        ("rewind:epochs=0.5", "needs a whole number of epochs"),
        ("rewind:epochs=-1", "needs a whole number of epochs"),
    ],
)
def test_parse_edit_refuses(text, message):
    with pytest.raises(sm.UserError, match=message):
        parse_edit(text)


def test_digest_tells_edits_apart(networks):
    there = networks["resnet18"]
    units = sm.parse_units(there.model, "conv1:3")
    twice = {name: 2 * value for name, value in there.older.items()}
    halved = {name: value / 2 for name, value in there.means.items()}
    elsewhere = {**there.older, "fc.weight": twice["fc.weight"]}
    edits = [
        sm.edits.zero(units),
        sm.edits.zero(sm.parse_units(there.model, "conv1:4")),
        sm.edits.random_init(units, 0.1),
        sm.edits.random_init(units, 0.1, seed=1),
        sm.edits.random_init(units, 0.2),
        sm.edits.random_init(units, 0.2, noise="uniform"),
        sm.edits.rewind(units, there.older),
        sm.edits.rewind(units, twice),
        sm.edits.rewind(units, there.older, epochs=5),
        sm.edits.mean(units, there.means),
        sm.edits.mean(units, halved),
    ]
    assert len({edit.digest() for edit in edits}) == len(edits)
    assert sm.edits.rewind(units, elsewhere).digest() == sm.edits.rewind(units, there.older).digest()
    assert sm.edits.zero(units).digest() == edits[0].digest()
