"""A study of a run: what it counts, how it resumes, and what it refuses."""

from __future__ import annotations

import copy
import json
import math
import os
import re
import shutil
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from max_statistic import step_down
from torch import nn

import spurious_memorization as sm
from spurious_memorization.controls.norms import folded_norms
from spurious_memorization.datasets.pseudo_minority import with_pseudo_minority
from spurious_memorization.engine.outcomes import Engine
from spurious_memorization.statistics.intervals import difference_of_means
from spurious_memorization.statistics.permutation import selectivity
from spurious_memorization.statistics.verdicts import answer_questions
from spurious_memorization.studies import pipeline as study_module
from spurious_memorization.studies import store as store_module

pytestmark = pytest.mark.filterwarnings("ignore:all .* samples .* are classified correctly", "ignore:only .* controls")

SMALL = {"criterion": ("weight_norm", "gradient"), "size": ("1..2",), "controls": 3, "split": ("train", "test")}
MEAN, REWIND, NOISE = "mean", "rewind:epochs=2", "random_noise:std=0.5"
MINORITY = ("class 0 with color 1", "class 1 with color 0")


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
    weight_norm = selected[selected["criterion"] == "weight_norm"]
    assert (weight_norm["fold"] == -1).all()
    assert (weight_norm["pool"] >= 0).all()
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
        if row.criterion == "weight_norm":
            scores = sm.criteria.weight_norm(network)
        else:
            samples = data.train.of_half(None if row.fold == -1 else row.fold, 0)
            scores = sm.criteria.gradient(network, sm.hardest_samples(network, samples, row.group, 200))
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
    variants, samples = study.variants(), data.samples(split)
    halves = data.halves(study.record["settings"]["seed"])
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
        chosen = chosen[chosen["variant"].isin(right.columns)]
        of_pool[fold] = {k: repeats["variant"].tolist() for k, repeats in chosen.groupby("control")}
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
    effects, seed = study.effects(), study.record["settings"]["seed"]
    halves = data.halves(seed)
    splits = effects["split"].unique().tolist()
    family = ["criterion", "traced_on", "kind", "parameters", "split"]
    for (*_, split), rows in effects.groupby(family, dropna=False):
        samples = data.samples(split)
        used = samples.index if per_group is None else samples.per_group(per_group, seed).index
        hand = {number: by_hand(study, data, number, split, used) for number in rows["selected_set"].unique()}
        drops, nulls = [], []
        for row in rows.itertuples():
            own, member = hand[row.selected_set], samples.g == row.group
            inside = member & np.isin(samples.index, used)
            drops.append(own.drop[inside].mean() if inside.any() else np.nan)
            nulls.append(own.controls[row.group])
        least = min(map(len, nulls))
        asked = [q for q, drop in enumerate(drops) if not np.isnan([drop, *nulls[q][:least]]).any()]
        adjusted = np.full(len(rows), np.nan)
        if least:
            null_drops = np.array([nulls[q][:least] for q in asked]).T
            adjusted[asked] = step_down(np.array(drops)[asked], null_drops)
        for row, drop, null, p_adjusted in zip(rows.itertuples(), drops, nulls, adjusted, strict=True):
            own, member = hand[row.selected_set], samples.g == row.group
            assert row.accuracy_change == pytest.approx(-own.shown[member].mean())
            assert row.tested_accuracy_change == pytest.approx(-drop)
            assert row.n == member.sum()
            assert row.n_controls == len(null)
            if null:
                assert (-row.control_high, -row.control_low) == pytest.approx((min(null), max(null)))
                as_large = sum(value >= drop - 1e-9 for value in null[:least])
                assert row.n_controls_as_large == sum(value >= drop - 1e-9 for value in null)
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
                is_halved = (study.variants().query("selected_set == @row.selected_set")["fold"] >= 0).any()
                half = halves[samples.index][asked] if is_halved else np.zeros(asked.sum(), int)
                chosen = selectivity(-own.drop[asked], member[asked], own.margin[asked], half, seed=seed)
                stated = (row.difference, row.p_selective, row.overlap)
                assert stated == pytest.approx((chosen.difference, chosen.p, chosen.overlap), nan_ok=True)
            if split == "train":
                new = [
                    by_hand(study, data, row.selected_set, other, None).margin_drop[data.samples(other).g == row.group]
                    for other in splits
                    if other != "train"
                ]
                contrast = difference_of_means(own.margin_drop[member], np.concatenate([[], *new]))
                stated = (row.contrast, row.contrast_low, row.contrast_high)
                assert stated == pytest.approx((contrast.value, contrast.low, contrast.high), nan_ok=True, abs=1e-5)
                assert row.n_unseen == contrast.n_second
            else:
                assert math.isnan(row.contrast)
            told = answer_questions(
                -drop,
                row.p_adjusted,
                n_controls=row.n_controls,
                norm_ratio=row.norm_ratio,
                selective=chosen,
                contrast=contrast,
            )
            words = (row.influential, row.selective, row.memorizing, row.verdict)
            assert words == (told.influential, told.selective, told.memorizing, told.verdict)
            assert told.reason in row.reason or "two halves of the group" in row.reason
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
    assert effects["reason"].str.contains("3 controls: at least 19 are needed").all()
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
    assert effects.loc[effects["split"] != "train", "memorizing"].isna().all()
    assert effects.loc[(effects["split"] == "train"), "memorizing"].notna().all()


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
            drawn = drawn[drawn["n_units"] == row.n_units]["units"]
            ratio = np.median([loud(units) for units in drawn]) / loud(row.units)
            assert row.norm_ratio == pytest.approx(ratio)
            stated.append(ratio)
        assert effects.loc[number, "norm_ratio"].unique() == pytest.approx(max(stated, key=lambda r: abs(math.log(r))))


def test_the_record(whole: sm.Study, trained: sm.Run) -> None:
    record = whole.record
    assert record["epoch"] == 3
    assert record["settings"]["controls"] == 3
    assert [r["group"] for r in record["rankings"]] == [None, "class 0 with color 1", "class 1 with color 0"]
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
    networks: list[int] = []
    original = study_module.engine_for
    blocks = sorted((here.path / "outcomes").iterdir())
    rows = {file: pd.read_parquet(file)["variant"].nunique() for file in blocks}  # that before any edit too
    lost_blocks = blocks[::3]

    def counting(*arguments: object, **named: object) -> Engine:
        engine = original(*arguments, **named)
        run = lambda edits, rows, samples: networks.extend(rows) or engine.run(edits, rows, samples)  # noqa: E731
        return replace(engine, run=run)

    monkeypatch.setattr(study_module, "engine_for", counting)
    match lost:
        case "results":
            (here.path / "results.parquet").unlink()
        case "outcomes":
            for file in lost_blocks:
                file.unlink()
        case "rankings":
            shutil.rmtree(run.path / "rankings")
        case "everything":
            shutil.rmtree(here.path)
    same(sm.study(run, small(edit=("zero", MEAN, REWIND)), name="whole"), whole)
    needed = {"outcomes": sum(rows[file] for file in lost_blocks), "everything": sum(rows.values())}
    assert len(networks) == needed.get(lost, 0)


def test_a_broken_block_is_named(run: sm.Run, whole: sm.Study) -> None:
    shutil.copytree(whole.path, run.path / "studies" / "whole")
    (run.path / "studies" / "whole" / "effects.parquet").unlink()
    block = run.path / "studies" / "whole" / "outcomes" / "test_selected_00000.parquet"
    block.write_bytes(block.read_bytes()[:1000])
    with pytest.raises(sm.UserError, match=r"test_selected_00000\.parquet is broken: delete it and run the same"):
        sm.study(run, small(edit=("zero", MEAN, REWIND)), name="whole")


@pytest.mark.parametrize("kills", [(4,), pytest.param(range(1, 100), marks=pytest.mark.slow)])
def test_killed_midway(kills: Sequence[int], trained: sm.Run, tmp_path: Path) -> None:
    """Killed at one table, or at each: variants, blocks of outcomes (selected on all and on each half, controls),
    results, agreement, effects. What is made of the rest is bitwise the same."""
    settings = small(criterion=("gradient",), group=(MINORITY[0],), size=("1",), split=("test",))
    whole = sm.study(tiny.copied(trained, tmp_path / "run"), settings, name="once")
    tables = [name for name in tiny.files_below(whole.path) if name.endswith(".parquet")]
    assert len(tables) >= 4 + 4
    for writes in kills[: len(tables)]:
        run = tiny.copied(trained, tmp_path / f"run_{writes}")
        assert tiny.in_child(killed_at(writes, run, settings)) == -signal.SIGKILL
        study = sm.Study(run.path / "studies" / "once")
        assert not study.is_complete
        left = {file: file.stat().st_mtime_ns for file in (study.path / "outcomes").glob("*_0*.parquet")}
        assert len(left) == min(max(writes - 2, 0), len(tables) - 4)
        sm.study(run, settings, name="once")
        assert all(file.stat().st_mtime_ns == time for file, time in left.items())
        kept = tiny.files_below(whole.path)
        assert kept <= tiny.files_below(study.path)
        for name in kept:
            assert (study.path / name).read_bytes() == (whole.path / name).read_bytes(), name


def killed_at(writes: int, run: sm.Run, settings: sm.StudySettings) -> Callable[[], None]:
    """A study that is killed when it writes its n-th table."""

    def child() -> None:
        original, calls = store_module.write_parquet, []

        def last(file: Path, frame: pd.DataFrame) -> None:
            calls.append(file)
            if len(calls) == writes:
                Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
            original(file, frame)

        store_module.write_parquet = last
        sm.study(run, settings, name="once")

    return child


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
    monkeypatch.setattr("spurious_memorization.engine.outcomes.MIN_SAMPLES_A_BLOCK", 7)
    monkeypatch.setattr("spurious_memorization.engine.outcomes.EDITS_A_BLOCK", 5)
    result = sm.study(run, small(edit=("zero", MEAN, REWIND)), name="whole")
    assert len(list((result.path / "outcomes").iterdir())) > 50
    counts = ["variant", "split", "group", "n", "correct_before", "correct_after", "became_wrong", "became_right"]
    assert result.results()[counts].equals(whole.results()[counts])
    sums = ["loss_before", "loss_after", "margin_before", "margin_after"]
    np.testing.assert_allclose(result.results()[sums], whole.results()[sums], atol=1e-4)


def test_controls_on_a_subset_are_compared_on_the_same_samples(run: sm.Run, squares: Path, whole: sm.Study) -> None:
    result, data = sm.study(run, small(per_group=2, edit=("zero",))), sm.read_data(squares)
    check_effects(result, data, per_group=2)
    results, variants = result.results(), result.variants()
    controls = results[results["variant"].isin(variants.loc[variants["family"] == "random", "variant"])]
    assert controls["subset"].unique().tolist() == ["per_group_2"]
    selected = results[~results["variant"].isin(controls["variant"])]
    assert set(selected["subset"]) == {"all", "per_group_2"}
    where = measured_halves(variants)
    for (variant, split, subset), rows in results.groupby(["variant", "split", "subset"]):
        samples = data.samples(split)
        samples = samples if subset == "all" else samples.per_group(2, 0)
        counted = np.isin(data.halves(0)[samples.index], list(where[variant]))
        assert rows.groupby("group")["n"].sum().tolist() == np.bincount(samples.g[counted], minlength=4).tolist()
    for split in ("train", "test"):
        outcomes = every_outcome(result, split)
        used = outcomes.loc[outcomes["part"].str.startswith("random"), "sample"].unique()
        assert np.bincount(data.g[used], minlength=4).tolist() == [2, 2, 2, 2]
    effects = result.effects()
    assert (effects["controls_on"] == "per_group_2").all()
    assert set(effects.loc[effects["split"] == "train", "n"]) == {4, 16}
    everywhere = whole.effects().query("kind == 'zero'").reset_index(drop=True)
    assert effects["accuracy_change"].tolist() == everywhere["accuracy_change"].tolist()
    np.testing.assert_array_equal(effects["p_selective"], everywhere["p_selective"])


def test_controls_on_one_split(run: sm.Run, squares: Path, whole: sm.Study) -> None:
    result = sm.study(run, small(edit=("zero",), controls_on=("train",)))
    assert not [name for name in tiny.files_below(result.path) if name.startswith("outcomes/test_random")]
    check_effects(result, sm.read_data(squares))
    effects, everywhere = result.effects(), whole.effects().query("kind == 'zero'").reset_index(drop=True)
    on_train = effects["split"] == "train"
    columns = ["accuracy_change", "p", "p_adjusted", "n_controls", "contrast", "verdict"]
    pd.testing.assert_frame_equal(effects.loc[on_train, columns], everywhere.loc[on_train, columns], rtol=1e-2)
    assert (effects.loc[~on_train, "n_controls"] == 0).all()
    assert effects.loc[~on_train, "reason"].str.contains("0 controls").all()
    assert effects.loc[~on_train, ["p", "p_adjusted", "control_low"]].isna().all(axis=None)
    with pytest.raises(sm.UserError, match=r"--controls-on val: this split is not in the study \(train, test\)"):
        sm.study(run, small(controls_on=("train", "val")))


def test_without_cross_fit(wide: sm.Run, squares: Path, tmp_path: Path) -> None:
    """Units are selected and measured on the same samples: each set once, on all of them."""
    run = tiny.copied(wide, tmp_path / "run")
    result = sm.study(run, small(cross_fit=False, controls=19, size=("1",)))
    variants = result.variants()
    selected = variants[variants["family"] == "selected"]
    assert (selected["fold"] == -1).all()
    assert (selected["pool"] >= 0).all()
    parts = {file.name.split("_", 1)[1] for file in (result.path / "outcomes").iterdir()}
    assert parts == {"selected_00000.parquet", "random_00000.parquet"}
    check_effects(result, sm.read_data(squares))
    effects = result.effects()
    assert (effects["accuracy_change"] == effects["tested_accuracy_change"]).all()
    assert set(effects["verdict"]) - {"no verdict"}


def test_every_control_is_measured_on_both_halves(trained: sm.Run, squares: Path, tmp_path: Path) -> None:
    """More controls than the network has units: pools of both halves may have unequal numbers, of which those are
    compared that are in both."""
    unequal = 0
    for seed in range(3):
        run = tiny.copied(trained, tmp_path / f"run_{seed}")
        changes = {"criterion": ("tiny_criteria:drawn_channels",), "size": ("1",), "split": ("train",), "seed": seed}
        result = sm.study(run, small(controls=99, group=("0", "1", "2", "3"), **changes))
        variants = result.variants()
        controls = variants[variants["family"] == "random"].groupby("pool")["control"].nunique()
        tested = variants[(variants["family"] == "selected") & (variants["pool"] >= 0)]
        effects = result.effects().groupby("selected_set")["n_controls"].unique()
        for place, rows in tested.groupby("selected_set"):
            of_pools = controls.reindex(rows["pool"].unique(), fill_value=0)
            unequal += of_pools.nunique() > 1
            assert effects[place].tolist() == [of_pools.min()]
        check_effects(result, sm.read_data(squares))
    assert unequal


def test_pseudo_minorities_are_studied_in_the_minoritys_place(run: sm.Run, squares: Path, tmp_path: Path) -> None:
    settings = small(criterion=("gradient",), size=("1",), pseudo_minority=1)
    fresh = sm.study(tiny.copied(run, tmp_path / "fresh"), settings)
    pseudo = with_pseudo_minority(sm.read_data(squares), 1)
    drawn = {f"class {y} with a random draw (1)" for y in (0, 1)}
    effects = fresh.effects()
    assert set(effects.loc[effects["minority"], "group_name"]) == drawn == set(effects["traced_on"])
    assert effects["group"].nunique() == 6
    check_effects(fresh, pseudo)
    # Other draws, and none, in the same run, don't change it.
    sm.study(run, small(criterion=("gradient",), size=("1",)))
    other = sm.study(run, small(criterion=("gradient",), size=("1",), pseudo_minority=0))
    again = sm.study(run, settings)
    assert len({fresh.path.name, other.path.name, again.path.name}) == 2
    same(again, fresh)


@pytest.mark.parametrize("criterion", ["gradient", "ablation"])
def test_rankings_of_a_real_group_beside_pseudo_minorities(criterion: str, run: sm.Run, tmp_path: Path) -> None:
    """A majority group that lost some of its samples to a draw is not the whole one of the same name."""
    settings = small(criterion=(criterion,), group=("class 0 with color 0",), size=("1",), split=("train",))
    pseudo = settings.model_copy(update={"pseudo_minority": 1})
    fresh = sm.study(tiny.copied(run, tmp_path / "fresh"), pseudo)
    sm.study(run, settings)
    beside = sm.study(run, pseudo)
    same(beside, fresh)

    def stored(study: sm.Study) -> int:
        return sum(name.startswith(("rankings", "ablations")) for name in tiny.files_below(study.path.parent.parent))

    assert stored(beside) == 2 * stored(fresh)


def test_pseudo_minorities_and_the_ablation_of_the_same_run(run: sm.Run, tmp_path: Path) -> None:
    settings = small(criterion=("ablation",), size=("1",), split=("train",), pseudo_minority=1)
    fresh = sm.study(tiny.copied(run, tmp_path / "fresh"), settings)
    sm.study(run, settings.model_copy(update={"pseudo_minority": 0}))
    same(sm.study(run, settings), fresh)


def test_a_group_with_one_training_sample(squares: Path, tmp_path: Path) -> None:
    """It can't be cut in two: units that were selected on it are shown, and get no verdict."""
    folder = tmp_path / "data"
    shutil.copytree(squares, folder)
    table = pd.read_csv(folder / "metadata.csv")
    rare = table.index[(table["split"] == "train") & (table["y"] == 0) & (table["a"] == 1)]
    table.drop(index=rare[1:]).to_csv(folder / "metadata.csv", index=False)
    settings = sm.TrainSettings(**{**tiny.QUICK, "model": "tiny_networks:wide_convnet", "epochs": 1})
    run = sm.train(folder, tmp_path / "run", settings)
    result = sm.study(run, small(criterion=("gradient", "weight_norm"), controls=19, size=("1",)))
    selected = result.variants().query("family == 'selected'")
    of_rare = selected[selected["group"] == MINORITY[0]]
    assert (of_rare["fold"].tolist(), of_rare["pool"].tolist()) == ([-1], [-1])
    assert selected[selected["group"] == MINORITY[1]]["fold"].tolist() == [-1, 0, 1]
    check_effects(result, sm.read_data(folder))
    effects = result.effects()
    on_rare = effects[effects["traced_on"] == MINORITY[0]]
    assert (on_rare["verdict"] == "no verdict").all()
    assert (on_rare["reason"] != "").all()
    assert on_rare["accuracy_change"].notna().all()
    itself = effects[(effects["group_name"] == MINORITY[0]) & (effects["split"] == "train")]
    assert (itself["n"] == 1).all()
    assert itself["memorizing"].isna().all()  # no spread of one sample
    assert (itself["reason"] != "").all()
    others = effects[(effects["traced_on"] == MINORITY[1]) & (effects["group_name"] != MINORITY[0])]
    assert (others["n_controls"] == 19).all()


def test_the_ablation_map_of_each_half(run: sm.Run, squares: Path) -> None:
    """One measurement serves both halves and the whole, whose sums are theirs together."""
    data = sm.read_data(squares)
    result = sm.study(run, small(criterion=("ablation",), size=("1",), split=("train",)))
    (folder,) = (run.path / "ablations").iterdir()
    names = {file.name for file in folder.glob("*.parquet")}
    assert names == {"map.parquet", "map_of_half_0.parquet", "map_of_half_1.parquet"}
    keys = ["tensor", "index", "group"]
    whole, *parts = (
        pd.read_parquet(folder / f"{name}.parquet").set_index(keys)
        for name in ("map", "map_of_half_0", "map_of_half_1")
    )
    for name in ("n", "correct_before", "correct_after", "margin_before", "margin_after"):
        sums = parts[0][name].add(parts[1][name], fill_value=0).loc[whole.index]
        np.testing.assert_allclose(sums, whole[name], rtol=1e-6, err_msg=name)
    halves, selected = data.halves(0), result.variants().query("family == 'selected'")
    for half, part in enumerate(parts):
        for group in MINORITY:
            of_group = part.xs(group, level="group")
            here = (data.split == "train") & (data.g == data.groups.index(group)) & (halves == half)
            assert (of_group["n"] == here.sum()).all()
            (chosen,) = selected.query("fold == @half and group == @group")["units"]
            name, index = chosen.split(":")
            least = of_group["margin_change"].min()
            assert of_group.loc[(f"{name}.weight", int(index)), "margin_change"] == pytest.approx(least)
    check_effects(result, data)


def test_the_map_of_a_half_where_units_are_screened(run: sm.Run) -> None:
    """The screening looks at the half alone, so that a map is measured for each."""
    settings = small(criterion=("ablation",), size=("1",), split=("train",), screen=4)
    result = sm.study(run, settings)
    maps = sorted(file.name for file in (run.path / "ablations").glob("*/map*.parquet"))
    assert maps == ["map.parquet", "map_of_half_0.parquet", "map_of_half_1.parquet"]
    assert len(list((run.path / "ablations").iterdir())) == 3
    assert result.effects()["accuracy_change"].notna().all()


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
    settings = small(criterion=("weight_norm",), split=("test",), controls=1)
    one = sm.study(run, settings)
    assert sm.study(run, settings) == one
    assert sm.study(run, settings.model_copy(update={"seed": 1})).path != one.path


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
        ({"criterion": ("weight_norm",), "size": ("1",), "controls": 10**9}, "such as --controls 249999999"),
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


def test_single_weights_that_a_sample_based_criterion_selects(run: sm.Run, squares: Path) -> None:
    """Both halves may select weights of the same tensors, which then share their controls."""
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
    assert tested["pool"].nunique() < len(tested)
    check_effects(result, sm.read_data(squares))


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


def test_without_controls(run: sm.Run, squares: Path) -> None:
    """Nothing is tested: no halves, no verdicts, and accuracy changes all the same."""
    result = sm.study(run, small(controls=0, criterion=("random", "gradient")))
    variants, effects = result.variants(), result.effects()
    assert (variants["family"] == "selected").all()
    assert (variants["fold"] == -1).all()
    assert (variants["pool"] == -1).all()
    assert (effects["n_controls"] == 0).all()
    assert effects[["control_low", "p", "p_adjusted", "norm_ratio"]].isna().all(axis=None)
    assert effects["accuracy_change"].notna().all()
    assert (effects["verdict"] == "no verdict").all()
    assert effects["reason"].str.contains("0 controls").all()
    check_effects(result, sm.read_data(squares))


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


@pytest.mark.parametrize("unit", ["head", "channel"])
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
