"""`spurmem data properties`, from the command line."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tiny

import spurious_memorization as sm
from docs.figures.planted_properties import make_planted

Capture = pytest.CaptureFixture[str]
QUICK = "--permutations=99"


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "220")


@pytest.fixture(scope="module")
def framed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images without an attribute column, most of one class with a dark border."""
    return make_planted(tmp_path_factory.mktemp("framed") / "data", "border", seed=1, train=80, test=4)


def run(capture: Capture, *arguments: object) -> tiny.Printed:
    return tiny.spurmem(capture, "data", "properties", *arguments, QUICK)


def test_what_goes_with_the_label_is_shown(framed: Path, capsys: Capture) -> None:
    done = run(capsys, framed)
    assert (done.status, done.err) == (0, "")
    lines = {line.split("│")[1].strip(" *"): line for line in done.out.splitlines() if line.count("│") > 2}
    assert "goes with the label" in lines["border color"]
    assert "rising: border color black in " in lines["border color"]
    assert "the same everywhere" in lines["width"]
    assert "99 permutations" in done.out


def test_the_facts_are_those_of_python(framed: Path, capsys: Capture) -> None:
    facts = json.loads(run(capsys, framed, "--json", "--seed=4").out)
    expected = sm.property_associations(framed, sm.image_properties(framed), permutations=99, seed=4)
    assert [row["property"] for row in facts["associations"]] == expected["property"].tolist()
    assert facts["associations"][0]["p_adjusted"] == expected["p_adjusted"][0]
    assert (facts["samples"], facts["permutations"], facts["seed"], facts["split_seed"]) == (84, 99, 4, None)


def test_formats(framed: Path, capsys: Capture) -> None:
    markdown = run(capsys, framed, "--format=markdown").out
    assert "| property | mutual information | p | adjusted p | verdict |" in markdown
    frame = pd.read_csv(io.StringIO(run(capsys, framed, "--format=csv").out))
    assert list(frame)[:4] == ["property", "n", "values", "nmi"]


def test_out_gives_attributes(framed: Path, tmp_path: Path, capsys: Capture) -> None:
    folder = Path(shutil.copytree(framed, tmp_path / "my images"))
    done = run(capsys, folder, "--out", tmp_path / "new" / "properties.csv")
    assert f"spurmem data check '{folder}' --attribute border_color" in done.out
    assert run(capsys, folder, "--out", tmp_path / "new" / "properties.csv").status == 0
    shutil.copy(tmp_path / "new" / "properties.csv", folder / "metadata.csv")
    checked = tiny.spurmem(capsys, "data", "check", folder, "--attribute", "border_color", "--json")
    facts: Any = json.loads(checked.out)
    assert facts["sound"]
    assert facts["counts"]["train"]["rising with black"] > 30


@pytest.mark.parametrize("place", ["mine.csv", "data/metadata.csv", "notes.txt", "folder.csv"])
def test_other_files_stay(place: str, framed: Path, tmp_path: Path, capsys: Capture) -> None:
    shutil.copytree(framed, tmp_path / "data")
    (tmp_path / "mine.csv").write_text("path,y\n1,2\n")
    (tmp_path / "folder.csv").mkdir()
    before = tiny.contents(tmp_path)
    error = run(capsys, tmp_path / "data", "--out", tmp_path / place).error
    assert "ends in .csv" in error if place == "notes.txt" else "choose another file" in error
    assert tiny.contents(tmp_path) == before


def test_nothing_is_written_if_an_image_is_broken(tmp_path: Path, capsys: Capture) -> None:
    folder = make_planted(tmp_path / "data", None, seed=0, train=8)
    (folder / "train_0005.img").write_bytes(b"broken")
    before = tiny.contents(tmp_path)
    assert "train_0005.img can't be read" in run(capsys, folder, "--out", tmp_path / "properties.csv").error
    assert tiny.contents(tmp_path) == before


def test_a_network_along_the_properties(trained: sm.Run, squares: Path, capsys: Capture) -> None:
    done = run(capsys, squares, "--network", trained.path)
    worst = done.out.partition("Where the network is worst along each property, on test")[2]
    assert "brightness" in worst
    assert "width" not in worst  # all images have the same
    facts = json.loads(run(capsys, squares, "--network", trained.path, "--split=val", "--epoch=2", "--json").out)
    properties = sm.image_properties(squares)
    expected = sm.property_accuracies(trained, properties, split="val", epoch=2)
    assert [row["correct"] for row in facts["accuracies"]] == expected["correct"].tolist()
    assert {row["split"] for row in facts["accuracies"]} == {"val"}
    frame = pd.read_csv(io.StringIO(run(capsys, squares, "--network", trained.path, "--format=csv").out))
    assert set(frame["table"]) == {"associations", "accuracies"}


def test_a_network_of_other_data(trained: sm.Run, framed: Path, squares: Path, tmp_path: Path, capsys: Capture) -> None:
    table = pd.read_csv(squares / "metadata.csv").iloc[1:]
    other = Path(shutil.copytree(squares, tmp_path / "other"))
    table.to_csv(other / "metadata.csv", index=False)
    assert "does not hold the data" in run(capsys, other, "--network", trained.path).error
    assert "is not a run" in run(capsys, squares, "--network", tmp_path).error
    assert "no checkpoint of epoch 'x'" in run(capsys, squares, "--network", trained.path, "--epoch=x").error
