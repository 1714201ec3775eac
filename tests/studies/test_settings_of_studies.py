"""What each setting of a study does."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from study_oracle import (
    MEAN,
    REWIND,
    check_effects,
    same,
    small,
)
from torch import nn

import spurious_memorization as sm

pytestmark = pytest.mark.filterwarnings("ignore:all .* samples .* are classified correctly", "ignore:only .* null sets")


@pytest.mark.slow
def test_several_random_edits_with_repeats(run: sm.Run) -> None:
    settings = small(
        criterion=("weight_norm",),
        edit=("zero", "random_noise:std=0.5", "random_init:std=0.5"),
        repeats=3,
        split=("train",),
    )
    result = sm.study(run, settings)
    variants = result.variants()
    selected = variants[variants["family"] == "selected"]
    assert selected.groupby("kind")["repeat"].nunique().to_dict() == {"random_init": 3, "random_noise": 3, "zero": 1}
    noisy = selected[(selected["kind"] == "random_noise") & (selected["n_units"] == 1)]
    assert noisy["selected_set"].nunique() == 1
    assert noisy["seed"].nunique() == 3
    losses = result.outcomes("train").groupby("variant")["loss"].sum()
    assert losses[noisy["variant"]].nunique() == 3  # each repeat has its own draws
    row = result.effects().query("kind == 'random_noise' and size == '1' and group == 0").iloc[0]
    rows = result.results()[result.results()["variant"].isin(noisy["variant"]) & (result.results()["group"] == 0)]
    accuracy_changes = (rows["correct_after"] - rows["correct_before"]) / rows["n"]
    assert row["accuracy_change"] == pytest.approx(accuracy_changes.mean())
    assert row["n_controls"] == 3
    again = sm.study(tiny.copied(run, run.path.parent / "again"), settings.model_copy(update={"controls": 2}))
    kept = again.outcomes("train").groupby("variant")["loss"].sum()
    assert kept[noisy["variant"]].tolist() == losses[noisy["variant"]].tolist()  # draws depend on the seed alone


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"edit": ("rewind:epochs=4",)}, "rewind by 4 epochs from epoch 3 needs the checkpoint of epoch -1"),
        ({"size": ("21",)}, "size 21: the network has 20 channels here: choose from 1 to 20"),
        ({"size": ("1%",)}, "fractions are for weights"),
        ({"size": ("0",)}, "at least one unit"),
        ({"size": ("few",)}, "write 1..3, 5 or, for weights, 0.1%"),
        ({"size": ("101%",), "unit": "weight"}, "over 100 %"),
        ({"size": ("100000",), "unit": "weight"}, "size 100000"),
        ({"edit": ("mean",), "unit": "weight", "size": ("1",)}, "edit mean is for channels, heads and features"),
        ({"edit": ("erase",)}, "unknown edit 'erase'"),
        ({"edit": ("random_noise",)}, "needs a number std"),
        ({"edit": ()}, "no edit is given"),
        ({"split": ("training",)}, "unknown split 'training'"),
        ({"split": ()}, "no split is given"),
        ({"criterion": ("size",)}, "unknown criterion 'size'"),
        ({"criterion": ()}, "no criterion is given"),
        ({"criterion": ("gradient",), "group": ("class 7",)}, "no group 'class 7'"),
        ({"epoch": "12"}, "no checkpoint of epoch '12'"),
        ({"units": ("conv9:1",)}, "no tensor 'conv9'"),
        ({"units": ("conv1:8",)}, "8 is too large"),
        ({"unit": "head"}, "no attention whose heads are known"),
        ({"tensors": ("layer*",)}, "no channels in the chosen tensors"),
        (
            {"size": ("1",), "edit": ("random_noise:std=1",), "controls": 10**5, "repeats": 10**7},
            "the 260,000,000 edited networks of this study need 39.0 GB of memory, and ",
        ),
    ],
)
def test_what_does_not_fit_is_an_error_and_leaves_the_name_free(
    changes: dict[str, Any], said: str, trained: sm.Run, tmp_path: Path
) -> None:
    run = tiny.copied(trained, tmp_path / "run")
    with pytest.raises(sm.UserError, match=re.escape(said)) as caught:
        sm.study(run, small(**changes), name="mine")
    assert "\n" not in str(caught.value)
    assert not (run.path / "studies").exists()
    settings = small(criterion=("weight_norm",), size=("1",), controls=0, split=("val",))
    assert sm.study(run, settings, name="mine").is_complete


def test_single_weights_by_fraction(run: sm.Run, trained: sm.Run, squares: Path) -> None:
    result = sm.study(run, small(criterion=("weight_norm",), unit="weight", size=("0.5%", "3"), split=("test",)))
    network = trained.network(3)
    weights = torch.cat([network.conv1.weight.flatten(), network.conv2.weight.flatten()]).abs()  # not the head
    n = -(-len(weights) * 5 // 1000)
    selected = result.variants().query("family == 'selected'").set_index("n_units")
    assert sorted(selected.index) == [3, n]
    with torch.no_grad():
        threshold = weights.sort(descending=True).values[n - 1]
        for layer in (network.conv1, network.conv2):
            layer.weight[layer.weight.abs() >= threshold] = 0
        samples = sm.read_data(squares).test
        after = network(samples.batch().inputs).argmax(1).numpy() == samples.y
    counts = result.results().query(f"variant == {selected.loc[n, 'variant']}").groupby("group")["correct_after"].sum()
    assert [counts[g] for g in range(4)] == [after[samples.g == g].sum() for g in range(4)]


@pytest.mark.slow
def test_single_weights_that_a_sample_based_criterion_selects(run: sm.Run, squares: Path) -> None:
    """Both halves may select weights of the same tensors or of others: they share a pool all the same."""
    settings = small(
        criterion=("tiny_criteria:drawn_weights",),
        unit="weight",
        size=("1",),
        split=("test",),
        group=("0", "1", "2", "3"),
    )
    result = sm.study(run, settings)
    variants = result.variants()
    tested = variants[(variants["family"] == "selected") & (variants["pool"] >= 0)]
    assert tested.groupby("group")["pool"].nunique().eq(1).all()
    assert len(tested) == 2 * tested["pool"].nunique()
    check_effects(result, sm.read_data(squares))


@pytest.mark.slow
def test_stated_units(run: sm.Run, trained: sm.Run, squares: Path) -> None:
    result = sm.study(run, small(units=("conv2:3", "conv1:0"), size=("1",), split=("train",)))
    variants = result.variants()
    assert variants.query("family == 'selected'")["units"].tolist() == ["conv2:3,conv1:0"]
    assert variants.query("family == 'selected'")["criterion"].tolist() == ["given"]
    assert not (run.path / "rankings").exists()
    network = trained.network(3)
    with torch.no_grad():
        for layer, i in ((network.conv2, 3), (network.conv1, 0)):
            layer.weight[i] = 0
            if layer.bias is not None:
                layer.bias[i] = 0
        samples = sm.read_data(squares).train
        after = network(samples.batch().inputs).argmax(1).numpy() == samples.y
    effects = result.effects().set_index("group")
    for g in range(4):
        assert effects.loc[g, "accuracy_after"] == pytest.approx(after[samples.g == g].mean())


@pytest.mark.slow
def test_without_controls(run: sm.Run, squares: Path) -> None:
    """Nothing is tested: no halves, no verdicts, and accuracy changes all the same."""
    result = sm.study(run, small(controls=0, criterion=("random", "gradient")))
    variants, effects = result.variants(), result.effects()
    assert (variants["family"] == "selected").all()
    assert (variants["fold"] == -1).all()
    assert (variants["pool"] == -1).all()
    assert (effects["n_controls"] == 0).all()
    assert effects[["control_low", "p", "p_adjusted", "p_beyond_norm", "norm_ratio"]].isna().all(axis=None)
    assert effects["accuracy_change"].notna().all()
    assert (effects["verdict"] == "no verdict").all()
    assert effects["reason"].str.contains("0 null sets").all()
    check_effects(result, sm.read_data(squares))


@pytest.mark.slow
def test_the_papers_preset_is_stored_expanded(run: sm.Run) -> None:
    record = sm.study(run, small(preset="paper", split=("test",), controls=1)).record
    assert [ranking["select"]["with_bias"] for ranking in record["rankings"]] == [False] * 5
    assert {ranking["loss"] for ranking in record["rankings"][1:]} == {"cross_entropy_on_probabilities"}
    assert record["loss"] == "cross_entropy_on_probabilities"
    assert not record["threshold_everywhere"]
    groups = [ranking["group"] for ranking in record["rankings"]]
    assert groups == [None, *(f"class {y} with color {a}" for y in (0, 1) for a in (0, 1))]
    assert record["rankings"][0]["select"]["exclude"] == ["*bn*", "*downsample*", "*fc*"]
    assert record["rankings"][1]["select"]["exclude"] == []
    weights = small(
        preset="paper", criterion=("weight_norm",), unit="weight", size=("1%",), edit=("random_noise:std=0.1",),
        split=("test",), controls=1, repeats=1,
    )  # fmt: skip
    result = sm.study(run, weights)
    assert result.record["edits"] == ["random_noise:std=0.1,noise=uniform"]
    assert result.record["threshold_everywhere"]
    assert json.loads(result.variants()["parameters"].iloc[0]) == {"std": 0.1, "noise": "uniform"}


@pytest.mark.slow
def test_a_moved_and_a_changed_data_set(run: sm.Run, squares: Path, tmp_path: Path, whole: sm.Study) -> None:
    record = json.loads((run.path / "run.json").read_text())
    record["data"]["folder"] = str(tmp_path / "gone")
    (run.path / "run.json").write_text(json.dumps(record))
    with pytest.raises(sm.UserError, match="does not exist: give its new place with --data DIR"):
        sm.study(sm.Run(run.path), small())
    moved = tmp_path / "moved"
    shutil.copytree(squares, moved)
    result = sm.study(sm.Run(run.path), small(edit=("zero", MEAN, REWIND)), name="whole", data_folder=moved)
    same(result, whole)
    (moved / "train_0_00.png").unlink()
    with pytest.raises(sm.UserError, match="does not hold the data that"):
        sm.study(sm.Run(run.path), small(), data_folder=moved)


@pytest.mark.slow
def test_three_classes_and_four_colors(tmp_path: Path) -> None:
    data = tiny.make_images(tmp_path / "data", classes=3, attributes=4, train=20)
    settings = {**tiny.QUICK, "epochs": 2, "batch_size": 20, "model": "tiny_networks:wide_convnet"}
    run = sm.train(data, tmp_path / "run", sm.TrainSettings(**settings))
    result = sm.study(run, small(controls=19, edit=("zero", "rewind:epochs=1"), size=("1",)))
    read = sm.read_data(data)
    assert len(read.groups) == 12
    assert len(read.minority) == 6
    assert len(run.history().query("epoch == 1 and split == 'test'")) == 12
    effects = result.effects()
    assert set(effects["group"]) == set(range(12))
    assert set(effects["traced_on"].dropna()) == {read.groups.names[g] for g in read.minority}
    check_effects(result, read)
    assert set(effects["verdict"]) - {"no verdict"}
    untold = effects["verdict"].eq("no verdict") | (effects["minority"] & effects["selective"].isna())
    assert (effects.loc[untold, "reason"] != "").all()
    absent = set(range(12)) - set(read.train.g)
    assert not absent & set(effects.loc[effects["split"] == "train", "group"])


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["head", pytest.param("channel", marks=pytest.mark.slow)])
def test_a_vision_transformer(unit: str, tmp_path: Path) -> None:
    data = tiny.make_images(tmp_path / "data", size=32, train=5)
    run = sm.train(data, tmp_path / "run", sm.TrainSettings(model="vit_tiny_patch16_224", epochs=0, batch_size=10))
    settings = small(
        criterion=("gradient",), group=("class 0 with color 1",), unit=unit, size=("2",), controls=1, split=("test",),
        edit=("zero", "mean"),
    )  # fmt: skip
    result = sm.study(run, settings)
    row = result.variants().query("family == 'selected' and kind == 'zero'").iloc[0]
    assert row["n_units"] == 2
    network = run.network(0)
    with torch.no_grad():
        for part in row["units"].split(","):
            name, index = part.split(":")
            if unit == "head":
                qkv = network.get_submodule(name).qkv
                for block in range(3):
                    rows = slice(block * 192 + int(index) * 64, block * 192 + (int(index) + 1) * 64)
                    qkv.weight[rows], qkv.bias[rows] = 0, 0
            else:
                layer = network.get_submodule(name)
                layer.weight[int(index)], layer.bias[int(index)] = 0, 0
        samples = sm.read_data(data).test
        losses = nn.functional.cross_entropy(network(samples.batch().inputs), samples.batch().y, reduction="none")
    stored = result.outcomes("test").query(f"variant == {row['variant']}")["loss"]
    np.testing.assert_allclose(stored, losses, atol=1e-4)
