"""The effects of a study are what its outcomes say, by hand."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
from study_oracle import (
    MINORITY,
    check_effects,
    every_outcome,
    measured_halves,
    small,
)

import spurious_memorization as sm
from spurious_memorization.controls.norms import folded_norms

pytestmark = pytest.mark.filterwarnings("ignore:all .* samples .* are classified correctly", "ignore:only .* null sets")


def test_effects_are_what_the_outcomes_say(whole: sm.Study, squares: Path) -> None:
    check_effects(whole, sm.read_data(squares))
    effects = whole.effects()
    assert len(effects) == 18 * 2 * 4
    assert (effects["verdict"] == "no verdict").all()
    assert effects["reason"].str.contains("3 null sets: at least 19 are needed").all()
    assert set(effects.loc[effects["minority"], "group_name"]) == set(MINORITY)
    assert set(effects["traced_on"].dropna()) == set(MINORITY)
    assert effects[["localized", "memorizing"]].isna().all(axis=None)


def test_verdicts_are_what_the_outcomes_say(tested: sm.Study, squares: Path) -> None:
    """With the third question asked of every set."""
    check_effects(tested, sm.read_data(squares))
    effects = tested.effects()
    assert len(effects) == 2 * 2 * 4
    assert set(effects["verdict"]) - {"no verdict"}
    assert effects[["p", "p_beyond_norm", "p_localized"]].nunique().gt(2).all()  # there is something to compare
    assert (effects["p_adjusted"] >= effects["p"] - 1e-12).all()
    assert (effects["controls_on"] == "all").all()
    asked = effects[effects["minority"]]
    assert asked["n_damage_matched"].gt(0).all()
    assert asked[["damage", "p_localized", "contrast", "p_memorizing"]].notna().all(axis=None)
    # the damage and the contrast are those of all splits
    per_set = asked.groupby(["selected_set", "group"])[["damage", "contrast", "n_damage_matched"]].nunique()
    assert per_set.eq(1).all(axis=None)
    assert effects.loc[~effects["minority"], ["damage", "p_localized", "contrast"]].isna().all(axis=None)


def test_a_set_selected_on_one_half_is_measured_on_the_other(tested: sm.Study, squares: Path) -> None:
    data, variants = sm.read_data(squares), tested.variants().set_index("variant")
    halves = data.halves(0)
    for split in ("train", "test"):
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
def test_null_sets_are_nested_and_shared(study: str, request: pytest.FixtureRequest) -> None:
    stored: sm.Study = request.getfixturevalue(study)
    variants = stored.variants()
    null, selected = (variants[variants["family"] == family] for family in ("random", "selected"))
    for _, rows in null.groupby(["pool", "kind", "parameters", "control", "repeat", "fold"]):
        one, two = rows.sort_values("n_units")["units"]
        assert two.startswith(f"{one},")
    for _, rows in null.groupby(["pool", "control", "size", "fold"]):
        assert rows["units"].nunique() == 1  # the same ones for every edit and repeat
    for (pool, fold, size), rows in null.groupby(["pool", "fold", "size"]):
        own = selected[(selected["pool"] == pool) & (selected["fold"] == fold) & (selected["size"] == size)]
        (units,) = own["units"].unique()
        assert rows["units"].map(layers_of).tolist() == [layers_of(units)] * len(rows)
    # what both halves select in common stays in common
    largest = selected.loc[selected["n_units"].idxmax(), "size"]
    for pool, rows in null[null["fold"] >= 0].groupby("pool"):
        own = selected[selected["pool"] == pool]
        overlaps = {
            overlap(of)
            for _, of in rows.groupby(["control", "size", "kind", "repeat"])
            if (of["size"] == largest).all()
        }
        assert overlaps == {overlap(own[own["size"] == largest])}
    edits = variants.set_index("variant")
    assert edits.loc[selected["variant"], "matched_to"].isna().all()
    assert null["matched_to"].notna().all()
    assert not variants["matched_to"].dropna().isin(variants["digest"]).any()  # a digest of units is none of an edit


def layers_of(units: str) -> list[str]:
    return re.findall(r"([\w.]+):", units)


def overlap(rows: pd.DataFrame) -> int:
    """Number of units in all rows."""
    return len(set.intersection(*(set(units.split(",")) for units in rows["units"])))


def test_norms_of_a_study(tested: sm.Study, wide: sm.Run) -> None:
    """Of each set the root mean square over its units of the folded norm over that of the layer; in effects the median
    of the null sets over the set itself, which is a geometric mean over both halves."""
    norms = folded_norms(wide.network(6))

    def norm_of(units: str) -> float:
        squares = []
        for name, i in (unit.split(":") for unit in units.split(",")):
            layer = norms[f"{name}.weight"]
            squares.append(float(layer[int(i)] ** 2 / (layer**2).mean()))
        return math.log(math.sqrt(np.mean(squares)) + 1e-3)

    variants, effects = tested.variants(), tested.effects().set_index("selected_set")
    with_norm = variants[(variants["family"] == "random") | (variants["pool"] >= 0)]
    assert with_norm["log_norm"].tolist() == pytest.approx([norm_of(units) for units in with_norm["units"]])
    assert variants.drop(with_norm.index)["log_norm"].isna().all()
    null = with_norm[with_norm["family"] == "random"]
    for number, rows in with_norm[with_norm["family"] == "selected"].groupby("selected_set"):
        one = rows.iloc[0]
        drawn = null[(null["pool"] == one["pool"]) & (null["kind"] == one["kind"]) & (null["size"] == one["size"])]
        ratio = math.exp(drawn["log_norm"].median() - rows["log_norm"].mean())
        assert effects.loc[number, "norm_ratio"].unique() == pytest.approx(ratio)
    assert (effects["drawn_from"] == "random, of the same layers").all()


def test_random_sets_of_any_size_stand_beside_one_set(tested: sm.Study, squares: Path) -> None:
    """They hold none of its units, are drawn in rounds, and are measured on all samples of each split."""
    variants, data = tested.variants(), sm.read_data(squares)
    beside = variants[variants["family"] == "damage"]
    selected = variants[(variants["family"] == "selected") & (variants["pool"] >= 0)].set_index("selected_set")
    assert set(beside["selected_set"]) == set(selected.index)
    for number, rows in beside.groupby("selected_set"):
        own = {unit for units in selected.loc[[number], "units"] for unit in units.split(",")}
        first = selected.loc[[number]].iloc[0]
        assert rows[["kind", "parameters"]].drop_duplicates().to_numpy().tolist() == [
            [first["kind"], first["parameters"]]
        ]
        assert rows["control"].drop_duplicates().tolist() == list(range(rows["control"].nunique()))
        assert rows["control"].nunique() in range(40, 321, 40)
        for units in rows["units"].dropna():
            assert not own & set(units.split(","))
            assert set(layers_of(units)) <= {layer for unit in own for layer in layers_of(unit)}
        assert (rows["size"].astype(int) == rows["n_units"]).all()
        assert rows["n_units"].nunique() > 5
    for split in ("train", "test"):
        counts = (
            tested.outcomes(split, "damage").drop_duplicates(["variant", "sample"]).groupby("variant")["sample"].count()
        )
        assert (counts == len(data.samples(split))).all()
        assert set(counts.index) == {-1, *beside["variant"]}


@pytest.mark.slow
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


@pytest.mark.slow
def test_controls_on_one_split(run: sm.Run, squares: Path, whole: sm.Study) -> None:
    result = sm.study(run, small(edit=("zero",), controls_on=("train",)))
    assert not [name for name in tiny.files_below(result.path) if name.startswith("outcomes/test_random")]
    check_effects(result, sm.read_data(squares))
    effects, everywhere = result.effects(), whole.effects().query("kind == 'zero'").reset_index(drop=True)
    on_train = effects["split"] == "train"
    columns = ["accuracy_change", "p", "p_adjusted", "p_beyond_norm", "n_controls", "verdict"]
    pd.testing.assert_frame_equal(effects.loc[on_train, columns], everywhere.loc[on_train, columns], rtol=1e-2)
    assert (effects.loc[~on_train, "n_controls"] == 0).all()
    assert effects.loc[~on_train, "reason"].str.contains("0 null sets").all()
    assert effects.loc[~on_train, ["p", "p_adjusted", "control_low"]].isna().all(axis=None)
    with pytest.raises(sm.UserError, match=r"--controls-on val: this split is not in the study \(train, test\)"):
        sm.study(run, small(controls_on=("train", "val")))


@pytest.mark.slow
def test_without_cross_fit(wide: sm.Run, squares: Path, tmp_path: Path) -> None:
    """Units are selected and measured on the same samples: each set once, on all of them."""
    run = tiny.copied(wide, tmp_path / "run")
    result = sm.study(run, small(cross_fit=False, controls=19, size=("1",)))
    variants = result.variants()
    selected = variants[variants["family"] == "selected"]
    assert (selected["fold"] == -1).all()
    assert (selected["pool"] >= 0).all()
    parts = {file.name.split("_", 1)[1] for file in (result.path / "outcomes").iterdir()}
    assert parts == {"selected_00000.parquet", "random_round_00_00000.parquet"}
    check_effects(result, sm.read_data(squares))
    effects = result.effects()
    assert (effects["accuracy_change"] == effects["tested_accuracy_change"]).all()
    assert set(effects["verdict"]) - {"no verdict"}


def test_a_tiny_layer_has_few_null_sets_and_no_verdict(trained: sm.Run, squares: Path, tmp_path: Path) -> None:
    """All 7 other units of a layer of 8 are used, each once; both halves together have 8 * 7 arrangements."""
    run = tiny.copied(trained, tmp_path / "run")
    settings = sm.StudySettings(criterion=("weight_norm",), tensors=("conv1",), size=("1",), split=("train",))
    result = sm.study(run, settings)
    variants, effects = result.variants(), result.effects()
    (own,) = variants.loc[variants["family"] == "selected", "units"]
    drawn = variants.loc[variants["family"] == "random", "units"].tolist()
    assert sorted([own, *drawn]) == [f"conv1:{i}" for i in range(8)]
    assert (effects["n_controls"] == 7).all()
    assert (effects["verdict"] == "no verdict").all()
    assert effects["reason"].str.contains("7 null sets: at least 19 are needed").all()
    assert effects["p"].ge(1 / 8).all()
    check_effects(result, sm.read_data(squares))


@pytest.mark.slow
def test_both_halves_are_enumerated_together(trained: sm.Run, squares: Path, tmp_path: Path) -> None:
    settings = sm.StudySettings(criterion=("gradient",), tensors=("conv1",), size=("1",), split=("train",))
    result = sm.study(tiny.copied(trained, tmp_path / "run"), settings)
    variants = result.variants()
    for pool, own in variants[(variants["family"] == "selected") & (variants["pool"] >= 0)].groupby("pool"):
        null = variants[(variants["family"] == "random") & (variants["pool"] == pool)]
        pairs = null.pivot(index="control", columns="fold", values="units")
        found = [tuple(pair) for pair in pairs.to_numpy().tolist()]
        mine = tuple(own.set_index("fold").loc[[0, 1], "units"])
        every = {(f"conv1:{i}", f"conv1:{j}") for i in range(8) for j in range(8) if (i == j) == (mine[0] == mine[1])}
        assert len(set(found)) == len(found)
        assert set(found) <= every - {mine}
        if len(found) > 49:
            assert set(found) == every - {mine}
    check_effects(result, sm.read_data(squares))
