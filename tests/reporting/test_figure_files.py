"""Figures and their tables as files."""

from __future__ import annotations

import csv
import xml.etree.ElementTree as ET
from pathlib import Path

import pandas as pd
import pytest
import tiny
from PIL import Image
from report_page import NAMES

import spurious_memorization as sm

pytestmark = pytest.mark.filterwarnings("ignore:all .* samples .* are classified correctly", "ignore:only .* null sets")


Capture = pytest.CaptureFixture[str]


DRAWN = {"accuracy", "accuracy_changes", "layers", "ablation", "comparison", "images"}


@pytest.mark.slow
def test_every_figure_as_svg(run: sm.Run, tmp_path: Path, capsys: Capture) -> None:
    said = tiny.spurmem(capsys, "figure", "all", run.path, "--out", tmp_path)
    assert said.status == 0, said.err
    assert {file.name for file in tmp_path.glob("*.*")} == {f"{name}.svg" for name in DRAWN}
    for file in tmp_path.glob("*.svg"):
        text = file.read_text()
        assert ET.fromstring(text).tag.endswith("svg")
        assert "var(--" not in text
        assert text.count("<path") + text.count("<image") > 5, file.name


@pytest.mark.slow
def test_every_figure_as_png_and_pdf(run: sm.Run, tmp_path: Path, capsys: Capture) -> None:
    for style in ("png", "pdf"):
        said = tiny.spurmem(capsys, "figure", "all", run.path, "--format", style, "--out", tmp_path / style)
        assert said.status == 0, said.err
        assert {file.name for file in (tmp_path / style).iterdir()} == {f"{name}.{style}" for name in DRAWN}
    for file in (tmp_path / "png").iterdir():
        with Image.open(file) as image:
            assert min(image.size) > 200
    assert all(file.read_bytes().startswith(b"%PDF") for file in (tmp_path / "pdf").iterdir())


@pytest.mark.slow
def test_every_table_in_every_format(run: sm.Run, tmp_path: Path, capsys: Capture) -> None:
    for style, ending in (("latex", "tex"), ("markdown", "md"), ("csv", "csv")):
        said = tiny.spurmem(capsys, "figure", "all", run.path, "--format", style, "--out", tmp_path / style)
        assert said.status == 0, said.err
        names = {f"{name}.{ending}" for name in {*DRAWN, "verdicts", "counts", "groups"}}
        assert {file.name for file in (tmp_path / style).iterdir()} == names
    assert r"\toprule" in (tmp_path / "latex" / "accuracy_changes.tex").read_text()
    assert (tmp_path / "markdown" / "verdicts.md").read_text().startswith("**Verdicts on minority groups**\n\n| ")
    rows = list(csv.DictReader((tmp_path / "csv" / "comparison.csv").read_text().splitlines()))
    history = run.history().query("epoch == 3 and split == 'test'").set_index("group")
    assert [float(row["test"]) for row in rows] == (history["correct"] / history["n"]).tolist()


@pytest.mark.slow
def test_a_choice_takes_rows_out(run: sm.Run, tmp_path: Path, capsys: Capture) -> None:
    flags = ("--split=test", "--criterion=gradient", "--size=2", "--group", NAMES[1], "--edit=zero", "--format=csv")
    said = tiny.spurmem(capsys, "figure", "accuracy_changes", run.path, *flags, "--out", tmp_path)
    assert said.status == 0, said.err
    table = pd.read_csv(tmp_path / "accuracy_changes.csv")
    assert len(table) == 2
    assert set(table["criterion"]) == {f"gradient ({NAMES[1]})", f"gradient ({NAMES[2]})"}
    assert (table["split"] == "test").all()
    assert (table["size"] == 2).all()
    assert (table["group"] == NAMES[1]).all()
