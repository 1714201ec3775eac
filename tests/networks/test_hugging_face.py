"""Networks of the transformers library: logits and inputs are the library's own, and nothing is guessed in silence."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import spurious_memorization as sm
from spurious_memorization.datasets.transforms import ImageTransform
from spurious_memorization.networks import hugging_face
from spurious_memorization.networks.build import NetworkSettings, build, build_pretrained, own_transform
from spurious_memorization.networks.head import head_names

transformers = pytest.importorskip("transformers")

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
OPTIONS: dict[str, dict[str, Any]] = {
    "vit": {**SMALL, "image_size": 32, "patch_size": 16},
    "bert": {**SMALL, "vocab_size": 30},
}
PROCESSORS: dict[str, dict[str, Any]] = {
    "BeitImageProcessor": {"size": {"height": 40, "width": 40}, "do_center_crop": False},
    "BitImageProcessor": {"size": {"shortest_edge": 48}, "crop_size": {"height": 40, "width": 40}},
    "ConvNextImageProcessor": {"size": {"shortest_edge": 56}},
    "DeiTImageProcessor": {"size": {"height": 48, "width": 48}, "crop_size": {"height": 40, "width": 40}},
    "MobileViTImageProcessor": {"size": {"shortest_edge": 48}, "crop_size": {"height": 40, "width": 40}},
    "ViTImageProcessor": {"size": {"height": 40, "width": 40}, "rescale_factor": 1 / 128, "resample": 1},
}


@pytest.fixture
def saved(tmp_path: Path) -> Any:
    """Writes a small network with random weights; gives it and its folder."""

    def save(kind: str, n_classes: int = 3, **options: Any) -> tuple[Any, Path]:
        config = transformers.AutoConfig.for_model(kind, num_labels=n_classes, **OPTIONS[kind], **options)
        of_images = "image_size" in OPTIONS[kind]
        auto = (
            transformers.AutoModelForImageClassification
            if of_images
            else transformers.AutoModelForSequenceClassification
        )
        torch.manual_seed(1)
        model = auto.from_config(config).eval()
        model.save_pretrained(tmp_path / kind)
        return model, tmp_path / kind

    return save


def settings(folder: Path, n_classes: int = 3, **others: Any) -> NetworkSettings:
    return NetworkSettings(model=f"hf:{folder}", n_classes=n_classes, **others).with_configuration()


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [
        ("vit", {"pixel_values": torch.randn(2, 3, 32, 32)}),
        ("bert", {"input_ids": torch.arange(8).reshape(2, 4), "attention_mask": torch.tensor([[1] * 4, [1, 1, 1, 0]])}),
    ],
)
def test_logits_are_the_librarys(saved: Any, kind: str, inputs: dict[str, Any], capsys: Any) -> None:
    theirs, folder = saved(kind)
    ours, has_head = build_pretrained(settings(folder))
    assert has_head
    with torch.no_grad():
        assert torch.equal(ours.eval()(**inputs).logits, theirs(**inputs).logits)
    said = capsys.readouterr().err
    assert f"{kind}, a classifier of {'images' if kind == 'vit' else 'text'}" in said


def test_names_of_the_outputs_are_shown(saved: Any, capsys: Any) -> None:
    _, folder = saved("vit", id2label={0: "owl", 1: "gull", 2: "tern"}, label2id={"owl": 0, "gull": 1, "tern": 2})
    build_pretrained(settings(folder))
    assert "0 is 'owl', 1 is 'gull', 2 is 'tern'" in capsys.readouterr().err


def test_a_head_of_other_classes_starts_at_random(saved: Any, capsys: Any) -> None:
    theirs, folder = saved("vit")
    ours, has_head = build_pretrained(settings(folder, n_classes=5))
    assert not has_head
    assert "classifier.weight start at random" in capsys.readouterr().err
    own, before = ours.state_dict(), theirs.state_dict()
    assert own["classifier.weight"].shape == (5, 16)
    body = [name for name in before if not name.startswith("classifier.")]
    assert body
    assert all(torch.equal(own[name], before[name]) for name in body)


def test_a_network_is_built_again_without_its_folder(saved: Any) -> None:
    theirs, folder = saved("vit")
    network = settings(folder)
    again = NetworkSettings.model_validate_json(network.model_dump_json())
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    ours = build(again, theirs.state_dict())
    assert head_names(ours) == ("classifier",)
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())


def test_image_size_is_the_users(saved: Any) -> None:
    _, folder = saved("vit")
    model = build(settings(folder, image_size=48))
    assert model(torch.randn(2, 3, 48, 48)).logits.shape == (2, 3)
    with pytest.raises(sm.UserError, match=r"another shape.*position_embeddings.*--image-size"):
        build_pretrained(settings(folder, image_size=48))


@pytest.mark.parametrize("kind", PROCESSORS)
def test_inputs_are_those_of_the_image_processor(saved: Any, kind: str, capsys: Any) -> None:
    _, folder = saved("vit")
    processor = getattr(transformers, kind)(**PROCESSORS[kind])
    processor.save_pretrained(folder)
    transform = own_transform(settings(folder))
    pixels = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((130, 90))
    theirs = processor(image, return_tensors="pt")["pixel_values"][0]
    ours = transform.normalized([np.array(transform.evaluation()(image)).transpose(2, 0, 1)])[0]
    gray_levels = (ours - theirs).abs() * torch.tensor(transform.std)[:, None, None] * 255
    assert gray_levels.max() <= 3
    assert gray_levels.mean() <= 0.5
    assert "differ" not in capsys.readouterr().err


def test_colors_are_reversed_in_training_too() -> None:
    red = Image.new("RGB", (20, 20), (255, 0, 0))
    transform = ImageTransform(image_size=8, resize=8, mean=(0, 0, 0), std=(1, 1, 1), bgr=True)
    blue_last = torch.tensor([0.0, 0.0, 1.0])
    assert torch.equal(transform.training()(red).mean((1, 2)), blue_last)
    assert torch.equal(transform.normalized([np.array(red).transpose(2, 0, 1)[:, :8, :8]])[0].mean((1, 2)), blue_last)


def test_a_processor_that_does_more_is_said(saved: Any, capsys: Any) -> None:
    _, folder = saved("vit")
    transformers.EfficientNetImageProcessor(
        size={"height": 40, "width": 40}, crop_size={"height": 40, "width": 40}, rescale_offset=True
    ).save_pretrained(folder)
    own_transform(settings(folder))
    assert "it does more than resize, crop and normalize" in capsys.readouterr().err


def test_transform_without_a_processor(saved: Any, capsys: Any) -> None:
    _, folder = saved("vit")
    assert own_transform(settings(folder)).image_size == 32
    assert "has no image processor" in capsys.readouterr().err


def test_mistakes_have_one_line(saved: Any, tmp_path: Path) -> None:
    theirs, folder = saved("vit")
    with pytest.raises(sm.UserError, match="there is no folder"):
        settings(tmp_path / "nothing")
    with pytest.raises(sm.UserError, match="no configuration that transformers can read"):
        settings(tmp_path)
    network = settings(folder)
    (folder / "model.safetensors").unlink()
    assert build(network).config.num_labels == 3
    torch.save(theirs.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(sm.UserError, match=r"model.safetensors, or --weights none"):
        build_pretrained(network)
    save_file({"other": torch.zeros(1)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(sm.UserError, match="of another network"):
        build_pretrained(network)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "sam"}))
    with pytest.raises(sm.UserError, match="no classifier of images or text"):
        settings(folder)
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "mine", "auto_map": {"AutoConfig": "x.C"}}))
    (folder / "x.py").write_text("raise SystemExit")
    with pytest.raises(sm.UserError, match="no configuration that transformers can read"):
        settings(folder)


def test_what_is_missing_is_named_with_its_install_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(sm.UserError, match=r"pip install 'spurious-memorization\[transformers\]'"):
        hugging_face.configuration(f"hf:{tmp_path}")


def test_training_and_its_run(saved: Any, tmp_path: Path, squares: Path) -> None:
    theirs, folder = saved("vit", n_classes=2)
    run = sm.train(squares, tmp_path / "run", sm.TrainSettings(model=f"hf:{folder}", epochs=1, image_size=32))
    assert run.record.trained_start
    assert run.record.settings["weights"] == "pretrained"
    start = run.state(0)
    assert start.keys() == theirs.state_dict().keys()
    assert all(torch.equal(value, start[name]) for name, value in theirs.state_dict().items())
    assert run.network(1).config.model_type == "vit"
