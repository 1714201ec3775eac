"""A study of a run: what it counts, how it resumes, and what it refuses."""

from __future__ import annotations

import copy
import json
import math
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

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
from spurious_memorization.study.norms import folded_norms
from spurious_memorization.study.verdicts import answers, memorisation, selectivity
from test_verdicts import in_a_loop

pytestmark = pytest.mark.filterwarnings("ignore:all .* samples .* are classified correctly", "ignore:only .* controls")

SMALL = {"criterion": ("magnitude", "gradient"), "size": ("1..2",), "controls": 3, "split": ("train", "test")}
MEAN, REWIND, NOISE = "mean", "rewind:epochs=2", "random_noise:std=0.5"
MINORITY = ("class 0 with colour 1", "class 1 with colour 0")


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


def every_outcome(study: sm.Study, split: str) -> pd.DataFrame:
    """Outcomes of all parts of a split, with the part's name."""
    files = (study.path / "outcomes").glob(f"{split}_*_00000.parquet")
    parts = sorted(file.name.removeprefix(f"{split}_").removesuffix("_00000.parquet") for file in files)
    return pd.concat([study.outcomes(split, part).assign(part=part) for part in parts], ignore_index=True)


def measured_halves(variants: pd.DataFrame) -> dict[int, set[int]]:
    """Halves of the samples on which each variant must be measured: selected units on those that they were not
    selected on, controls where one of the sets that they are compared with is."""
    selected = variants[variants["family"] == "selected"]
    own = {row.variant: {0, 1} if row.fold == -1 else {1 - row.fold} for row in selected.itertuples()}
    of_pool: dict[int, set[int]] = {}
    for row in selected[selected["pool"] >= 0].itertuples():
        of_pool.setdefault(row.pool, set()).update(own[row.variant])
    controls = variants[variants["family"] == "random"]
    return own | {row.variant: of_pool[row.pool] for row in controls.itertuples()}


def test_the_plan(whole: sm.Study) -> None:
    """Criteria that look at samples select on all samples, to be shown, and on each half, to be tested."""
    variants = whole.variants()
    assert variants["variant"].tolist() == list(range(len(variants)))
    selected = variants[variants["family"] == "selected"]
    folds = selected.groupby(["criterion", "group"], dropna=False)["fold"].unique()
    assert {key: sorted(values) for key, values in folds.items() if key[0] == "gradient"} == {
        ("gradient", group): [-1, 0, 1] for group in MINORITY
    }
    magnitude = selected[selected["criterion"] == "magnitude"]
    assert (magnitude["fold"] == -1).all()
    assert (magnitude["pool"] >= 0).all()
    assert ((selected["fold"] == -1) == (selected["pool"] == -1))[selected["criterion"] == "gradient"].all()
    # 3 rankings (magnitude; gradient on two minority groups) x 2 sizes x 3 edits
    assert selected["selected_set"].nunique() == 18
    assert len(selected) == 6 + 3 * 12
    assert selected.groupby("selected_set")[["criterion", "size", "kind", "parameters"]].nunique().eq(1).all(axis=None)
    controls = variants[variants["family"] == "random"]
    assert set(controls["pool"]) == set(selected["pool"]) - {-1}
    assert controls.groupby(["pool", "size", "kind"]).size().eq(3).all()
    assert len(controls) == 18 * controls["pool"].nunique()
    assert (controls["selected_set"] == -1).all()
    tested = selected[selected["pool"] >= 0]
    assert tested[["norm_ratio", "same_tensor"]].notna().all(axis=None)
    assert variants.drop(tested.index)[["norm_ratio", "same_tensor"]].isna().all(axis=None)


def test_units_are_selected_on_one_half(whole: sm.Study, trained: sm.Run, squares: Path) -> None:
    data, network = sm.read_data(squares), trained.network(3)
    for row in whole.variants().query("family == 'selected' and kind == 'zero'").itertuples():
        if row.criterion == "magnitude":
            scores = sm.magnitude(network)
        else:
            samples = data.train.of_half(None if row.fold == -1 else row.fold, 0)
            scores = sm.gradient(network, sm.worst(network, samples, row.group, 200))
        assert row.units == str(sm.top(scores, int(row.size)))


def test_results_are_what_edited_copies_of_the_network_answer(whole: sm.Study, trained: sm.Run, squares: Path) -> None:
    data = sm.read_data(squares)
    variants, results = whole.variants(), whole.results()
    halves, where = data.halves(0), measured_halves(whole.variants())
    means = means_by_hand(trained.network(3), data.train.batch().inputs)
    checked = 0
    for split in ("train", "test"):
        samples = data.samples(split)
        batch = samples.batch()
        with torch.no_grad():
            before = trained.network(3)(batch.inputs)
        outcomes = every_outcome(whole, split)
        for row in variants.itertuples():
            with torch.no_grad():
                after = edited_by_hand(trained, row, means)(batch.inputs)
            stored = outcomes[outcomes["variant"] == row.variant]
            half = sorted(where[row.variant])
            assert stored["part"].unique().tolist() == [f"{row.family}_{half[0]}" if len(half) == 1 else row.family]
            measured = np.isin(halves[samples.index], half)
            assert stored["sample"].tolist() == samples.index[measured].tolist()
            losses = nn.functional.cross_entropy(after, batch.y, reduction="none").numpy()
            np.testing.assert_allclose(stored["loss"], losses[measured], atol=1e-4, rtol=1e-4)
            counts = results[(results["variant"] == row.variant) & (results["split"] == split)]
            assert counts["subset"].unique().tolist() == ["all"]
            counts = counts.set_index(["half", "group"])
            assert sorted({h for h, _ in counts.index}) == half
            right_before, right_after = ((out.argmax(1) == batch.y).numpy() for out in (before, after))
            for h, group in counts.index:
                here = (samples.g == group) & (halves[samples.index] == h)
                stated = counts.loc[(h, group)]
                assert stated["n"] == here.sum()
                assert stated["correct_before"] == right_before[here].sum()
                assert stated["correct_after"] == right_after[here].sum()
                assert stated["became_wrong"] == (right_before & ~right_after)[here].sum()
                assert stated["became_right"] == (~right_before & right_after)[here].sum()
                assert stated["loss_after"] == pytest.approx(losses[here].sum(), rel=1e-3, abs=1e-3)
                checked += 1
    assert checked == sum(map(len, where.values())) * 2 * 4 == len(results)
    assert (results["correct_after"] != results["correct_before"]).any()


class ByHand(NamedTuple):
    """What a study's outcomes say about one selected set on one split: drops and margins of samples by units that were
    selected without them, and the drop of each control on each group."""

    drop: np.ndarray
    margin: np.ndarray
    margin_drop: np.ndarray
    shown: np.ndarray
    controls: dict[int, list[float]]


def by_hand(study: sm.Study, data: sm.Dataset, selected_set: int, split: str, used: np.ndarray | None) -> ByHand:
    """Arguments: `used`: samples on which controls were measured; all if not given."""
    variants, halves, samples = study.variants(), data.halves(0), data.samples(split)
    outcomes = every_outcome(study, split)
    outcomes["right"] = outcomes["predicted"] == data.y[outcomes["sample"]]
    tables = {
        name: outcomes.drop_duplicates(["variant", "sample"]).pivot(index="sample", columns="variant", values=name)
        for name in ("right", "margin")
    }
    right, margin = (tables[name].loc[samples.index].astype(float) for name in tables)
    rows = variants[variants["selected_set"] == selected_set]
    tested = rows[rows["pool"] >= 0] if (rows["pool"] >= 0).any() else rows[rows["fold"] == -1]
    drop, margin_drop = np.full(len(samples), np.nan), np.full(len(samples), np.nan)
    for fold, repeats in tested.groupby("fold"):
        here = (halves[samples.index] == 1 - fold) | (fold == -1)
        drop[here] = right[-1][here] - right[repeats["variant"]][here].mean(axis=1)
        margin_drop[here] = margin[-1][here] - margin[repeats["variant"]][here].mean(axis=1)
    pools = {fold: repeats["pool"].iloc[0] for fold, repeats in tested.groupby("fold")}
    own = rows.iloc[0]
    of_pool = {}
    for fold, pool in pools.items():
        chosen = variants[(variants["family"] == "random") & (variants["pool"] == pool)]
        chosen = chosen[(chosen["size"] == own["size"]) & (chosen["kind"] == own["kind"])]
        chosen = chosen[chosen["parameters"] == own["parameters"]]
        of_pool[fold] = {
            k: r["variant"].tolist() for k, r in chosen.groupby("control") if r["variant"].iloc[0] in right
        }
    complete = set.intersection(*(set(controls) for controls in of_pool.values()))
    found: dict[int, list[float]] = {g: [] for g in range(len(data.groups))}
    inside = np.ones(len(samples), bool) if used is None else np.isin(samples.index, used)
    for k in sorted(complete):
        of_control = np.full(len(samples), np.nan)
        for fold in pools:
            here = ((halves[samples.index] == 1 - fold) | (fold == -1)) & inside
            of_control[here] = right[-1][here] - right[of_pool[fold][k]][here].mean(axis=1)
        for g, drops in found.items():
            here = inside & (samples.g == g)
            drops.append(of_control[here].mean() if here.any() else np.nan)
    shown = right[-1] - right[rows.loc[rows["fold"] == -1, "variant"]].mean(axis=1)
    return ByHand(drop, margin[-1].to_numpy(), margin_drop, shown.to_numpy(), found)


def check_effects(study: sm.Study, data: sm.Dataset, *, per_group: int | None = None) -> None:
    """Every column of effects.parquet from the outcomes alone: p by counting, the adjusted one by a plain loop."""
    effects, halves = study.effects(), data.halves(0)
    splits = effects["split"].unique().tolist()
    family = ["criterion", "traced_on", "kind", "parameters", "split"]
    for (*_, split), rows in effects.groupby(family, dropna=False):
        samples = data.samples(split)
        used = samples.index if per_group is None else samples.per_group(per_group, 0).index
        hand = {number: by_hand(study, data, number, split, used) for number in rows["selected_set"].unique()}
        drops, nulls = [], []
        for row in rows.itertuples():
            own, member = hand[row.selected_set], samples.g == row.group
            inside = member & np.isin(samples.index, used)
            drops.append(own.drop[inside].mean() if inside.any() else np.nan)
            nulls.append(own.controls[row.group])
        least = min(map(len, nulls))
        adjusted = (
            in_a_loop(np.array(drops), np.array([null[:least] for null in nulls]).T) if least else [np.nan] * len(rows)
        )
        for row, drop, null, p_adjusted in zip(rows.itertuples(), drops, nulls, adjusted, strict=True):
            own, member = hand[row.selected_set], samples.g == row.group
            assert row.shift == pytest.approx(-own.shown[member].mean())
            assert row.shift_beside_controls == pytest.approx(-drop)
            assert row.n == member.sum()
            assert row.n_controls == len(null)
            if null:
                assert (-row.control_high, -row.control_low) == pytest.approx((min(null), max(null)))
                as_large = sum(value >= drop - 1e-9 for value in null[:least])
                assert row.n_as_large == sum(value >= drop - 1e-9 for value in null)
                assert row.p == pytest.approx((1 + as_large) / (1 + least))
                assert row.p_adjusted == pytest.approx(p_adjusted)
            else:
                assert math.isnan(row.p)
                assert math.isnan(row.p_adjusted)
            chosen = contrast = None
            if row.group in data.minority:
                label = data.groups.label_of(row.group)
                majority = [g for g in data.majority if data.groups.label_of(g) == label]
                asked = member | np.isin(samples.g, majority)
                half = halves[samples.index][asked]
                chosen = selectivity(own.drop[asked], member[asked], own.margin[asked], half)
                stated = (row.difference, row.p_selective, row.overlap)
                assert stated == pytest.approx((chosen.difference, chosen.p, chosen.overlap), nan_ok=True)
            if split == "train":
                new = [
                    by_hand(study, data, row.selected_set, other, None).margin_drop[data.samples(other).g == row.group]
                    for other in splits
                    if other != "train"
                ]
                contrast = memorisation(own.margin_drop[member], np.concatenate([[], *new]))
                stated = (row.contrast, row.contrast_low, row.contrast_high)
                assert stated == pytest.approx((contrast.value, contrast.low, contrast.high), nan_ok=True, abs=1e-5)
                assert row.n_unseen == contrast.n_unseen
            else:
                assert math.isnan(row.contrast)
            told = answers(drop, row.p_adjusted, row.n_controls, row.norm_ratio, chosen, contrast)
            assert (row.influential, row.selective, row.memorising) == (
                told.influential,
                told.selective,
                told.memorising,
            )
            assert row.verdict == told.verdict
            assert told.reason in row.reason
            assert row.reason or (row.verdict != "no verdict" and (row.selective is not None or not row.minority))


@pytest.fixture(scope="module")
def wide(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> sm.Run:
    """A network wide enough for verdicts, trained until it knows the samples. Tests leave it as it is."""
    settings = {**tiny.QUICK, "model": "tiny_networks:wide_convnet", "epochs": 6, "augment": False}
    return sm.train(squares, tmp_path_factory.mktemp("wide") / "run", sm.TrainSettings(**settings))


@pytest.fixture(scope="module")
def tested(wide: sm.Run, tmp_path_factory: pytest.TempPathFactory) -> sm.Study:
    """A study with verdicts. Tests leave it as it is."""
    run = tiny.copied(wide, tmp_path_factory.mktemp("tested") / "run")
    return sm.study(run, small(controls=29, split=("train", "val", "test"), edit=("zero", NOISE), repeats=2))


def test_effects_are_what_the_outcomes_say(whole: sm.Study, tested: sm.Study, squares: Path) -> None:
    data = sm.read_data(squares)
    check_effects(whole, data)
    effects = whole.effects()
    assert len(effects) == 18 * 2 * 4
    assert (effects["verdict"] == "no verdict").all()
    assert effects["reason"].str.contains("3 controls: 19 are needed").all()
    assert set(effects.loc[effects["minority"], "group_name"]) == set(MINORITY)
    assert set(effects["traced_on"].dropna()) == set(MINORITY)
    check_effects(tested, data)
    effects = tested.effects()
    assert len(effects) == 3 * 2 * 2 * 3 * 4
    assert set(effects["verdict"]) - {"no verdict"}
    assert (effects["p_adjusted"] >= effects["p"]).all()
    assert (effects["controls_on"] == "all").all()
    # what the group of a train row looks like on unseen samples: all of val and test
    assert (effects.loc[effects["split"] == "train", "n_unseen"] == 6).all()
    assert effects.loc[effects["split"] != "train", "memorising"].isna().all()
    assert effects.loc[(effects["split"] == "train"), "memorising"].notna().all()


def test_a_set_selected_on_one_half_is_measured_on_the_other(tested: sm.Study, squares: Path) -> None:
    data, variants = sm.read_data(squares), tested.variants().set_index("variant")
    halves = data.halves(0)
    for split in ("train", "val", "test"):
        for half in (0, 1):
            part = tested.outcomes(split, f"selected_{half}")
            assert (halves[part["sample"]] == half).all()
            numbers = part.loc[part["variant"] >= 0, "variant"].unique()
            assert (variants.loc[numbers, "fold"] == 1 - half).all()
            assert (variants.loc[numbers, "criterion"] == "gradient").all()
        assert (variants.loc[tested.outcomes(split)["variant"].drop_duplicates().iloc[1:], "fold"] == -1).all()
    results = tested.results().merge(variants["fold"], left_on="variant", right_index=True)
    assert (results["half"] != results["fold"]).all()


@pytest.mark.parametrize("study", ["whole", "tested"])
def test_controls_are_matched_nested_and_shared(study: str, request: pytest.FixtureRequest, wide: sm.Run) -> None:
    stored: sm.Study = request.getfixturevalue(study)
    variants = stored.variants()
    controls, selected = (variants[variants["family"] == family] for family in ("random", "selected"))
    for _, rows in controls.groupby(["pool", "kind", "parameters", "control", "repeat"]):
        one, two = rows.sort_values("n_units")["units"]
        assert two.startswith(f"{one},")
    for _, rows in controls.groupby(["pool", "control", "size"]):
        assert rows["units"].nunique() == 1  # the same ones for every edit and repeat
    digests = {row.variant: row.digest for row in selected.itertuples()}
    for pool, rows in controls.groupby("pool"):
        members = selected[selected["pool"] == pool]
        largest = members[members["n_units"] == members["n_units"].max()]
        tensors = {tuple(re.findall(r"([\w.]+):", units)) for units in largest["units"]}
        assert len(tensors) == 1  # rankings that share their controls have the same tensors
        own = {unit for units in members["units"] for unit in units.split(",")}
        for units in rows["units"]:
            assert not own & set(units.split(","))
        for _, of_size in rows[rows["repeat"] == 0].groupby(["size", "kind"]):
            drawn = [units.split(",") for units in of_size["units"]]
            for position in zip(*drawn, strict=True):
                assert len(set(position)) == len(position)
    assert len(digests) == len(selected)
    edits = variants.set_index("variant")
    assert edits.loc[selected["variant"], "matched_to"].isna().all()
    assert controls["matched_to"].notna().all()
    assert not controls["matched_to"].isin(controls["digest"]).any()


def test_norm_ratios_of_a_study(tested: sm.Study, wide: sm.Run) -> None:
    """The median over controls of their root-mean-square folded norm, over that of the selected units; in effects the
    one furthest from 1 of both halves."""
    network = wide.network(6)
    norms = folded_norms(network)

    def loud(units: str) -> float:
        values = [float(norms[f"{name}.weight"][int(i)]) for name, i in (u.split(":") for u in units.split(","))]
        return math.sqrt(sum(value**2 for value in values) / len(values))

    variants, effects = tested.variants(), tested.effects().set_index("selected_set")
    controls = variants[(variants["family"] == "random") & (variants["repeat"] == 0)]
    for number, rows in variants[variants["pool"] >= 0].query("family == 'selected'").groupby("selected_set"):
        stated = []
        for row in rows.itertuples():
            drawn = controls[(controls["pool"] == row.pool) & (controls["kind"] == row.kind)]
            # of the longest set of the pool
            drawn = drawn[drawn["n_units"] == 2]["units"]
            longest = variants[
                (variants["criterion"] == row.criterion)
                & ((variants["group"] == row.group) | (pd.isna(row.group) & variants["group"].isna()))
                & (variants["fold"] == row.fold)
                & (variants["n_units"] == 2)
            ]["units"].iloc[0]
            ratio = np.median([loud(units) for units in drawn]) / loud(longest)
            assert row.norm_ratio == pytest.approx(ratio)
            stated.append(ratio)
        assert effects.loc[number, "norm_ratio"].unique() == pytest.approx(max(stated, key=lambda r: abs(math.log(r))))


def test_the_record(whole: sm.Study, trained: sm.Run) -> None:
    record = whole.record
    assert record["epoch"] == 3
    assert record["settings"]["controls"] == 3
    assert [r["group"] for r in record["rankings"]] == [None, "class 0 with colour 1", "class 1 with colour 0"]
    assert record["rankings"][0]["select"]["with_bias"] is True
    assert record["edits"] == ["zero", "mean", "rewind:epochs=2"]
    rankings = list((whole.path.parent.parent / "rankings").glob("*.safetensors"))
    assert len(rankings) == 3 + 2 * 2  # those of each half too


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
