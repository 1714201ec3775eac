"""Pseudo-minorities, tiny groups, and the ablation map in a study."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
from study_oracle import (
    MINORITY,
    check_effects,
    same,
    small,
)

import spurious_memorization as sm
from spurious_memorization.datasets.pseudo_minority import with_pseudo_minority

pytestmark = pytest.mark.filterwarnings("ignore:all .* samples .* are classified correctly", "ignore:only .* null sets")


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("criterion", ["gradient", pytest.param("ablation", marks=pytest.mark.slow)])
def test_rankings_of_a_real_group_with_pseudo_minorities(criterion: str, run: sm.Run, tmp_path: Path) -> None:
    """A majority group that lost some of its samples to a draw is not the whole one of the same name."""
    settings = small(criterion=(criterion,), group=("class 0 with color 0",), size=("1",), split=("train",))
    pseudo = settings.model_copy(update={"pseudo_minority": 1})
    fresh = sm.study(tiny.copied(run, tmp_path / "fresh"), pseudo)
    sm.study(run, settings)
    with_pseudo = sm.study(run, pseudo)
    same(with_pseudo, fresh)

    def stored(study: sm.Study) -> int:
        return sum(name.startswith(("rankings", "ablations")) for name in tiny.files_below(study.path.parent.parent))

    assert stored(with_pseudo) == 2 * stored(fresh)


@pytest.mark.slow
def test_pseudo_minorities_and_the_ablation_of_the_same_run(run: sm.Run, tmp_path: Path) -> None:
    settings = small(criterion=("ablation",), size=("1",), split=("train",), pseudo_minority=1)
    fresh = sm.study(tiny.copied(run, tmp_path / "fresh"), settings)
    sm.study(run, settings.model_copy(update={"pseudo_minority": 0}))
    same(sm.study(run, settings), fresh)


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_map_of_a_half_where_units_are_screened(run: sm.Run) -> None:
    """The screening looks at the half alone, so that a map is measured for each."""
    settings = small(criterion=("ablation",), size=("1",), split=("train",), screen=4)
    result = sm.study(run, settings)
    maps = sorted(file.name for file in (run.path / "ablations").glob("*/map*.parquet"))
    assert maps == ["map.parquet", "map_of_half_0.parquet", "map_of_half_1.parquet"]
    assert len(list((run.path / "ablations").iterdir())) == 3
    assert result.effects()["accuracy_change"].notna().all()
