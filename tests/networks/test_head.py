"""The classifier head, layers without use and batch norms behind layers, found by tracing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

import spurious_memorization as sm
from spurious_memorization.controls.norms import folded_norms
from spurious_memorization.networks.head import head_names, name_head

Outputs = Callable[[], nn.Module]


class HeadFirst(nn.Module):
    """The head is defined before the layers that it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = nn.Linear(8, 7)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(self.body(x).relu())


class ConvolutionAsHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 7, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).mean((2, 3))


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 7), nn.Linear(4, 7)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x: Tensor) -> Tensor:
        features = self.body(x)
        return (self.first(features) + self.second(features)) / 2


class Auxiliary(nn.Module):
    """An auxiliary head that works in training only, and a frozen body."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.aux, self.fc = nn.Conv2d(3, 7, 3), nn.Linear(7, 7), nn.Linear(7, 7)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            features = self.conv(x).mean((2, 3))
        if self.training:
            return self.fc(features) + self.aux(features)
        return self.fc(features.detach())


class Prototypes(nn.Module):
    """The logits are distances to prototypes, which are no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 7, 3)
        self.prototypes = nn.Parameter(torch.randn(7, 7))

    def forward(self, x: Tensor) -> Tensor:
        return -torch.cdist(self.conv(x).mean((2, 3)), self.prototypes)


class LooksAtValues(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 4, 3), nn.Linear(4, 7)

    def forward(self, x: Tensor) -> Tensor:
        features = self.conv(x).relu().mean((2, 3))
        return self.fc(features if float(features.sum()) < 1e9 else features / 2)


def normed_linear() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 9, 7), nn.BatchNorm1d(7), nn.LogSoftmax(1))


def googlenet() -> nn.Module:
    with torch.device("meta"):
        return torchvision.models.googlenet(num_classes=7, init_weights=False)


@pytest.mark.parametrize(
    ("build", "head"),
    [
        (HeadFirst, ("answer",)),
        (ConvolutionAsHead, ("body.2",)),
        (TwoHeads, ("first", "second")),
        (Auxiliary, ("fc",)),
        (Prototypes, ()),
        (LooksAtValues, ("fc",)),
        (normed_linear, ("2",)),
        (lambda: torchvision.models.squeezenet1_1(num_classes=7), ("classifier.1",)),
        (lambda: timm.create_model("deit_tiny_distilled_patch16_224", num_classes=7), ("head", "head_dist")),
        (lambda: timm.create_model("test_vit", num_classes=7, img_size=64), ("head",)),
        (lambda: torch.compile(timm.create_model("test_resnet", num_classes=7), backend="eager"), ("_orig_mod.fc",)),
        (lambda: nn.DataParallel(HeadFirst()), ("module.answer",)),
        (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(5, 7)), ("",)),
        (googlenet, ("fc",)),
    ],
)
def test_the_head_is_where_the_logits_come_from(build: Outputs, head: tuple[str, ...]) -> None:
    model = build()
    model.train()
    assert head_names(model) == head
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(("build", "without"), [(Auxiliary, {"aux"}), (googlenet, {"aux1.conv.conv", "aux2.fc2"})])
def test_layers_on_which_the_logits_do_not_depend_have_no_units(build: Outputs, without: set[str]) -> None:
    model = build()
    modules = {name for name, _ in model.named_modules()}
    units = {name.removesuffix(".weight") for name in sm.networks.units.sites(model, sm.Selection())}
    assert without <= modules
    assert not without & units
    assert not {"fc", "answer"} & units


def test_tracing_changes_nothing() -> None:
    model = normed_linear().train()
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    assert head_names(model) == ("2",)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())


def test_a_replaced_head_is_found() -> None:
    model = HeadFirst()
    assert head_names(model) == ("answer",)
    model.answer = nn.Sequential(nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3))
    assert head_names(model) == ("answer.2",)


def test_a_network_that_cannot_be_traced_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    class TwoInputs(ConvolutionAsHead):
        def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(x * mask)

    model = TwoInputs()
    model.fc = nn.Linear(3, 2)
    assert head_names(model) == ("fc",)
    assert "its head is taken to be fc (the last linear layer): name another one with --head" in capsys.readouterr().err
    name_head(model, ("body.2",))
    assert head_names(model) == ("body.2",)


class OutOfOrder(nn.Module):
    """Batch norms that are not defined right behind their layers, one of them with other names."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)
        self.four, self.norm_by_batch = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)
        self.norm_of_two, self.norm_of_one = nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False)
        self.register_buffer("middle", torch.randn(4))
        self.register_buffer("spread", torch.rand(4) + 0.5)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm_of_one(self.one(x)).relu()
        x = self.norm_of_two(self.two(x)).relu()
        x = nn.functional.batch_norm(self.three(x), self.middle, self.spread, eps=0.1)
        return self.fc(self.norm_by_batch(self.four(x)).mean((2, 3)))


def test_batch_norms_are_found_by_what_they_read() -> None:
    torch.manual_seed(0)
    model = OutOfOrder()
    for norm in (model.norm_of_one, model.norm_of_two):
        norm.running_var.uniform_(0.5, 2)
    nn.init.normal_(model.norm_of_two.weight)
    factors = {
        "one": (model.norm_of_one.running_var + 1e-5).rsqrt(),
        "two": (model.norm_of_two.running_var + 1e-5).rsqrt() * model.norm_of_two.weight.abs(),
        "three": (model.spread + 0.1).rsqrt(),
        "four": torch.ones(4),
    }
    found = folded_norms(model)
    assert set(found) == {f"{name}.weight" for name in factors}
    for name, factor in factors.items():
        raw = model.get_submodule(name).weight.flatten(1).norm(dim=1)
        torch.testing.assert_close(found[f"{name}.weight"], (raw * factor).double().detach(), rtol=1e-6, atol=0)


def test_frozen_batch_norms_count_too() -> None:
    """torchvision writes them out, without PyTorch's batch norm."""
    torch.manual_seed(1)
    norm = torchvision.ops.FrozenBatchNorm2d(4)
    norm.weight.uniform_(-2, 2)
    norm.running_var.uniform_(0.5, 2)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    raw = model[0].weight.detach().flatten(1).norm(dim=1)
    expected = (raw * norm.weight.abs() * (norm.running_var + norm.eps).rsqrt()).double()
    torch.testing.assert_close(folded_norms(model)["0.weight"], expected, rtol=1e-6, atol=0)
