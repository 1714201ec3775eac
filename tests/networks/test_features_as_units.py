"""Features, the inputs of the head, as units: against the same changes by hooks in plain PyTorch."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import timm
import torch
from tiny_networks import small_convnet
from torch import Tensor, nn

import spurious_memorization as sm
from spurious_memorization.networks.units import sites

FEATURE = sm.Selection(unit="feature")


def resnet() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("resnet18", num_classes=3).eval()


def distilled() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(
        "deit_tiny_distilled_patch16_224", num_classes=3, img_size=32, depth=2, embed_dim=24
    ).eval()


def convolutional_head() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 7, 3), nn.ReLU(), nn.Conv2d(7, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()


def convnet() -> nn.Module:
    torch.manual_seed(0)
    return small_convnet(3).eval()


NETWORKS = (convnet, distilled, convolutional_head)


@pytest.fixture
def data() -> sm.Dataset:
    x = torch.randn(12, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return sm.from_tensors(x, list(itertools.islice(itertools.cycle((0, 1, 2)), 12)), [0, 1] * 6)


def with_features(model: nn.Module, heads: dict[str, Callable[[Tensor], Tensor]], x: Tensor) -> Tensor:
    """Logits if the inputs of some heads are changed."""
    hooks = [
        model.get_submodule(name).register_forward_pre_hook(lambda _, inputs, change=change: (change(inputs[0]),))
        for name, change in heads.items()
    ]
    with torch.no_grad():
        logits = model(x)
    for hook in hooks:
        hook.remove()
    return logits


def on_channel(index: int, axis: int, value: float) -> Callable[[Tensor], Tensor]:
    def change(features: Tensor) -> Tensor:
        return features.index_fill(axis, torch.tensor([index]), value)

    return change


@pytest.mark.slow
@pytest.mark.parametrize("make", NETWORKS)
def test_zeroing_a_feature_is_a_zero_in_the_input_of_its_head(make: Callable[[], nn.Module], data: sm.Dataset) -> None:
    model, x = make(), data.train.batch().inputs
    for name, site in sites(model, FEATURE).items():
        layer = name.removesuffix(".weight")
        assert site.shape == (model.get_parameter(name).shape[1],)
        axis = 1 if isinstance(model.get_submodule(layer), nn.Conv2d) else -1
        edit = sm.edits.zero(sm.parse_units(model, f"{layer}:5", FEATURE))
        expected = with_features(model, {layer: on_channel(5, axis, 0.0)}, x)
        with torch.no_grad():
            torch.testing.assert_close(sm.edits.edited(model, edit)(x), expected, atol=1e-6, rtol=1e-5)
        after = sm.evaluate(model, [edit], data.train).after
        loss = nn.functional.cross_entropy(expected, torch.tensor(data.y), reduction="none")
        torch.testing.assert_close(torch.from_numpy(after.loss[0]), loss, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("make", NETWORKS)
def test_a_feature_held_at_its_mean(make: Callable[[], nn.Module], data: sm.Dataset) -> None:
    model, x = make(), data.train.batch().inputs
    means = sm.edits.feature_means(model, data.train, batch_size=5)
    for layer, of in means.items():
        axis = 1 if isinstance(model.get_submodule(layer), nn.Conv2d) else -1
        edit = sm.edits.mean(sm.parse_units(model, f"{layer}:2", FEATURE), means)
        expected = with_features(model, {layer: on_channel(2, axis, float(of[2]))}, x)
        with torch.no_grad():
            torch.testing.assert_close(sm.edits.edited(model, edit)(x), expected, atol=1e-5, rtol=1e-4)


def test_the_means_are_those_of_the_features(data: sm.Dataset) -> None:
    model = convnet()
    with torch.no_grad():
        features = model[:-1](data.train.batch().inputs)
    torch.testing.assert_close(sm.edits.feature_means(model, data.train, batch_size=5)["fc"], features.mean(0))


def test_scores_are_those_of_the_columns(data: sm.Dataset) -> None:
    model = convnet()
    weight = model.fc.weight
    torch.testing.assert_close(sm.criteria.weight_norm(model, select=FEATURE)["fc.weight"], weight.detach().norm(dim=0))
    loss = nn.functional.cross_entropy(model(data.train.batch().inputs), torch.tensor(data.y))
    (slope,) = torch.autograd.grad(loss, weight)
    torch.testing.assert_close(sm.criteria.gradient(model, data.train, select=FEATURE)["fc.weight"], slope.norm(dim=0))
    taylor = sm.criteria.taylor(model, data.train, select=FEATURE)["fc.weight"]
    torch.testing.assert_close(taylor, (slope * weight).sum(0).abs().detach())


def test_random_features_stand_beside_features(data: sm.Dataset) -> None:
    model = resnet()
    units = sm.parse_units(model, "fc:3,fc:500", FEATURE)
    for edit in sm.null_sets(model, units, 20):
        assert edit.units.kind == "feature"
        assert len({*edit.units}) == 2
        assert all(name == "fc.weight" and index < 512 for name, index in edit.units)


def test_a_network_without_a_linear_head() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 2, 1), nn.Flatten())
    spectral = nn.Sequential(nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(4, 2)))
    assert [*sites(model, FEATURE)] == ["2.weight"]
    with pytest.raises(sm.UserError, match="has no features in the chosen tensors: it has no linear head"):
        sites(spectral, FEATURE)
