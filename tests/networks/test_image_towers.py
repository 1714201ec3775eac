"""Image towers of open_clip: embeddings, inputs and effects of edits are those of the library and of plain hooks."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny import QUICK, spurmem
from torch import Tensor, nn

import spurious_memorization as sm
from spurious_memorization.networks.build import NetworkSettings, build, build_pretrained, own_transform
from spurious_memorization.networks.head import head_names

open_clip = pytest.importorskip("open_clip")
from tiny_clip import CONFIG, TOWERS, make_clip  # noqa: E402

SIZES = {name: tower["image_size"] for name, tower in TOWERS.items()}


def settings(name: Path | str, n_classes: int = 3, **others: Any) -> NetworkSettings:
    return NetworkSettings(model=f"open_clip:{name}", n_classes=n_classes, **others).with_configuration()


@pytest.fixture
def tagged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An architecture `tiny` that open_clip knows, with weights of the tag `mine`. They were trained with QuickGELU."""
    model = make_clip(tmp_path / "tagged", quick_gelu=True)
    own = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "interpolation": "bilinear", "resize_mode": "squash"}
    file = str(tmp_path / "tagged" / "open_clip_model.safetensors")
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", CONFIG)
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny", {"mine": {**own, "quick_gelu": True, "file": file}})
    return model


@pytest.mark.parametrize("tower", TOWERS)
def test_logits_are_the_head_of_encoded_images(tower: str, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip", tower)
    ours, has_head = build_pretrained(settings(tmp_path / "clip"))
    images = torch.randn(4, 3, SIZES[tower], SIZES[tower])
    with torch.no_grad():
        expected = ours.head(clip.encode_image(images))
        assert torch.allclose(ours.eval()(images), expected, atol=1e-6)
    assert not has_head
    assert head_names(ours) == ("head",)


def test_weights_of_a_tag_bring_their_activation_and_transform(tagged: Any) -> None:
    network = settings("tiny:mine")
    ours, _ = build_pretrained(network)
    images = torch.randn(4, 3, 16, 16)
    with torch.no_grad():
        assert torch.allclose(ours.eval()(images), ours.head(tagged.encode_image(images)), atol=1e-6)
    transform = own_transform(network)
    assert (transform.mean, transform.interpolation, transform.keep_aspect) == ((0.1, 0.2, 0.3), "bilinear", False)


def test_a_tower_is_built_again_without_its_folder(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip")
    network = settings(tmp_path / "clip")
    (tmp_path / "clip").rename(tmp_path / "gone")
    ours = build(NetworkSettings.model_validate_json(network.model_dump_json()))
    assert {f"visual.{name}" for name in clip.visual.state_dict()} == ours.state_dict().keys() - {
        "head.weight",
        "head.bias",
    }


@pytest.mark.parametrize("mode", ["shortest", "squash"])
def test_inputs_are_those_of_open_clip(mode: str, tmp_path: Path) -> None:
    make_clip(tmp_path / "clip", resize_mode=mode)
    _, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path / 'clip'}")
    pixels = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((130, 90))
    transform = own_transform(settings(tmp_path / "clip"))
    ours = transform.normalized([np.array(transform.evaluation()(image)).transpose(2, 0, 1)])[0]
    assert torch.allclose(ours, preprocess(image), atol=1e-5)


def without_channel(channel: int, axis: int) -> Any:
    """A hook that zeroes a channel of a module's output, or of the first of its outputs."""

    def hook(_module: nn.Module, _inputs: object, output: Any) -> Any:
        first = output[0] if isinstance(output, tuple) else output
        changed = first.index_fill(axis, torch.tensor([channel]), 0)
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    return hook


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tower", "unit", "module", "axis"),
    [
        ("vit", "visual.transformer.resblocks.0.mlp.c_fc:5", "visual.transformer.resblocks.0.mlp.c_fc", -1),
        ("vit", "visual.transformer.resblocks.0.attn.out_proj:7", "visual.transformer.resblocks.0.attn", -1),
        ("vit", "visual.conv1:3", "visual.conv1", 1),
        ("resnet", "visual.layer2.0.conv2:6", "visual.layer2.0.conv2", 1),
        ("resnet", "visual.attnpool.c_proj:2", "visual.attnpool", -1),
    ],
)
def test_effects_of_single_channels_are_those_of_hooks(
    tower: str, unit: str, module: str, axis: int, tmp_path: Path
) -> None:
    make_clip(tmp_path / "clip", tower)
    model = build_pretrained(settings(tmp_path / "clip"))[0].eval()
    images = torch.randn(6, 3, SIZES[tower], SIZES[tower], generator=torch.Generator().manual_seed(1))
    y = np.arange(6) % 3
    data = sm.from_tensors(images, y, y % 2)
    result = sm.evaluate(model, sm.edits.zero(sm.parse_units(model, unit)), data.train)
    with model.get_submodule(module).register_forward_hook(without_channel(int(unit.rpartition(":")[2]), axis)):
        expected = margins(model, images, torch.from_numpy(y))
    assert result.engine == "shared prefix"
    assert np.allclose(result.after.margin[0], expected, atol=1e-4)
    assert np.abs(result.after.margin[0] - result.before.margin).max() > 1e-4


@torch.no_grad()
def margins(model: nn.Module, images: Tensor, y: Tensor) -> np.ndarray:
    logits = model(images)
    own = logits.gather(1, y[:, None])[:, 0]
    others = logits.scatter(1, y[:, None], -torch.inf).max(1).values
    return (own - others).numpy()


@pytest.mark.parametrize(
    ("tower", "name"), [("vit", "visual.transformer.resblocks.0.attn"), ("resnet", "visual.attnpool")]
)
def test_zeroing_a_head_removes_its_part_of_attention(tower: str, name: str, tmp_path: Path) -> None:
    """Without its queries, keys and values a head gives zeros, which the output layer reads in the head's columns."""
    make_clip(tmp_path / "clip", tower)
    model = build_pretrained(settings(tmp_path / "clip"))[0].eval()
    units = sm.parse_units(model, f"{name}:1", sm.Selection(unit="head"))
    edited = sm.edits.edited(model, sm.edits.zero(units))
    attention = model.get_submodule(name)
    out = attention.out_proj if tower == "vit" else attention.c_proj
    half = out.in_features // 2
    with torch.no_grad():
        out.weight[:, half:] = 0
        images = torch.randn(4, 3, SIZES[tower], SIZES[tower])
        assert torch.allclose(edited(images), model(images), atol=1e-5)


@pytest.mark.parametrize("tower", ["vit", "resnet"])
def test_every_criterion_scores_every_unit(tower: str, tmp_path: Path) -> None:
    make_clip(tmp_path / "clip", tower)
    model = build_pretrained(settings(tmp_path / "clip"))[0].eval()
    y = np.arange(8) % 3
    batch = sm.from_tensors(torch.randn(8, 3, SIZES[tower], SIZES[tower]), y, y % 2).train
    for unit in ("channel", "head", "weight"):
        select = sm.Selection(unit=unit)
        for criterion in (sm.criteria.weight_norm, sm.criteria.gradient, sm.criteria.taylor):
            scores = criterion(model, batch, select=select)
            assert all(of.isfinite().all() for of in scores.values())
            assert sum(of.sum() for of in scores.values()) > 0


@pytest.mark.parametrize("form", ["whole", "tower", "distributed"])
def test_a_training_starts_from_the_tower_in_a_file(form: str, tmp_path: Path, squares: Path, capsys: Any) -> None:
    clip = make_clip(tmp_path / "clip")
    file = tmp_path / ("weights.safetensors" if form == "tower" else "weights.pt")
    if form == "tower":
        save_file(clip.visual.state_dict(), file)
    elif form == "whole":
        torch.save(clip.state_dict(), file)
    else:
        state = {f"module.{name}": value for name, value in clip.state_dict().items()}
        torch.save({"epoch": 3, "name": "mine", "state_dict": state}, file)
    config = sm.TrainSettings(**{**QUICK, "model": f"open_clip:{tmp_path / 'clip'}", "weights": str(file), "epochs": 1})
    run = sm.train(squares, tmp_path / "run", config)
    start = run.state(0)
    assert all(torch.equal(start[f"visual.{name}"], value) for name, value in clip.visual.state_dict().items())
    assert not run.record.trained_start
    (decided,) = run.record.weights
    assert not decided.head_loaded
    assert decided.prefix == ("module." if form == "distributed" else "")
    assert ("tensors left out" in capsys.readouterr().err) == (form != "tower")


def test_commands_take_a_tower(tagged: Any, tmp_path: Path, squares: Path, capsys: Any) -> None:
    data = shutil.copytree(squares, tmp_path / "data")
    (data / "dataset.yaml").unlink()  # so that the transform is the tower's own
    flags = ["--epochs=1", "--batch-size=8", "--out", tmp_path / "run"]
    printed = spurmem(capsys, "train", data, "--model=open_clip:tiny:mine", *flags)
    assert printed.status == 0
    run = sm.Run(tmp_path / "run")
    assert run.record.settings["weights"] == "pretrained"
    assert torch.equal(run.state(0)["visual.proj"], tagged.visual.proj)
    assert "mean 0.1 0.2 0.3" in printed.err
    printed = spurmem(capsys, "trace", run.path, "--criterion=weight_norm", "--unit=head")
    assert printed.status == 0
    assert "visual.transformer.resblocks.0.attn" in printed.out


@pytest.mark.slow
def test_attention_is_studied_and_reported(tagged: Any, tmp_path: Path, squares: Path, capsys: Any) -> None:
    """Its outputs can't be seen, since the network reads its weights without calling it: so it has no top images."""
    run = tmp_path / "run"
    spurmem(capsys, "train", squares, "--model=open_clip:tiny:mine", "--epochs=1", "--out", run)
    study = ["study", run, "--criterion=weight_norm", "--tensors=*attn*", "--size=2", "--controls=3", "--name=mine"]
    assert spurmem(capsys, *study, "--edit=zero", "--epoch=last").status == 0
    units = sm.Study(run / "studies" / "mine").variants()["units"]
    assert units.str.contains("in_proj_weight:").any()
    assert spurmem(capsys, "report", run).status == 0
    error = spurmem(capsys, *study[:-1], "--name=other", "--edit=mean", "--epoch=last").error
    assert "attn.in_proj_weight are missing" in error or "attn.out_proj are missing" in error
    assert "leave it out with exclude (--exclude)" in error


def test_mistakes_have_one_line(tagged: Any, tmp_path: Path, squares: Path, capsys: Any) -> None:
    def error(model: str, *flags: str) -> str:
        return spurmem(capsys, "train", squares, f"--model=open_clip:{model}", *flags, "--out", tmp_path / "run").error

    assert "no architecture 'ViT-B-31' (close are ViT-B-32" in error("ViT-B-31")
    assert "there are no weights 'other': open_clip has mine" in error("tiny:other")
    assert "name some, as in open_clip:tiny:mine" in error("tiny", "--weights=pretrained")
    (tmp_path / "empty").mkdir()
    assert "open_clip_config.json" in error(str(tmp_path / "empty"))
    make_clip(tmp_path / "clip")
    weights = tmp_path / "clip" / "open_clip_model.safetensors"
    weights.write_bytes(b"broken")
    for size, remedy in ((16, ""), (64, "use the tower's own --image-size 16, ")):
        message = error(str(tmp_path / "clip"), f"--image-size={size}")
        assert f"): {remedy}give a file with --weights FILE, or --weights none" in message
        assert "can't be loaded" in message
    weights.unlink()
    no_weights = error(str(tmp_path / "clip"), "--image-size=64")
    assert "clip has no weights: put open_clip_config.json and the weights (.safetensors, .bin, .pth)" in no_weights
    other = tmp_path / "other.pt"
    torch.save({"conv1.weight": torch.zeros(3)}, other)
    assert "of another architecture" in error(str(tmp_path / "clip"), f"--weights={other}")
    config = {"model_cfg": {**CONFIG, "vision_cfg": {"layer": 3}}}
    (tmp_path / "clip" / "open_clip_config.json").write_text(json.dumps(config))
    assert "can't be built from its configuration" in error(str(tmp_path / "clip"))
    (tmp_path / "clip" / "open_clip_config.json").write_text("{")
    assert "can't be read" in error(str(tmp_path / "clip"))


def test_what_is_missing_is_named_with_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(sm.UserError, match=r"pip install 'spurious-memorization\[clip\]'"):
        settings("ViT-B-32")
