"""A network's own transform is timm's, pixel for pixel, and an image size changes nothing else of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import yaml
from own_data import folder
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch import Tensor

import spurious_memorization as sm
from spurious_memorization.datasets.sources import Images
from spurious_memorization.datasets.transforms import ImageTransform
from spurious_memorization.networks import build
from spurious_memorization.networks.build import NetworkSettings, own_transform, with_own_transform

VIT = NetworkSettings(model="test_vit", n_classes=2)


def timm_config(name: str) -> dict[str, Any]:
    config: dict[str, Any] = resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    return config


def different_configs() -> dict[tuple[Any, ...], str]:
    """One network for every crop mode, crop, interpolation and size that timm has, but for huge and unequal sides."""
    found = {}
    for name in timm.list_pretrained():
        config = timm_config(name)
        channels, height, width = config["input_size"]
        if height == width <= 400 and channels == 3:
            found[tuple(config[key] for key in ("crop_mode", "crop_pct", "interpolation")), width] = name
    return found


def inputs(image: Image.Image, transform: ImageTransform) -> Tensor:
    return transform.normalized([np.array(transform.evaluation()(image)).transpose(2, 0, 1)])[0]


def test_pixels_are_timms() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 11, 3), dtype=np.uint8)
    wide = Image.fromarray(pixels).resize((211, 123))
    configs = different_configs()
    assert {mode for (mode, _, _), _ in configs} == {"center", "squash", "border"}
    assert {interpolation for (_, _, interpolation), _ in configs} == {"bilinear", "bicubic"}
    assert len(configs) > 50
    for name in configs.values():
        theirs = create_transform(**timm_config(name), is_training=False)(wide)
        ours = inputs(wide, own_transform(NetworkSettings(model=name, n_classes=2)))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize(
    "changes",
    [
        {"interpolation": "nearest", "crop_pct": 0.93},
        {"interpolation": "lanczos", "crop_pct": 1.15},
        {"interpolation": "bicubic", "crop_pct": 1.15, "crop_mode": "squash"},
        {"interpolation": "bilinear", "crop_pct": 0.9, "crop_mode": "border"},
        {"mean": None, "std": None, "interpolation": "", "crop_pct": None, "crop_mode": None},
    ],
)
@pytest.mark.parametrize("shape", [(90, 40), (33, 71)])
def test_pixels_are_timms_for_configurations_of_ones_own(
    changes: dict[str, Any], shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = timm.get_pretrained_cfg("test_vit")
    monkeypatch.setattr(build, "_pretrained_config", lambda _: type(config)(**{**vars(config), **changes}))
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8))
    resolved = resolve_data_config(pretrained_cfg={**config.to_dict(), **changes})
    theirs = create_transform(**resolved, is_training=False)(image)
    torch.testing.assert_close(inputs(image, own_transform(VIT)), theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_size": (1, 28, 28), "mean": (0.5,), "std": (0.5,)}, "1 channels"),
        ({"input_size": (3, 64, 32)}, "64 x 32: give a square's side with --image-size"),
        ({"interpolation": "random"}, "'random': write another interpolation"),
    ],
)
def test_transforms_without_an_equal_here_are_refused(
    changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = timm.get_pretrained_cfg("test_vit")
    monkeypatch.setattr(build, "_pretrained_config", lambda _: type(config)(**{**vars(config), **changes}))
    with pytest.raises(sm.UserError, match=message):
        own_transform(VIT)


def chosen(place: Path, network: NetworkSettings, **options: Any) -> ImageTransform:
    source = with_own_transform(sm.read_data(place, **options), network).source
    assert isinstance(source, Images)
    assert source.transform is not None
    return source.transform


def test_image_size_changes_only_the_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = chosen(folder(tmp_path), VIT)
    assert (own.mean, own.interpolation, own.image_size) == ((0.5, 0.5, 0.5), "bicubic", 160)
    assert chosen(tmp_path, VIT, image_size=160) == own
    small = chosen(tmp_path, VIT, image_size=64)
    assert small == own.model_copy(update={"image_size": 64, "resize": int(64 / 0.95)})
    assert "transform: of test_vit (mean 0.5 0.5 0.5, std 0.5 0.5 0.5, bicubic" in capsys.readouterr().err


def test_a_factory_takes_an_image_size_alone(tmp_path: Path) -> None:
    network = NetworkSettings(model="mine:net", n_classes=2)
    assert chosen(folder(tmp_path), network, image_size=20) == ImageTransform(image_size=20, resize=20)
    with pytest.raises(sm.UserError, match="mine:net has no image size: give --image-size"):
        chosen(tmp_path, network)


def test_entries_of_dataset_yaml_win(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = {"mean": [0.1, 0.2, 0.3], "interpolation": "lanczos"}
    (folder(tmp_path) / "dataset.yaml").write_text(yaml.safe_dump(given))
    own = own_transform(VIT)
    with_entries = own.model_copy(update={"mean": (0.1, 0.2, 0.3), "interpolation": "lanczos"})
    assert chosen(tmp_path, VIT) == with_entries
    assert chosen(tmp_path, VIT, image_size=160) == with_entries
    assert "of test_vit, with interpolation, mean of dataset.yaml" in capsys.readouterr().err
    (tmp_path / "dataset.yaml").write_text(yaml.safe_dump({**given, "image_size": 16, "resize": 20}))
    complete = chosen(tmp_path, VIT, image_size=32)
    assert complete == ImageTransform(image_size=32, resize=40, mean=(0.1, 0.2, 0.3), interpolation="lanczos")
