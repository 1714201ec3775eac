"""`spurmem data groups`, and a training, a study and a report whose groups have two attributes."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny

import spurious_memorization as sm
from spurious_memorization.datasets.groups import group_counts

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny images, with two further attributes that nothing depends on."""
    place = tiny.make_images(tmp_path_factory.mktemp("data") / "squares")
    table = pd.read_csv(place / "metadata.csv")
    number = np.arange(len(table))
    table["light"] = np.where(number % 3, "day", "night, late")
    table["rain"] = number % 7 == 0
    table.to_csv(place / "metadata.csv", index=False)
    return place


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> sm.Run:
    """A run on the groups of one attribute."""
    settings = sm.TrainSettings(**{**tiny.QUICK, "epochs": 1})
    return sm.train(folder, tmp_path_factory.mktemp("runs") / "run", settings)


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def test_counts_without_a_network(folder: Path, capsys: Capture) -> None:
    done = tiny.spurmem(capsys, "data", "groups", folder, "--attribute=a,light,rain", "--split=train", "--show=3")
    assert done.status == 0
    assert "squares: 40 samples in train" in done.out
    assert "Groups by one attribute: the 3 of 6 with the lowest lift" in " ".join(done.out.split())
    assert "class 0 with color 1; night, late" not in done.out  # of 2 samples
    assert "groups have fewer than 10 samples in train and are not ranked" in done.out
    assert "accuracy" not in done.out
    done = tiny.spurmem(capsys, "data", "groups", folder)
    assert "Intersections" not in done.out


def test_accuracies_of_a_network(folder: Path, run: sm.Run, capsys: Capture) -> None:
    flags = ("--network", run.path, "--attribute=a,light", "--epoch=1", "--min-group-size=2")
    done = tiny.spurmem(capsys, "data", "groups", folder, *flags, "--json")
    facts = json.loads(done.out)
    data = run.read_data()
    correct = run.predictions(1, "test").to_numpy().argmax(1) == data.test.y
    assert (facts["n"], facts["epoch"], facts["accuracy"]) == (12, 1, correct.mean())
    table = pd.read_csv(folder / "metadata.csv").query("split == 'test'").assign(correct=correct)
    of_two = {row["group"]: row for row in facts["groups"] if row["n_combined"] == 2}
    for (y, a, light), rows in table.groupby(["y", "a", "light"]):
        row = of_two[f"class {y} with color {a}; {light}"]
        assert (row["n"], row["correct"]) == (len(rows), rows["correct"].sum())
    n_ranked = facts["n_ranked"]
    assert n_ranked == sum(row["ranked"] for row in facts["groups"]) > 0
    done = tiny.spurmem(capsys, "data", "groups", folder, *flags)
    assert f"of level {100 * (1 - 0.05 / n_ranked):.6g} %" in done.out
    assert f"all {n_ranked} ranked groups hold together with 95 % (Bonferroni)" in done.out
    assert f"{correct.mean():.1%} of them are right after epoch 1" in done.out
    csv = pd.read_csv(io.StringIO(tiny.spurmem(capsys, "data", "groups", folder, *flags, "--format=csv").out))
    assert csv["group"].tolist() == [row["group"] for row in facts["groups"]]
    done = tiny.spurmem(capsys, "data", "groups", folder, *flags, "--format=markdown")
    assert "| group | accuracy in test | n in test | n in train | lift |" in done.out


def test_a_split_that_is_made_is_that_of_training(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    table = pd.read_csv(folder / "metadata.csv").drop(columns="split")
    table.to_csv(tmp_path / "metadata.csv", index=False)
    done = tiny.spurmem(capsys, "data", "groups", tmp_path, "--attribute=a,light,rain", "--json")
    data = sm.read_data(tmp_path, attribute="a,light,rain")
    counted = {row["group"]: row["n_train"] for row in json.loads(done.out)["groups"] if row["n_combined"] == 3}
    filled = {name: n for name, n in zip(data.groups.names, data.train_counts, strict=True) if name in counted}
    assert counted == filled
    assert sum(counted.values()) == (data.split == "train").sum()


def test_errors_are_one_line(folder: Path, run: sm.Run, tmp_path: Path, capsys: Capture) -> None:
    for flags, message in (
        (["--attribute=a,shape"], "no attribute column 'shape'"),
        (["--attribute=a,a"], "given twice"),
        (["--network", run.path, "--epoch=9"], "no checkpoint of epoch '9'"),
        (["--network", folder], "is not a run"),
        (["--min-group-size=0"], "Must be >= 1"),
        (["--split=all"], "Invalid value"),
    ):
        assert message in tiny.spurmem(capsys, "data", "groups", folder, *flags).error
    other = tiny.make_images(tmp_path / "other", train=10)
    assert "does not hold the data" in tiny.spurmem(capsys, "data", "groups", other, "--network", run.path).error


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:only .* null sets", "ignore:all .* are classified correctly")
def test_train_study_and_report_on_two_attributes(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    """Some groups are empty in test, and the rest of the combinations is a value of its own."""
    out = tmp_path / "run"
    flags = tiny.train_flags(out, epochs=2, attribute="a,light,rain", min_group_size=4)
    done = tiny.spurmem(capsys, "train", folder, *flags)
    assert done.status == 0, done.err
    assert "class 1 with other combinations" in done.out
    run = sm.Run(out)
    stored = json.loads((out / "run.json").read_text())["data"]
    assert (stored["settings"]["attribute"], stored["settings"]["min_group_size"]) == ("a,light,rain", 4)
    data = run.read_data()
    assert tuple(stored["attributes"]) == data.groups.attributes
    assert tuple(stored["merged"]) == data.merged != ()
    assert run.record.data.groups == data.groups
    assert 0 in group_counts(data.groups, data.test.g)
    study = ("--size=1", "--edit=zero", "--criterion=magnitude,gradient", "--controls=2", "--split=train,test")
    done = tiny.spurmem(capsys, "study", out, *study)
    assert done.status == 0, done.err
    for command in ("report", "compare"):
        done = tiny.spurmem(capsys, command, out)
        assert done.status == 0, done.err
    assert data.groups.names[0] == "class 0 with color 0; day; rain=False"
    assert data.groups.names[0] in (out / "report.html").read_text()
    done = tiny.spurmem(capsys, "train", folder, *tiny.train_flags(out, epochs=2, attribute="a,light,rain"), "--resume")
    assert "min_group_size = 4, not 1" in done.error
    done = tiny.spurmem(capsys, "data", "groups", folder, "--network", out, "--min-group-size=2")
    assert "color 0; day" in done.out
