"""A study of a run: what it counts, how it resumes, and what it refuses."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import spurious_memorization as sm
import tiny
from spurious_memorization.engine.outcomes import Engine
from spurious_memorization.study import blocks as blocks_module
from spurious_memorization.study import study as study_module

pytestmark = pytest.mark.filterwarnings("ignore:all .* samples .* are classified correctly", "ignore:only .* controls")

SMALL = {"criterion": ("magnitude", "gradient"), "size": ("1..2",), "controls": 3, "split": ("train", "test")}
MEAN, REWIND = "mean", "rewind:epochs=2"


def small(**changes: Any) -> sm.StudySettings:
    return sm.StudySettings(**{**SMALL, **changes})


@pytest.fixture
def run(trained: sm.Run, tmp_path: Path) -> sm.Run:
    return tiny.copied(trained, tmp_path / "run")


@pytest.fixture(scope="module")
def whole(trained: sm.Run, tmp_path_factory: pytest.TempPathFactory) -> sm.Study:
    """A study with every edit that can be done again by hand. Tests leave it as it is."""
    copy_of_it = tiny.copied(trained, tmp_path_factory.mktemp("study") / "run")
    return sm.study(copy_of_it, small(edit=("zero", MEAN, REWIND)), name="whole")


def edited_by_hand(run: sm.Run, row: Any, means: dict[str, torch.Tensor]) -> nn.Module:
    network = copy.deepcopy(run.network(3))
    older = run.network(1)
    for unit in row.units.split(","):
        name, index = unit.split(":")
        layer, i = getattr(network, name), int(index)
        with torch.no_grad():
            if row.kind == "rewind":
                layer.weight[i] = getattr(older, name).weight[i]
            else:
                layer.weight[i] = 0
            if row.kind == "mean" and layer.bias is None:
                layer.bias = nn.Parameter(torch.zeros(len(layer.weight)))
            if layer.bias is not None:
                put = {"zero": 0.0, "mean": means[name][i], "rewind": getattr(older, name).bias}[row.kind]
                layer.bias[i] = put[i] if row.kind == "rewind" else put
    return network


def means_by_hand(network: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        first = network.conv1(x)
        second = network.conv2(network.relu1(network.bn1(first)))
    return {"conv1": first.mean((0, 2, 3)), "conv2": second.mean((0, 2, 3))}


def test_results_are_what_edited_copies_of_the_network_answer(whole: sm.Study, trained: sm.Run, squares: Path) -> None:
    data = sm.read_data(squares)
    variants, results = whole.variants(), whole.results()
    # 3 rankings (magnitude; gradient on two minority groups) x 2 sizes x 3 edits, each with 3 controls
    assert variants["family"].value_counts().to_dict() == {"selected": 18, "random": 54}
    means = means_by_hand(trained.network(3), data.train.batch().inputs)
    checked = 0
    for split in ("train", "test"):
        samples = data.samples(split)
        batch = samples.batch()
        with torch.no_grad():
            before = trained.network(3)(batch.inputs)
        outcomes = pd.concat([whole.outcomes(split), whole.outcomes(split, "random")])
        for row in variants.itertuples():
            with torch.no_grad():
                after = edited_by_hand(trained, row, means)(batch.inputs)
            stored = outcomes[outcomes["variant"] == row.variant]
            assert stored["sample"].tolist() == samples.index.tolist()
            losses = nn.functional.cross_entropy(after, batch.y, reduction="none").numpy()
            np.testing.assert_allclose(stored["loss"], losses, atol=1e-4, rtol=1e-4)
            counts = results[(results["variant"] == row.variant) & (results["split"] == split)].set_index("group")
            assert counts["subset"].unique().tolist() == ["all"]
            right_before, right_after = ((out.argmax(1) == batch.y).numpy() for out in (before, after))
            for group in range(4):
                here = samples.g == group
                stated = counts.loc[group]
                assert stated["n"] == here.sum()
                assert stated["correct_before"] == right_before[here].sum()
                assert stated["correct_after"] == right_after[here].sum()
                assert stated["became_wrong"] == (right_before & ~right_after)[here].sum()
                assert stated["became_right"] == (~right_before & right_after)[here].sum()
                assert stated["loss_after"] == pytest.approx(losses[here].sum(), rel=1e-3, abs=1e-3)
                checked += 1
    assert checked == 72 * 2 * 4 == len(results)
    assert (results["correct_after"] != results["correct_before"]).any()


def test_effects_are_what_the_results_say(whole: sm.Study, squares: Path) -> None:
    effects, results, variants = whole.effects(), whole.results(), whole.variants()
    assert len(effects) == 18 * 2 * 4
    results["shift"] = (results["correct_after"] - results["correct_before"]) / results["n"]
    named = results.merge(variants[["variant", "family", "selected_set"]], on="variant")
    for row in effects.itertuples():
        here = named[
            (named["selected_set"] == row.selected_set) & (named["split"] == row.split) & (named["group"] == row.group)
        ]
        selected, controls = (here.loc[here["family"] == f, "shift"] for f in ("selected", "random"))
        assert row.shift == row.shift_beside_controls == pytest.approx(selected.item())
        assert (row.control_low, row.control_high) == pytest.approx((controls.min(), controls.max()))
        assert row.n_controls == 3
        assert row.n_as_large == (controls <= selected.item() + 1e-9).sum()
    assert set(effects.loc[effects["minority"], "group_name"]) == {"class 0 with colour 1", "class 1 with colour 0"}
    assert effects["traced_on"].dropna().isin(effects.loc[effects["minority"], "group_name"]).all()


def test_controls_are_of_the_same_tensors_and_nested(whole: sm.Study) -> None:
    variants = whole.variants()
    for _, rows in variants.groupby("selected_set"):
        selected = rows[rows["family"] == "selected"].iloc[0]
        tensors = re.findall(r"([\w.]+):", selected["units"])
        for control in rows.loc[rows["family"] == "random", "units"]:
            assert re.findall(r"([\w.]+):", control) == tensors
            assert control != selected["units"]
    keys = ["criterion", "group", "kind", "control"]
    for _, rows in variants[variants["family"] == "random"].groupby(keys, dropna=False):
        one, two = rows.sort_values("n_units")["units"]
        assert two.startswith(f"{one},")


def test_the_record(whole: sm.Study, trained: sm.Run) -> None:
    record = whole.record
    assert record["epoch"] == 3
    assert record["settings"]["controls"] == 3
    assert [r["group"] for r in record["rankings"]] == [None, "class 0 with colour 1", "class 1 with colour 0"]
    assert record["rankings"][0]["select"]["with_bias"] is True
    assert record["edits"] == ["zero", "mean", "rewind:epochs=2"]
    rankings = list((whole.path.parent.parent / "rankings").glob("*.safetensors"))
    assert len(rankings) == 3


def same(one: sm.Study, two: sm.Study) -> None:
    pd.testing.assert_frame_equal(one.variants(), two.variants())
    pd.testing.assert_frame_equal(one.results(), two.results())
    pd.testing.assert_frame_equal(one.effects(), two.effects())


@pytest.mark.parametrize("lost", ["effects", "results", "outcomes", "rankings", "everything"])
def test_what_was_lost_is_made_again(lost: str, run: sm.Run, whole: sm.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(whole.path, run.path / "studies" / "whole")
    shutil.copytree(whole.path.parent.parent / "rankings", run.path / "rankings")
    here = sm.Study(run.path / "studies" / "whole")
    (here.path / "effects.parquet").unlink()
    networks = []
    original = study_module.engine_for

    def counting(*arguments: object, **named: object) -> Engine:
        engine = original(*arguments, **named)
        run = lambda edits, rows, samples: networks.extend(rows) or engine.run(edits, rows, samples)  # noqa: E731
        return replace(engine, run=run)

    monkeypatch.setattr(study_module, "engine_for", counting)
    match lost:
        case "results":
            (here.path / "results.parquet").unlink()
        case "outcomes":
            for file in ("test_selected_00000", "train_random_00000"):
                (here.path / "outcomes" / f"{file}.parquet").unlink()
        case "rankings":
            shutil.rmtree(run.path / "rankings")
        case "everything":
            shutil.rmtree(here.path)
    same(sm.study(run, small(edit=("zero", MEAN, REWIND)), name="whole"), whole)
    needed = {"outcomes": 19 + 55, "everything": 2 * (19 + 55)}  # those before any edit too
    assert len(networks) == needed.get(lost, 0)


def test_a_broken_block_is_named(run: sm.Run, whole: sm.Study) -> None:
    shutil.copytree(whole.path, run.path / "studies" / "whole")
    (run.path / "studies" / "whole" / "effects.parquet").unlink()
    block = run.path / "studies" / "whole" / "outcomes" / "test_selected_00000.parquet"
    block.write_bytes(block.read_bytes()[:1000])
    with pytest.raises(sm.UserError, match=r"test_selected_00000\.parquet is broken: delete it and run the same"):
        sm.study(run, small(edit=("zero", MEAN, REWIND)), name="whole")


@pytest.mark.parametrize("writes", [1, 2, 4, 6, 7])
def test_killed_midway(writes: int, run: sm.Run, whole: sm.Study) -> None:
    """Killed at the n-th table: variants, four blocks of outcomes, results, effects."""

    def child() -> None:
        original, calls = study_module.write_parquet, []

        def last(file: Path, frame: pd.DataFrame) -> None:
            calls.append(file)
            if len(calls) == writes:
                Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
            original(file, frame)

        study_module.write_parquet = blocks_module.write_parquet = last
        sm.study(run, small(edit=("zero", MEAN, REWIND)), name="whole")

    assert tiny.in_child(child) == -signal.SIGKILL
    assert not sm.Study(run.path / "studies" / "whole").is_complete
    same(sm.study(run, small(edit=("zero", MEAN, REWIND)), name="whole"), whole)


@pytest.mark.parametrize("batch_size", [1, 7])
def test_the_batch_size_changes_no_count(batch_size: int, run: sm.Run, whole: sm.Study) -> None:
    result = sm.study(
        run, small(edit=("zero", MEAN, REWIND)), name="whole", execution=sm.Execution(eval_batch_size=batch_size)
    )
    counts = ["variant", "split", "group", "n", "correct_before", "correct_after", "became_wrong", "became_right"]
    assert result.results()[counts].equals(whole.results()[counts])
    for split in ("train", "test"):
        np.testing.assert_allclose(result.outcomes(split)["loss"], whole.outcomes(split)["loss"], atol=1e-5)


def test_small_blocks_change_nothing(run: sm.Run, whole: sm.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spurious_memorization.engine.outcomes.OUTCOMES_A_BLOCK", 7)
    monkeypatch.setattr("spurious_memorization.engine.outcomes.LEAST_SAMPLES_A_BLOCK", 7)
    monkeypatch.setattr("spurious_memorization.engine.outcomes.EDITS_A_BLOCK", 5)
    result = sm.study(run, small(edit=("zero", MEAN, REWIND)), name="whole")
    assert len(list((result.path / "outcomes").iterdir())) > 50
    counts = ["variant", "split", "group", "n", "correct_before", "correct_after", "became_wrong", "became_right"]
    assert result.results()[counts].equals(whole.results()[counts])
    sums = ["loss_before", "loss_after", "margin_before", "margin_after"]
    np.testing.assert_allclose(result.results()[sums], whole.results()[sums], atol=1e-4)


def test_controls_on_a_subset_are_compared_on_the_same_samples(run: sm.Run, squares: Path, whole: sm.Study) -> None:
    result = sm.study(run, small(per_group=2, edit=("zero",)))
    results, variants = result.results(), result.variants()
    controls = results[results["variant"].isin(variants.loc[variants["family"] == "random", "variant"])]
    assert controls["subset"].unique().tolist() == ["per_group_2"]
    assert controls["n"].unique().tolist() == [2]
    selected = results[~results["variant"].isin(controls["variant"])]
    assert set(selected["subset"]) == {"all", "per_group_2"}
    for split in ("train", "test"):
        random_outcomes, outcomes = result.outcomes(split, "random"), result.outcomes(split)
        used = random_outcomes["sample"].unique()
        data = sm.read_data(squares)
        assert np.bincount(data.g[used], minlength=4).tolist() == [2, 2, 2, 2]
        right = outcomes["predicted"] == data.y[outcomes["sample"]]
        within = outcomes[outcomes["sample"].isin(used)].assign(
            right=right, g=data.g[outcomes["sample"]][outcomes["sample"].isin(used)]
        )
        counted = within.groupby(["variant", "g"])["right"].sum()
        for row in selected[(selected["subset"] == "per_group_2") & (selected["split"] == split)].itertuples():
            assert row.n == 2
            assert row.correct_after == counted[row.variant, row.group]
            assert row.correct_before == counted[-1, row.group]
        before = controls[controls["split"] == split].groupby("group")["correct_before"].unique()
        assert [values.tolist() for values in before] == [[counted[-1, g]] for g in range(4)]
    effects = result.effects()
    assert set(effects.loc[effects["split"] == "train", "n"]) == {4, 16}
    everywhere = whole.effects().query("kind == 'zero'").reset_index(drop=True)
    assert effects["shift"].tolist() == everywhere["shift"].tolist()


def test_the_second_call_reads(run: sm.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    first = sm.study(run, small(), name="once")
    before = {name: (run.path / name).stat().st_mtime_ns for name in tiny.files_below(run.path)}
    monkeypatch.setattr(study_module, "engine_for", lambda *_, **__: pytest.fail("measured again"))
    assert sm.study(run, small(), name="once") == first
    assert before == {name: (run.path / name).stat().st_mtime_ns for name in tiny.files_below(run.path)}
    with pytest.raises(sm.UserError, match=r"study once was made with settings\.controls = 3, not 4"):
        sm.study(run, small(controls=4), name="once")
    assert before == {name: (run.path / name).stat().st_mtime_ns for name in tiny.files_below(run.path)}


def test_without_a_name_other_settings_are_another_study(run: sm.Run) -> None:
    settings = small(criterion=("magnitude",), split=("test",), controls=1)
    one = sm.study(run, settings)
    assert sm.study(run, settings) == one
    assert sm.study(run, settings.model_copy(update={"seed": 1})).path != one.path


def test_several_random_edits_with_repeats(run: sm.Run) -> None:
    settings = small(
        criterion=("magnitude",),
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
    shifts = (rows["correct_after"] - rows["correct_before"]) / rows["n"]
    assert row["shift"] == pytest.approx(shifts.mean())
    assert row["n_controls"] == 3
    again = sm.study(tiny.copied(run, run.path.parent / "again"), settings.model_copy(update={"controls": 2}))
    kept = again.outcomes("train").groupby("variant")["loss"].sum()
    assert kept[noisy["variant"]].tolist() == losses[noisy["variant"]].tolist()  # draws depend on the seed alone


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
        ({"edit": ("mean",), "unit": "weight", "size": ("1",)}, "edit mean is for channels and heads"),
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
        ({"unit": "head"}, "no attention that is known"),
        ({"tensors": ("layer*",)}, "no channels in the chosen tensors"),
        ({"criterion": ("magnitude",), "size": ("1",), "controls": 10**9}, "such as --controls 249999999"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_the_name_free(
    changes: dict[str, Any], said: str, trained: sm.Run, tmp_path: Path
) -> None:
    run = tiny.copied(trained, tmp_path / "run")
    with pytest.raises(sm.UserError, match=re.escape(said)) as caught:
        sm.study(run, small(**changes), name="mine")
    assert "\n" not in str(caught.value)
    assert not (run.path / "studies").exists()
    settings = small(criterion=("magnitude",), size=("1",), controls=0, split=("val",))
    assert sm.study(run, settings, name="mine").is_complete


def test_single_weights_by_fraction(run: sm.Run, trained: sm.Run, squares: Path) -> None:
    result = sm.study(run, small(criterion=("magnitude",), unit="weight", size=("0.5%", "3"), split=("test",)))
    network = trained.network(3)
    weights = torch.cat([network.conv1.weight.flatten(), network.conv2.weight.flatten()]).abs()  # not the head
    n = -(-len(weights) * 5 // 1000)
    selected = result.variants().query("family == 'selected'").set_index("n_units")
    assert set(selected.index) == {n, 3}
    with torch.no_grad():
        threshold = weights.sort(descending=True).values[n - 1]
        for layer in (network.conv1, network.conv2):
            layer.weight[layer.weight.abs() >= threshold] = 0
        samples = sm.read_data(squares).test
        after = network(samples.batch().inputs).argmax(1).numpy() == samples.y
    counts = result.results().query(f"variant == {selected.loc[n, 'variant']}").set_index("group")["correct_after"]
    assert [counts[g] for g in range(4)] == [after[samples.g == g].sum() for g in range(4)]


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


def test_without_controls(run: sm.Run) -> None:
    effects = sm.study(run, small(controls=0, criterion=("random",))).effects()
    assert (effects["n_controls"] == 0).all()
    assert effects["control_low"].isna().all()
    assert effects["shift"].notna().all()


def test_the_papers_preset_is_stored_expanded(run: sm.Run) -> None:
    record = sm.study(run, small(preset="paper", split=("test",), controls=1)).record
    assert [ranking["select"]["with_bias"] for ranking in record["rankings"]] == [False] * 5
    assert {ranking["loss"] for ranking in record["rankings"][1:]} == {"cross_entropy_on_probabilities"}
    assert record["loss"] == "cross_entropy_on_probabilities"
    assert not record["threshold_everywhere"]
    groups = [ranking["group"] for ranking in record["rankings"]]
    assert groups == [None, *(f"class {y} with colour {a}" for y in (0, 1) for a in (0, 1))]
    assert record["rankings"][0]["select"]["exclude"] == ["*bn*", "*downsample*", "*fc*"]
    assert record["rankings"][1]["select"]["exclude"] == []
    weights = small(
        preset="paper", criterion=("magnitude",), unit="weight", size=("1%",), edit=("random_noise:std=0.1",),
        split=("test",), controls=1, repeats=1,
    )  # fmt: skip
    result = sm.study(run, weights)
    assert result.record["edits"] == ["random_noise:std=0.1,noise=uniform"]
    assert result.record["threshold_everywhere"]
    assert json.loads(result.variants()["parameters"].iloc[0]) == {"std": 0.1, "noise": "uniform"}


def test_a_moved_and_a_changed_data_set(run: sm.Run, squares: Path, tmp_path: Path, whole: sm.Study) -> None:
    record = json.loads((run.path / "run.json").read_text())
    record["data"]["folder"] = str(tmp_path / "gone")
    (run.path / "run.json").write_text(json.dumps(record))
    with pytest.raises(sm.UserError, match="is gone: name its new place with --data DIR"):
        sm.study(sm.Run(run.path), small())
    moved = tmp_path / "moved"
    shutil.copytree(squares, moved)
    result = sm.study(sm.Run(run.path), small(edit=("zero", MEAN, REWIND)), name="whole", data_folder=moved)
    same(result, whole)
    (moved / "train_0_00.png").unlink()
    with pytest.raises(sm.UserError, match="are not those that"):
        sm.study(sm.Run(run.path), small(), data_folder=moved)


def test_three_classes_and_four_colours(tmp_path: Path) -> None:
    data = tiny.make_pictures(tmp_path / "data", classes=3, attributes=4, train=20)
    run = sm.train(data, tmp_path / "run", sm.TrainSettings(**{**tiny.QUICK, "epochs": 1, "batch_size": 20}))
    result = sm.study(run, small(controls=2, edit=("zero", "rewind:epochs=1"), size=("1",)))
    read = sm.read_data(data)
    assert len(read.groups) == 12
    assert len(read.minority) == 6
    assert len(run.history().query("epoch == 1 and split == 'test'")) == 12
    effects = result.effects()
    assert set(effects["group"]) == set(range(12))
    assert set(effects["traced_on"].dropna()) == {read.groups.names[g] for g in read.minority}


@pytest.mark.parametrize("unit", ["head", "channel"])
def test_a_vision_transformer(unit: str, tmp_path: Path) -> None:
    data = tiny.make_pictures(tmp_path / "data", size=32, train=5)
    run = sm.train(data, tmp_path / "run", sm.TrainSettings(model="vit_tiny_patch16_224", epochs=0, batch_size=10))
    settings = small(
        criterion=("gradient",), group=("class 0 with colour 1",), unit=unit, size=("2",), controls=1, split=("test",),
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
