"""A study's units followed into other runs, against calculations with plain PyTorch."""

from __future__ import annotations

import io
import json
import shutil
import warnings
from pathlib import Path

import made_runs
import pandas as pd
import pytest
import tiny
import torch
from narrow_terminal import check_every_number_is_printed

import spurious_memorization as sm
from spurious_memorization.reporting.tables.unit_tracking_tables import unit_tracking_tables
from spurious_memorization.runs.edited import save_edited

pytestmark = pytest.mark.slow

STUDY = sm.StudySettings(criterion=("weight_norm", "gradient"), size=("1..2",), controls=0, cross_fit=False)


@pytest.fixture(scope="module")
def place(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of ERM with a study, of its continuation and of GroupDRO; one seed of DFR."""
    runs = tmp_path_factory.mktemp("runs")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # all training samples are right, or one group is
        for seed in range(2):
            settings = {**tiny.QUICK, "seed": seed, "lr": 0.05}
            erm = sm.train(squares, runs / "erm" / f"seed_{seed}", sm.TrainSettings(**settings))
            sm.study(erm, STUDY, name="first")
            more = {**settings, "epochs": 2, "lr": 0.05, "objective": "erm-continue", "start": f"{erm.path}@3"}
            sm.train(squares, runs / "more" / f"seed_{seed}", sm.TrainSettings(**more))
            dro = {**settings, "objective": "group-dro"}
            sm.train(squares, runs / "dro" / f"seed_{seed}", sm.TrainSettings(**dro))
        dfr = {**tiny.QUICK, "objective": "dfr", "epochs": 1, "start": f"{runs / 'erm' / 'seed_0'}@3"}
        sm.train(squares, runs / "dfr", sm.TrainSettings(**dfr))
    return runs


@pytest.fixture(scope="module")
def tracked(place: Path) -> sm.UnitTracking:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sm.track_units([place / name for name in ("erm", "more", "dfr", "dro")], "first")


def folded_norm(model: torch.nn.Module, unit: str) -> float:
    layer, index = unit.split(":")
    norm = model.get_submodule(layer).weight[int(index)].detach().double().norm()
    if layer == "conv1":
        bn = model.bn1
        norm = (
            norm * bn.weight[int(index)].detach().double().abs() / (bn.running_var[int(index)].double() + bn.eps).sqrt()
        )
    return float(norm)


def accuracy(model: torch.nn.Module, data: sm.Dataset, group: str, zeroed: list[str]) -> float:
    for unit in zeroed:
        layer, index = unit.split(":")
        for parameter in model.get_submodule(layer).parameters():
            parameter.data[int(index)] = 0
    batch = data.train.of_group(group).batch()
    with torch.no_grad():
        return float((model(batch.inputs).argmax(1) == batch.y).double().mean())


def test_norms_and_shifts_of_every_unit(tracked: sm.UnitTracking, place: Path) -> None:
    data = sm.Run(place / "dfr").read_data()
    assert set(tracked.units["method"]) == {"erm-continue", "dfr"}
    moved = 0
    for row in tracked.units.to_dict(orient="records"):
        start, own = sm.Run(row["start"]), sm.Run(row["run"])
        assert (start.path, row["start_epoch"]) == (place / "erm" / f"seed_{row['seed']}", 3)
        effects = sm.Study(start.path / "studies" / "first").effects()
        ranking = (effects["criterion"] == row["criterion"]) & (effects["traced_on"].fillna("") == row["traced_on"])
        largest = effects[ranking & (effects["n_units"] == 2)]["units"].iloc[0].split(",")
        assert (row["called"], row["n_units"]) == ("selected", 2)
        alone = row["unit"] != "together"
        assert not alone or row["unit"] in largest
        zeroed = [row["unit"]] if alone else largest
        for run, epoch, at in ((start, 3, "start"), (own, row["epoch"], "chosen")):
            before = accuracy(run.network(epoch), data, row["group_name"], [])
            after = accuracy(run.network(epoch), data, row["group_name"], zeroed)
            assert row[f"accuracy_{at}"] == pytest.approx(before)
            assert row[f"accuracy_change_{at}"] == pytest.approx(after - before)
            moved += after != before
        ratios = [folded_norm(own.network(row["epoch"]), unit) / folded_norm(start.network(3), unit) for unit in zeroed]
        assert row["norm_ratio"] == pytest.approx(sum(ratios) / len(ratios))
        if alone:
            assert row["norm_start"] == pytest.approx(folded_norm(start.network(3), row["unit"]))
            assert row["norm_chosen"] == pytest.approx(folded_norm(own.network(row["epoch"]), row["unit"]))
    assert moved, "no unit matters: nothing was tested"
    keys = ["run", "chosen_by", "criterion", "traced_on", "unit", "group"]
    assert not tracked.units.duplicated(keys).any()
    rankings = 1 + len(data.minority)
    assert len(tracked.units) == 3 * 2 * rankings * 3 * len(data.minority)


def test_only_training_moves_the_channels(tracked: sm.UnitTracking) -> None:
    units = tracked.units[tracked.units["unit"] != "together"].set_index("method")
    assert units.loc["dfr", "norm_ratio"].to_numpy() == pytest.approx(1)
    later = units.loc["erm-continue"]
    later = later[later["epoch"] > 0]
    assert (later["norm_ratio"] - 1).abs().max() > 1e-4 or later.empty


def test_new_traces_share_units_by_count(tracked: sm.UnitTracking, place: Path) -> None:
    assert set(tracked.traces["method"]) == {"group-dro"}
    rows = tracked.traces.query("criterion == 'weight_norm'")
    assert len(rows) == 2 * 2
    for row in rows.to_dict(orient="records"):
        order = []
        for run, epoch in ((row["start"], 3), (row["run"], row["epoch"])):
            model = sm.Run(run).network(epoch)
            norms = {
                (name, i): float(
                    torch.cat([p[i].detach().flatten() for p in model.get_submodule(name).parameters()]).double().norm()
                )
                for name in ("conv1", "conv2")
                for i in range(len(model.get_submodule(name).weight))
            }
            order.append(sorted(norms, key=lambda unit: -norms[unit]))
        assert (row["n"], row["k"]) == (20, 10)
        assert row["expected"] == 5
        assert row["shared"] == len(set(order[0][:10]) & set(order[1][:10]))
        assert Path(row["run"]).name == Path(row["start"]).name
    assert tracked.traces["traced_on"].nunique() == 1 + 2


def test_a_critical_set_goes_before_a_larger_selected_one(place: Path, tmp_path: Path) -> None:
    erm = tiny.copied(sm.Run(place / "erm" / "seed_0"), tmp_path / "erm")
    file = erm.path / "studies" / "first" / "effects.parquet"
    effects = pd.read_parquet(file)
    small = (effects["criterion"] == "weight_norm") & (effects["n_units"] == 1)
    effects.loc[effects.index[small][0], "verdict"] = "critical"
    effects.to_parquet(file)
    edited = sm.Run(tmp_path / "edited")
    unit = effects["units"][small].iloc[0]
    save_edited(erm, edited.path, unit)
    found = sm.track_units([edited])
    assert found.study == "first"
    rows = found.units.query("criterion == 'weight_norm'")
    assert set(zip(rows["called"], rows["n_units"], rows["unit"], strict=True)) == {
        ("critical", 1, unit),
        ("critical", 1, "together"),
    }
    assert (rows["accuracy_change_chosen"] == 0).all()  # what is zero already can't be zeroed
    gone = rows[rows["unit"] == unit]
    assert (gone["norm_chosen"] == 0).all()
    assert (gone["norm_ratio"] == 0).all()
    assert set(found.units.query("criterion == 'gradient'")["called"]) == {"selected"}
    assert found.traces.empty


def test_what_is_left_out_is_said(place: Path, squares: Path, tmp_path: Path) -> None:
    start = place / "erm" / "seed_0"
    settings = {**tiny.QUICK, "epochs": 1, "objective": "erm-continue", "start": f"{start}@2"}
    early = sm.train(squares, tmp_path / "early", sm.TrainSettings(**settings))
    alone = sm.train(squares, tmp_path / "alone", sm.TrainSettings(**{**tiny.QUICK, "epochs": 1, "seed": 7}))
    wide = {**tiny.QUICK, "model": "tiny_networks:wider_convnet", "objective": "group-dro", "epochs": 1}
    other = sm.train(squares, tmp_path / "wide", sm.TrainSettings(**wide))
    found = sm.track_units([early, alone, other], "first")
    assert found.notes == (
        f"{early.path} started from epoch 2; the study is of epoch 3.",
        f"{alone.path} is not traced again: no studied run has its seed, 7.",
        f"{other.path} is not traced again: its network is tiny_networks:wider_convnet, not {tiny.NETWORK}.",
    )
    assert set(found.units["start_epoch"]) == {2}
    assert found.traces.empty


@pytest.mark.slow
def test_the_command(place: Path, tracked: sm.UnitTracking, capsys: pytest.CaptureFixture[str]) -> None:
    places = [place / name for name in ("erm", "more", "dfr", "dro")]
    plain = tiny.spurmem(capsys, "compare", *places).out
    said = tiny.spurmem(capsys, "compare", *places, "--study", "first")
    assert said.status == 0, said.err
    assert said.out.startswith(plain[: plain.index("Cost, and the epochs chosen")])
    words = (
        "What became of the units of study first",
        "New rankings, compared with those of study first",
        "2 selected",
    )
    for part in words:
        assert part in said.out
        assert part not in plain
    facts = json.loads(tiny.spurmem(capsys, "compare", *places, "--study", "first", "--json").out)
    assert [row["norm_ratio"] for row in facts["units"]] == pytest.approx(list(tracked.units["norm_ratio"]))
    assert [row["shared"] for row in facts["traces"]] == list(tracked.traces["shared"])
    assert "units" not in json.loads(tiny.spurmem(capsys, "compare", *places, "--json").out)


@pytest.mark.slow
def test_the_tables_for_a_paper(place: Path, tracked: sm.UnitTracking, capsys: pytest.CaptureFixture[str]) -> None:
    places = [place / name for name in ("erm", "more", "dfr", "dro")]
    printed = pd.read_csv(
        io.StringIO(tiny.spurmem(capsys, "compare", *places, "--study", "first", "--format", "csv").out)
    )
    assert printed.groupby("table").size()[["units", "traces"]].tolist() == [len(tracked.units), len(tracked.traces)]
    markdown = tiny.spurmem(capsys, "compare", *places, "--study", "first", "--format", "markdown").out
    both = tracked.units.query("method == 'erm-continue' and unit == 'together' and criterion == 'weight_norm'")
    first = both[(both["chosen_by"] == "worst_group_accuracy") & (both["group"] == both["group"].min())]
    mean, std = (getattr(100 * first["accuracy_change_start"], of)() for of in ("mean", "std"))
    assert f"| {mean + 0.0:+.1f} ±{std:.1f} |" in markdown


@pytest.mark.parametrize("width", [60, 100, 140])
def test_no_figure_is_lost_in_a_narrow_terminal(width: int, tracked: sm.UnitTracking) -> None:
    for table in unit_tracking_tables(tracked):
        check_every_number_is_printed(table, width)


def test_refusals(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*arguments: object) -> str:
        return tiny.spurmem(capsys, "compare", *arguments).error

    start = place / "erm" / "seed_0"
    said = refused(place / "more", "--study", "second")
    assert f"--study second: {start} has no such finished study: it has first" in said
    data = made_runs.make_data(tmp_path / "pets")
    erm = made_runs.make_run(tmp_path / "erm", data)
    assert f"{erm.path} has no such finished study: it has none" in refused(erm.path, "--study", "first")
    dro = made_runs.make_run(tmp_path / "dro", data, "group-dro")
    assert "none is plain erm: name the studied run, too" in refused(dro.path, "--study", "first")
    more = made_runs.make_run(tmp_path / "more", data, "erm-continue", start=f"{erm.path}@3")
    with pytest.raises(sm.UserError, match="has no finished study: `spurmem study` makes one"):
        sm.track_units([more])
    far = made_runs.make_run(tmp_path / "far", data, "erm-continue", start=f"{start}@3")
    assert f"{start}, which {far.path} started from, was made with other data" in refused(far.path, "--study", "first")
    unlisted = tiny.copied(sm.Run(start), tmp_path / "unlisted")
    shutil.copytree(unlisted.path / "studies" / "first", unlisted.path / "studies" / "third")
    with pytest.raises(sm.UserError, match="there are several studies: name one of first, third"):
        sm.track_units([unlisted])
    file = unlisted.path / "studies" / "third" / "effects.parquet"
    pd.read_parquet(file).assign(units=None).to_parquet(file)
    assert f"--study third of {unlisted.path} lists no units" in refused(unlisted.path, "--study", "third")
