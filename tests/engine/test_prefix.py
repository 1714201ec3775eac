"""The shared-prefix engine beside full passes of each edited network."""

from __future__ import annotations

import copy
import functools
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_networks import small_convnet
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import spurious_memorization as sm
from spurious_memorization.edits.edit import Edit
from spurious_memorization.engine.cpu import memory as memory_module
from spurious_memorization.engine.evaluate import compiled_where_it_pays, engine_for
from spurious_memorization.engine.outcomes import Block, Engine
from spurious_memorization.engine.plain import plain_engine
from spurious_memorization.engine.prefix import engine as shared_module
from spurious_memorization.engine.prefix import traced as traced_module
from spurious_memorization.engine.prefix.changes import prepare
from spurious_memorization.engine.prefix.engine import UNEDITED, answers
from spurious_memorization.engine.prefix.program import Untraceable
from spurious_memorization.engine.prefix.traced import Traced, traced
from spurious_memorization.networks.build import NetworkSettings, build
from spurious_memorization.networks.forward import logits, working_copy
from spurious_memorization.networks.losses import margin
from spurious_memorization.networks.selection import Selection
from spurious_memorization.networks.units import Units, sites

NETWORKS = ("resnet18", "resnet50", "deit_tiny", "convnext_atto", pytest.param("regnety_002", marks=pytest.mark.slow))
KINDS = ("zero", "mean", "random_init", "random_noise", "rewind", f"{__name__}:turned")
EXACT = 1e-4


def turned(numbers: Tensor, generator: torch.Generator, by: float) -> Tensor:
    """A user's own kind of edit."""
    return by * numbers.flip(0) + 0.1 * torch.rand(numbers.shape, generator=generator)


def lively(net: nn.Module, x: Tensor) -> nn.Module:
    """Random statistics and affine parameters, and a head that tells these samples apart."""
    with torch.no_grad():
        for name, value in (*net.named_parameters(), *net.named_buffers()):
            if name.endswith("running_mean") or (value.ndim == 1 and name.endswith("bias")):
                value.normal_(0, 0.2)
            elif value.ndim == 1 and value.is_floating_point():  # scales, variances
                value.uniform_(0.5, 1.5)
            elif name.endswith(("pos_embed", "cls_token")):
                value.normal_()
        head = [module for module in net.modules() if isinstance(module, nn.Linear)][-1]
        head.bias.zero_()
        output = net.eval()(x)
        scale = 2 / (output - output.mean(0)).std()
        head.weight.mul_(scale)
        head.bias.copy_(-scale * output.mean(0))
    return net


def images(n: int, size: int) -> Tensor:
    """Images of different brightness, color and pattern."""
    coarse = F.interpolate(torch.randn(n, 3, 4, 4), size, mode="nearest")
    return coarse * torch.rand(n, 1, 1, 1) * 3 + torch.randn(n, 3, 1, 1) + 0.3 * torch.randn(n, 3, size, size)


def samples_of(x: Tensor, n_classes: int = 3) -> sm.Samples:
    return sm.from_tensors(x, np.arange(len(x)) % n_classes, np.zeros(len(x), int)).train


@functools.cache
def network(name: str) -> tuple[nn.Module, sm.Samples, Traced, Engine]:
    torch.manual_seed(1)
    x = images(6, 32)
    net = lively(build(NetworkSettings(model=name, n_classes=3, image_size=32)), x)
    inner = traced(working_copy(net), x[:1], "float32")
    return net, samples_of(x), inner, shared_module._engine(inner, x[:1], "cross_entropy", sm.Execution())


@functools.cache
def numbers_put_in(name: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What the edits `mean` and `rewind` put in."""
    net, samples, *_ = network(name)
    torch.manual_seed(2)
    older = {key: value + 0.3 * value.std() * torch.randn(value.shape) for key, value in net.named_parameters()}
    return sm.edits.channel_means(net, samples), older


def edit_of(name: str, kind: str, units: Units, std: float, seed: int) -> Edit:
    means, older = numbers_put_in(name)
    match kind:
        case "mean":
            return sm.edits.mean(units, means)
        case "rewind":
            return sm.edits.rewind(units, older)
        case "zero":
            return sm.edits.zero(units)
        case "random_init" | "random_noise":
            return Edit(kind, units, {"std": std}, seed=seed)
        case _:
            return Edit(kind, units, {"by": 1 + std}, seed=seed)


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


def full_passes(net: nn.Module, edits: Sequence[Edit], x: Any) -> list[Tensor]:
    """Logits of each edited network, after those of the network before any edit."""
    with torch.no_grad():
        return [logits(n.eval(), x) for n in (copy.deepcopy(net), *(sm.edits.edited(net, edit) for edit in edits))]


def assert_same_logits(given: dict[int, Tensor], expected: Sequence[Tensor]) -> None:
    assert sorted(given) == list(range(UNEDITED, len(expected) - 1))
    for row, output in enumerate(expected, UNEDITED):
        scale = max(1.0, float(output.abs().max()))
        np.testing.assert_allclose(given[row], output, rtol=0, atol=EXACT * scale)


def assert_same_block(block: Block, expected: Sequence[Tensor], y: Tensor) -> None:
    """Margins and losses are near those of these logits; predictions are equal but where two classes nearly tie."""
    assert block.edits.tolist() == list(range(UNEDITED, len(expected) - 1))
    for row, output in enumerate(expected):
        near = EXACT * max(1.0, float(output.abs().max()))
        np.testing.assert_allclose(block.margin[row], margin(output, y), rtol=0, atol=near)
        np.testing.assert_allclose(block.loss[row], F.cross_entropy(output, y, reduction="none"), rtol=0, atol=near)
        best = output.topk(2, 1).values
        clear = (best[:, 0] - best[:, 1] > 2 * near).numpy()
        assert np.array_equal(block.predicted[row][clear], output.argmax(1).numpy()[clear])


def shared_logits(inner: Traced, edits: Sequence[Edit], x: Tensor) -> dict[int, Tensor]:
    with torch.no_grad():
        return dict(answers(inner, dict(enumerate(edits)), x, unedited=True))


def assert_equals_full_passes(name: str, edits: Sequence[Edit]) -> list[Tensor]:
    """Both engines against full passes of edited copies, whose logits are given back."""
    net, samples, inner, engine = network(name)
    x, rows = samples.batch().inputs, range(-1, len(edits))
    expected = full_passes(net, edits, x)
    assert_same_logits(shared_logits(inner, edits, x), expected)
    for block in (engine.run(edits, rows, samples), plain_engine(net).run(edits, rows, samples)):
        assert_same_block(block, expected, samples.batch().y)
    return expected


def run_both(net: nn.Module, edits: Sequence[Edit], x: Any, precision: Any = "float32") -> tuple[str, Block, Block]:
    """The path that the engine takes, what it gives, and what plain passes give."""
    samples, rows = samples_of(x, 2), range(-1, len(edits))
    engine = engine_for(net, samples, precision=precision)
    blocks = (e.run(edits, rows, samples) for e in (engine, plain_engine(net, precision=precision)))
    return engine.path, *blocks


def units(net: nn.Module, text: str, **select: Any) -> Units:
    return sm.parse_units(net, text, sm.Selection(**select))


@pytest.mark.parametrize("name", NETWORKS)
def test_any_edits_equal_full_passes(name):
    @settings(deadline=None, derandomize=True, max_examples=3 if name == "resnet50" else 5, database=None)
    @given(edits_on(name))
    def holds(edits: list[Edit]) -> None:
        assert_equals_full_passes(name, edits)

    _, samples, _, engine = network(name)
    assert len(np.unique(engine.run([], range(-1, 0), samples).predicted)) > 1
    holds()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["resnet18", "deit_tiny"])
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
        ("deit_tiny", ["pos_embed", "cls_token", "blocks.0.norm1.weight", "blocks.5.norm2.bias", "norm.weight"]),
        ("convnext_atto", ["stem.1.weight", "stages.0.blocks.1.gamma", "stages.2.blocks.3.norm.weight"]),
    ],
)
def test_single_weights_of_any_parameter(name, parameters):
    net = network(name)[0]
    singles = [units(net, f"{parameter}:0", unit="weight") for parameter in parameters]
    together = units(net, [f"{parameter}:1" for parameter in parameters], unit="weight")
    edits = [Edit("random_noise", u, {"std": 9.0}, seed=i) for i, u in enumerate([*singles, together])]
    before, *after = assert_equals_full_passes(name, edits)
    assert all(float((output - before).abs().max()) > 3 * EXACT * float(before.abs().max()) for output in after)


class Residual(nn.Module):
    """A stem, two blocks with a sum around them, a head."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.fc = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        x = x + self.norm1(self.conv1(x)).relu()
        x = F.max_pool2d(x, 2)
        return self.fc((x + self.conv2(x).relu()).mean((2, 3)))


@functools.cache
def trained() -> tuple[nn.Module, sm.Samples]:
    """A network that has learnt which of three colors is the brightest."""
    torch.manual_seed(5)
    y = torch.arange(240) % 3
    x = torch.randn(240, 3, 12, 12)
    x[torch.arange(240), y] += 0.4
    net = Residual()
    optimizer = torch.optim.AdamW(net.parameters(), 1e-2)
    for step in range(40):
        part = torch.arange(step % 4, 240, 4)
        loss = F.cross_entropy(net(x[part]), y[part])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        assert float((net.eval()(x).argmax(1) == y).float().mean()) > 0.95
    return net, samples_of(x)


def some_edits(net: nn.Module) -> list[Edit]:
    """Sixty edits of one to five filters, or of ten weights."""
    random = np.random.default_rng(0)
    layers, edits = ("stem", "conv1", "conv2"), []
    for i in range(60):
        if i % 6 == 5:
            numbers = random.permutation(400)[:10]
            chosen = units(net, [f"{layers[i // 6 % 3]}:{k}" for k in numbers], unit="weight")
        else:
            chosen = units(net, [f"{layers[(i + k) % 3]}:{k * 3 + i % 3}" for k in range(1 + i % 5)])
        edits.append(Edit("random_noise", chosen, {"std": 1.0}, seed=i) if i % 2 else sm.edits.zero(chosen))
    return edits


def test_bf16_predicts_as_float32():
    net, samples = trained()
    edits = some_edits(net)
    single, half = (sm.evaluate(net, edits, samples, precision=precision) for precision in ("float32", "bf16"))
    assert single.path == half.path == "shared prefix"
    assert (single.after.predicted == half.after.predicted).mean() >= 0.995
    assert not np.array_equal(single.after.loss, half.after.loss)
    assert (single.after.predicted != single.before.predicted).mean() > 0.01
    plain = plain_engine(net).run(edits, range(len(edits)), samples)
    assert np.array_equal(single.after.predicted, plain.predicted)


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
        given = shared_logits(traced(net, x, "float32"), [sm.edits.zero(units(net, f"{name}:5"))], x)
        np.testing.assert_allclose(given[0], expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
        assert float((given[0] - given[UNEDITED]).abs().max()) > 1e-3 * float(expected.abs().max())


class Dense(nn.Module):
    """Batch norms before their convolutions, and each layer reads all that came before, as in DenseNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8 + 4 * i, affine=i != 1) for i in range(4))
        self.convs = nn.ModuleList(nn.Conv2d(8 + 4 * i, 4, 3, padding=1, bias=False) for i in range(3))
        self.fc = nn.Linear(20, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for norm, conv in zip(self.norms, self.convs, strict=False):
            x = torch.cat([x, conv(norm(x).relu())], 1)
        return self.fc(self.norms[3](x).relu().mean((2, 3)))


class Own(nn.Module):
    """A network of two layers `a` and `b` with something between and behind them."""

    def __init__(self, a: nn.Module, b: nn.Module, between: Callable[[Tensor], Tensor], n: int = 8) -> None:
        super().__init__()
        self.a, self.b, self.between = a, b, between
        self.fc = nn.Linear(n, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.between(self.a(x))).relu()
        return 5 * self.fc(x.mean((2, 3)) if x.ndim == 4 else x.mean(1) if x.ndim == 3 else x)


class Tied(nn.Module):
    """Two layers that share one weight; only the first has a bias, or none."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.i = nn.Conv2d(3, 8, 3)
        self.a = nn.Conv2d(8, 8, 3, padding=1, bias=bias)
        self.b = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.b.weight = self.a.weight
        self.fc = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return 5 * self.fc(self.b(self.a(self.i(x).relu()).relu()).relu().mean((2, 3)))


class SharedNorm(nn.Module):
    """One batch norm under two names, one convolution called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.i = nn.Conv2d(3, 8, 3)
        self.a = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm = self.again = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.again(self.a(self.norm(self.a(self.i(x))).relu())).relu().mean((2, 3)))


class LateBias(nn.Linear):
    """A linear layer whose bias, zero so far, is added behind an activation."""

    def __init__(self) -> None:
        super().__init__(20, 8)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight).tanh() + self.bias


class Standardized(nn.Conv2d):
    """Its weight is standardized before use."""

    def forward(self, x: Tensor) -> Tensor:
        mean, std = self.weight.mean((1, 2, 3), keepdim=True), self.weight.std((1, 2, 3), keepdim=True)
        return F.conv2d(x, (self.weight - mean) / (std + 0.1), self.bias, self.stride, self.padding)


class Windows(nn.Module):
    """Linear layers on windows, of which there are four a sample on the first axis."""

    def __init__(self) -> None:
        super().__init__()
        self.i = nn.Conv2d(3, 16, 1)
        self.a, self.b = nn.Linear(16, 16), nn.Linear(16, 16)
        self.fc = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.i(x).relu()
        n, c, _, _ = x.shape
        x = x.reshape(n, c, 2, 4, 2, 4).permute(0, 2, 4, 3, 5, 1).reshape(n * 4, 16, c)
        x = self.b(self.a(x).relu()).relu().reshape(n, 64, c)
        return 5 * self.fc(x.mean(1))


class TokensFirst(nn.Module):
    """An attention layer of torch, whose first axis is that of the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.i = nn.Conv2d(3, 16, 4, 4)
        self.a = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0)
        self.b = nn.Linear(16, 16)
        self.fc = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        return 5 * self.fc(self.b(self.a(self.i(x).flatten(2).permute(2, 0, 1))).relu().mean(0))


class Skipped(nn.Module):
    """Each layer reads the input again, so that it can't be cut."""

    def __init__(self) -> None:
        super().__init__()
        self.i = nn.Conv2d(3, 3, 3, padding=1)
        self.a = nn.Conv2d(3, 3, 3, padding=1)
        self.fc = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x + self.i(x).relu())
        return 5 * self.fc(y.mean((2, 3))) + x.mean((2, 3))[:, :2]


class WithLogits(nn.Sequential):
    def forward(self, x: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=super().forward(x))


def conv(n: int = 8, of: int = 8, size: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(of, n, size, **options)


def chunked(x: Tensor) -> Tensor:
    one, two = x.chunk(2, 1)
    return one * two.sigmoid()


def same(x: Tensor) -> Tensor:
    return x


IMAGES, VECTORS, TOKENS, SIGNALS = (3, 8, 8), (6,), (5, 6), (3, 12)
OWN: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], list[str]]] = {
    "dense": (Dense, IMAGES, ["stem:1", "convs.0:2", "convs.1:0,convs.2:3"]),
    "grouped": (lambda: Own(conv(of=3), conv(groups=2, bias=False), F.relu), IMAGES, ["a:1", "b:3", "a:0,b:7"]),
    "depthwise": (lambda: Own(conv(of=3), conv(groups=8), F.relu), IMAGES, ["a:1", "b:3", "a:0,b:7"]),
    "string padding": (
        lambda: Own(conv(of=3, padding="same"), conv(padding="same", dilation=2, bias=False), F.relu),
        IMAGES,
        ["a:1", "b:3", "a:0,b:7"],
    ),
    "circular padding": (
        lambda: Own(conv(of=3), conv(padding=1, padding_mode="circular"), F.relu),
        IMAGES,
        ["a:1", "a:0,b:7"],
    ),
    "stride and dilation": (
        lambda: Own(conv(of=3, bias=False, stride=(1, 2)), conv(stride=2, dilation=(2, 1), padding=(2, 1)), F.gelu),
        IMAGES,
        ["a:1", "b:3", "a:0,b:7"],
    ),
    "stride of one by one": (
        lambda: Own(conv(of=3), nn.Sequential(conv(size=1, stride=2), conv(size=1, padding=1)), F.silu),
        IMAGES,
        ["a:1", "b.0:3", "a:0,b.1:7"],
    ),
    "one channel": (lambda: Own(conv(1, 3), conv(8, 1), F.relu), IMAGES, ["a:0", "b:3", "a:0,b:7"]),
    "gate": (lambda: Own(conv(16, 3), conv(8, 8), chunked), IMAGES, ["a:1", "a:12", "a:3,b:7"]),
    "linear along the width": (
        lambda: Own(conv(of=3, padding=1), nn.Sequential(nn.Linear(8, 8), nn.ReLU(), conv()), F.relu),
        IMAGES,
        ["a:1", "b.0:3", "a:0,b.0:1,b.2:7"],
    ),
    "standardized": (
        lambda: Own(Standardized(3, 8, 3, bias=False), Standardized(8, 8, 3), F.relu),
        IMAGES,
        ["a:1", "b:3"],
    ),
    "tied": (lambda: Tied(True), IMAGES, ["i:1", "a:3", "i:0,a:7"]),
    "tied without bias": (lambda: Tied(False), IMAGES, ["i:1", "a:3", "i:0,a:7"]),
    "shared norm": (SharedNorm, IMAGES, ["i:1", "a:3", "i:0,a:7"]),
    "late bias": (lambda: Own(nn.Linear(6, 20), LateBias(), torch.tanh), VECTORS, ["a:1", "b:3", "a:0,b:7"]),
    "windows": (lambda: nn.Sequential(conv(16, 3, 1), nn.ReLU(), conv(3, 16, 1), Windows()), IMAGES, ["0:1,3.b:4"]),
    "tokens first": (TokensFirst, IMAGES, ["i:1", "a.linear1:3,b:1", "i:0,a.linear2:2,b:3"]),
    "no cuts": (Skipped, IMAGES, ["i:1", "a:2", "i:0,a:1"]),
    "vectors": (lambda: Own(nn.Linear(6, 20), nn.Linear(20, 8), torch.tanh), VECTORS, ["a:1", "b:3", "a:0,b:7"]),
    "tokens": (lambda: Own(nn.Linear(6, 20), nn.Linear(20, 8), F.gelu), TOKENS, ["a:1", "b:3", "a:0,b:7"]),
    "signals": (
        lambda: Own(
            nn.Conv1d(3, 8, 3),
            nn.Sequential(nn.Conv1d(8, 8, 3, bias=False), nn.BatchNorm1d(8), nn.Flatten(2), nn.Linear(8, 8)),
            F.relu,
        ),
        SIGNALS,
        ["a:1", "b.0:3", "a:0,b.0:7"],
    ),
    "logits": (
        lambda: WithLogits(conv(of=3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)),
        IMAGES,
        ["0:1"],
    ),
}


@pytest.mark.parametrize("name", OWN)
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
    inner = traced(net, x, "float32")
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


class Branching(nn.Module):
    """Vectors to logits, with something that a trace can't hold."""

    def __init__(self, how: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.how = how
        self.inner, self.fc = nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.how(self.inner(x)))


PLAIN = {
    "control flow": (lambda x: x if x.sum() > 0 else -x, r"plain: torch\.export can't trace it \(.+\)"),
    "a number": (lambda x: x / x.abs().max().item(), "plain: a number on its way is no tensor"),
    "size": (lambda x: x / (x.shape[0] / 2), "plain: a number on its way is no tensor"),
    "numpy": (lambda x: torch.from_numpy(x.detach().numpy() * 1), r"plain: torch\.export can't trace it \(.+\)"),
    "other trace": (
        lambda x: 2 * x if torch.compiler.is_exporting() else x,
        "plain: its trace gives other logits than the network itself",
    ),
    "batch": (lambda x: x - x.mean(0), "plain: its trace gives other logits than the network itself"),
}


@pytest.mark.parametrize("name", PLAIN)
def test_what_cannot_be_traced_runs_plainly(name):
    how, why = PLAIN[name]
    torch.manual_seed(9)
    net, x = Branching(how), torch.randn(12, 6)
    edits = [sm.edits.zero(units(net, "inner:3"))]
    result = sm.evaluate(net, edits, samples_of(x, 2))
    assert re.fullmatch(why, result.path)
    plain = plain_engine(net).run(edits, range(-1, 1), samples_of(x, 2))
    assert np.array_equal(np.concatenate([result.before.loss, result.after.loss]), plain.loss)


def test_inputs_by_name_run_plainly():
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.fc = nn.Linear(6, 8), nn.Linear(8, 2)

        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            return self.fc(self.inner(left * right))

    torch.manual_seed(10)
    net, x = Named(), {"left": torch.randn(12, 6), "right": torch.randn(12, 6)}
    data = sm.from_tensors(x, [0, 1] * 6, [0] * 12)
    assert (
        sm.evaluate(net, [sm.edits.zero(units(net, "inner:3"))], data.train).path
        == "plain: its input is no single tensor"
    )


@pytest.mark.parametrize(
    "net", [nn.Identity(), nn.Flatten(), nn.Sequential(nn.Identity(), nn.Softmax(1))], ids=["same", "flat", "softmax"]
)
def test_networks_without_parameters(net):
    path, given, plain = run_both(net, [], torch.randn(5, 2))
    assert path.startswith(("plain", "shared prefix"))
    np.testing.assert_allclose(given.margin, plain.margin, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "how",
    [
        lambda x: x.softmax(1, dtype=torch.float32),
        lambda x: x + torch.ones(x.shape[0], 8),
        lambda x: x.double().float(),
    ],
)
def test_in_bf16_what_turns_to_float32_runs_plainly(how):
    torch.manual_seed(11)
    net, x = Branching(how), torch.randn(12, 6)
    assert run_both(net, [], x)[0] == "shared prefix"
    path, given, plain = run_both(net, [sm.edits.zero(units(net, "inner:3"))], x, "bf16")
    assert path.startswith("plain: it needs float32 on its way (")
    assert np.array_equal(given.loss, plain.loss)


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


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.unused, self.inner, self.fc = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.inner(x).relu())


def test_a_layer_that_nothing_reads_changes_nothing():
    torch.manual_seed(13)
    net = Unused()
    edits = [sm.edits.zero(units(net, "unused:1")), sm.edits.zero(units(net, "inner:1,unused:0"))]
    path, given, plain = run_both(net, edits, torch.randn(12, 6))
    assert path == "shared prefix"
    assert np.array_equal(given.loss[1], given.loss[0])
    np.testing.assert_allclose(given.loss, plain.loss, rtol=1e-5, atol=1e-6)
    assert not np.array_equal(given.loss[2], given.loss[0])


def test_without_a_compiler_segments_run_as_they_are(monkeypatch, capsys):
    net, samples = trained()

    def failing(*_args: object, **_options: object) -> Callable[[Tensor], Tensor]:
        def run(_x: Tensor) -> Tensor:
            raise RuntimeError("no compiler here\nat all")

        return run

    engine = engine_for(net, samples)
    rows = range(-1, 5)
    expected = engine.run(some_edits(net), rows, samples)
    monkeypatch.setattr(torch, "compile", failing)
    again = engine.compiled()
    said = capsys.readouterr().err.strip().splitlines()
    assert said == ["running without torch.compile, which fails here: no compiler here"]
    assert again.path == "shared prefix"
    given = again.run(some_edits(net), rows, samples)
    assert np.array_equal(given.loss, expected.loss)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_compiling_pays_in_bf16_alone_and_only_for_long_studies(precision, monkeypatch):
    net, samples = trained()
    engine = engine_for(net, samples, precision=precision)
    wanted = []
    asked = replace(engine, compiled=lambda: wanted.append(precision) or engine)
    for passes, how in ((1e3, None), (1e12, None), (1e12, False), (1e3, True)):
        compiled_where_it_pays(asked, passes, sm.Execution(compile=how))
    assert len(wanted) == {"float32": 1, "bf16": 2}[precision]


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="needs a C++ compiler")
def test_compiled_predicts_the_same():
    net, samples = trained()
    engine, edits = engine_for(net, samples), some_edits(net)[:12]
    again = engine.compiled()
    assert again.path == "shared prefix, compiled"
    expected, given = (e.run(edits, range(-1, 12), samples) for e in (engine, again))
    assert np.array_equal(given.predicted, expected.predicted)
    np.testing.assert_allclose(given.loss, expected.loss, rtol=1e-4, atol=1e-4)


@pytest.fixture(params=["batch", "waiting", "kept", "all"])
def tight(request, monkeypatch) -> Iterator[str]:
    limits = {
        "batch": (shared_module, "BATCH_BYTES"),
        "waiting": (shared_module, "WAITING_BYTES"),
        "kept": (traced_module, "KEPT_BYTES"),
    }
    for name, (module, limit) in limits.items():
        if request.param in (name, "all"):
            monkeypatch.setattr(module, limit, 100)
    return request.param


def test_limits_of_memory_change_no_answer(tight, monkeypatch):
    net, samples = trained()
    edits, samples = some_edits(net)[:20], samples.part(range(40))
    rows = range(-1, len(edits))
    sizes: list[int] = []
    made: list[int] = []

    def counted(network: Traced, start: int, several: Sequence[Any], given: Sequence[Tensor]) -> list[Tensor]:
        sizes.append(len(several))
        return traced_module.run_stack(network, start, several, given)

    def prepared(*arguments: Any) -> Any:
        made.append(1)
        return prepare(*arguments)

    monkeypatch.setattr(shared_module, "run_stack", counted)
    monkeypatch.setattr(traced_module, "prepare", prepared)
    engine = engine_for(net, samples, execution=sm.Execution(eval_batch_size=20))
    given = engine.run(edits, rows, samples)
    assert (max(sizes) == 1) == (tight in ("batch", "all"))
    assert (len(made) == len(edits)) == (tight not in ("kept", "all"))
    plain = plain_engine(net).run(edits, rows, samples)
    assert np.array_equal(given.predicted, plain.predicted)
    np.testing.assert_allclose(given.loss, plain.loss, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(given.margin, plain.margin, rtol=1e-5, atol=2e-5)


def test_shares_are_counted_as_by_hand():
    net = small_convnet()
    first, second, head = 64 * 8 * 27, 16 * 12 * 72, 12 * 2
    engine = engine_for(net, samples_of(torch.randn(3, 3, 8, 8), 2))
    assert engine.pass_work == first + second + head
    texts = {
        ("conv1:0", "channel"): head,  # the second layer gets a change of low rank
        ("conv2:3", "channel"): 0,
        ("conv1:0", "weight"): first + second + head,
        ("bn1.bias:0", "weight"): first + second + head,
        ("conv2:5", "weight"): second + head,
        ("fc:5", "weight"): head,
    }
    edits = [sm.edits.zero(units(net, text, unit=unit)) for text, unit in texts]
    np.testing.assert_allclose(engine.shares(edits), np.array([*texts.values()]) / engine.pass_work)
    assert plain_engine(net).shares(edits).tolist() == [1] * len(edits)
    net = Own(conv(of=3), conv(groups=8), F.relu)
    engine = engine_for(net, samples_of(torch.randn(3, 3, 8, 8), 2))
    first, second, head = 36 * 8 * 27, 16 * 8 * 9, 8 * 2
    assert engine.pass_work == first + second + head
    shares = engine.shares([sm.edits.zero(units(net, text)) for text in ("a:1", "b:3")])
    np.testing.assert_allclose(shares, (second + head) / engine.pass_work)


@pytest.mark.parametrize("name", ["resnet18", "deit_tiny", "string padding", "signals"])
def test_multiplications_of_a_full_pass(name):
    if name in OWN:
        make, shape, _ = OWN[name]
        net, x = make().eval(), torch.randn(1, *shape)
        work = engine_for(net, samples_of(x)).pass_work
    else:
        net, samples, _, engine = network(name)
        work, x = engine.pass_work, samples.batch().inputs[:1]
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        net(x)
    assert work == counter.get_total_flops() / 2 > 0


class _Library:
    """Stands for the C library."""

    def __init__(self) -> None:
        self.options: dict[int, int] = {}
        self.trimmed = 0

    def mallopt(self, option: int, value: int) -> int:
        self.options[option] = value
        return 1

    def malloc_trim(self, _pad: int) -> int:
        self.trimmed += 1
        return 1


def test_freed_memory_is_kept_within_a_block_only(monkeypatch):
    library = _Library()
    monkeypatch.setattr(memory_module, "_glibc", lambda: library)
    default = {-1: 128 * 1024, -4: 65536}

    def fails() -> None:
        with memory_module.reused_memory():
            assert library.options == {-1: 2**31 - 1, -4: 0}
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert library.options == default
    assert library.trimmed == 1
    with memory_module.reused_memory(), memory_module.reused_memory():
        assert library.options == {-1: 2**31 - 1, -4: 0}
    assert library.options == default


def test_elsewhere_than_with_glibc_memory_is_left_alone(monkeypatch):
    net, samples = trained()
    rows = range(-1, 0)
    expected = engine_for(net, samples).run([], rows, samples)
    monkeypatch.setattr(memory_module, "_glibc", lambda: None)
    assert np.array_equal(engine_for(net, samples).run([], rows, samples).loss, expected.loss)
    monkeypatch.undo()
    monkeypatch.setattr(memory_module.sys, "platform", "darwin")
    assert memory_module._glibc() is None


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


@pytest.mark.parametrize("name", ["resnet18", "deit_tiny"])
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


def test_a_trace_that_is_refused_says_so():
    with pytest.raises(Untraceable, match=r"it doesn't give logits of shape \[samples, classes\]"):
        traced(nn.Conv2d(3, 4, 3), torch.randn(1, 3, 8, 8), "float32")
