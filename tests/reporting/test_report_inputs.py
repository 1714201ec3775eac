"""Reports of several runs, of runs without a study or without data, and user errors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import tiny
from report_page import NAMES, Page

import spurious_memorization as sm

pytestmark = pytest.mark.filterwarnings("ignore:all .* samples .* are classified correctly", "ignore:only .* null sets")


Capture = pytest.CaptureFixture[str]


@pytest.mark.slow
def test_without_the_data_the_page_says_why_there_are_no_images(
    squares: Path, run: sm.Run, tmp_path: Path, capsys: Capture
) -> None:
    record = json.loads((run.path / "run.json").read_text())
    record["data"]["folder"] = str(tmp_path / "gone")
    (run.path / "run.json").write_text(json.dumps(record))
    said = tiny.spurmem(capsys, "report", run.path)
    assert said.status == 0, said.err
    without = Page(run.path / "report.html")
    assert f"No images of {run.path}: the run's data folder {tmp_path / 'gone'} does not exist" in without.text
    assert without.tables["accuracy_changes"]
    shutil.copytree(squares, tmp_path / "moved")
    said = tiny.spurmem(capsys, "report", run.path, "--data", tmp_path / "moved", "--json")
    assert json.loads(said.out) == {"report": str(run.path / "report.html")}
    assert "No images" not in Page(run.path / "report.html").text


def test_a_run_without_a_study(trained: sm.Run, tmp_path: Path) -> None:
    run = tiny.copied(trained, tmp_path / "run")
    shown = Page(sm.report([run.path]))
    assert f"`spurmem study {run.path}` measures edits of it" in shown.text
    assert set(shown.tables) == {"accuracy", "counts"}


@pytest.mark.slow
def test_several_runs(run: sm.Run, trained: sm.Run, tmp_path: Path) -> None:
    shown = Page(sm.report([run.path, trained.path], tmp_path / "page.html"))
    history = trained.history().query("epoch == 3")
    for row in shown.tables["comparison"]:
        here = history[history["group"] == NAMES.index(row["group"])].set_index("split")
        for split in ("train", "val", "test"):
            assert row[split] == here["correct"][split] / here["n"][split]
        assert row["gap"] == pytest.approx(row["train"] - row["test"])
    assert len(shown.tables["comparison"]) == 8
    assert {row["run"] for row in shown.tables["accuracy"]} == {str(run.path), str(trained.path)}
    images = [sample["image"] for sample in shown.data["gallery"]["samples"].values()]
    assert len(set(images)) == len(images)


@pytest.mark.slow
def test_the_repair_is_left_out_without_a_test_split(squares: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(squares, tmp_path / "data")
    table = pd.read_csv(folder / "metadata.csv")
    table[table["split"] != "test"].to_csv(folder / "metadata.csv", index=False)
    settings = [sm.TrainSettings(**{**tiny.QUICK, "epochs": 1}, seed=seed) for seed in (0, 1)]
    runs = [sm.train(folder, tmp_path / f"seed_{n}", one).path for n, one in enumerate(settings)]
    shown = Page(sm.report(runs, tmp_path / "page.html"))
    assert "What does this network memorize?" in shown.text
    assert "accuracy of the worst group in test" not in shown.text


def test_runs_of_the_same_name_have_bars_of_their_own(trained: sm.Run, tmp_path: Path) -> None:
    runs = [tiny.copied(trained, tmp_path / method / "seed_0").path for method in ("erm", "other")]
    shown = Page(sm.report(runs, tmp_path / "page.html"))
    assert shown.rows("repair")["name"].tolist() == [str(run) for run in runs]


ERRORS = [
    (("figure", "accuracy_changes", "RUN", "--size=7"), "accuracy_changes has no size '7': choose among '1', '2'"),
    (("figure", "accuracy_changes", "RUN", "--group=nobody"), "accuracy_changes has no group 'nobody'"),
    (("figure", "verdicts", "RUN"), "verdicts is a table: write it with --format latex, markdown or csv"),
    (("figure", "accuracy_changes", "RUN", "--format=gif"), "gif"),
    (("figure", "accuracies", "RUN"), "accuracies"),
    (("figure", "images", "RUN", "--criterion=taylor"), "images has no criterion 'taylor'"),
    (("report", "RUN", "RUN"), "a run is named twice"),
    (("report", "RUN", "--study=other"), "no finished study 'other'"),
    (("report", "nowhere"), "nowhere is not a run"),
    (("report",), "no run is named"),
    (("figure", "accuracy_changes"), "no run is named"),
    (("report", "RUN", "--out=RUN/run.json/page.html"), "is not a folder"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("words", "error"), ERRORS, ids=[" ".join(words) for words, _ in ERRORS])
def test_errors_are_one_line(words: tuple[str, ...], error: str, run: sm.Run, tmp_path: Path, capsys: Capture) -> None:
    before = tiny.files_below(run.path)
    said = tiny.spurmem(capsys, *(word.replace("RUN", str(run.path)) for word in words))
    assert error in said.error
    assert tiny.files_below(run.path) <= before | {"studies/both/top-activating.parquet"}


def test_what_was_not_measured_is_said(trained: sm.Run, tmp_path: Path, capsys: Capture) -> None:
    run = tiny.copied(trained, tmp_path / "run")
    assert "--criterion ablation" in tiny.spurmem(capsys, "figure", "ablation", run.path).error
    assert "spurmem study" in tiny.spurmem(capsys, "figure", "accuracy_changes", run.path).error
    assert "spurmem study" in tiny.spurmem(capsys, "figure", "images", run.path).error
    assert "`spurmem figure images` shows them" in tiny.spurmem(capsys, "figure", "texts", run.path).error


@pytest.mark.slow
def test_data_without_a_minority_group(tmp_path: Path, capsys: Capture) -> None:
    data = tiny.make_images(tmp_path / "data")
    table = pd.read_csv(data / "metadata.csv")
    table["a"] = [number % 2 for number in range(len(table))]
    table.to_csv(data / "metadata.csv", index=False)
    run = sm.train(data, tmp_path / "run", sm.TrainSettings(**{**tiny.QUICK, "epochs": 1}))
    assert run.record.data.minority == ()
    sm.study(run, sm.StudySettings(criterion=("weight_norm",), size=("1",), controls=3))
    assert tiny.spurmem(capsys, "report", run.path).status == 0
    shown = Page(run.path / "report.html")
    assert "No minority group was measured, so there is no verdict" in shown.text
    assert shown.tables["accuracy_changes"]
    assert "verdicts" not in shown.tables
    error = tiny.spurmem(capsys, "figure", "verdicts", run.path, "--format=csv").error
    assert "no minority group was measured" in error
