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


@pytest.mark.slow
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

    def norm_of(units: str) -> float:
        values = [float(norms[f"{name}.weight"][int(i)]) for name, i in (u.split(":") for u in units.split(","))]
        return math.sqrt(sum(value**2 for value in values) / len(values))

    variants, effects = tested.variants(), tested.effects().set_index("selected_set")
    controls = variants[(variants["family"] == "random") & (variants["repeat"] == 0)]
    for number, rows in variants[variants["pool"] >= 0].query("family == 'selected'").groupby("selected_set"):
        recorded = []
        for row in rows.itertuples():
            drawn = controls[(controls["pool"] == row.pool) & (controls["kind"] == row.kind)]
            drawn = drawn[drawn["n_units"] == row.n_units]["units"]
            ratio = np.median([norm_of(units) for units in drawn]) / norm_of(row.units)
            assert row.norm_ratio == pytest.approx(ratio)
            recorded.append(ratio)
        assert effects.loc[number, "norm_ratio"].unique() == pytest.approx(
            max(recorded, key=lambda r: abs(math.log(r)))
        )


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
