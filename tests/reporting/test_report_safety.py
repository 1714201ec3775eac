"""The page loads nothing, and text of the data stays text."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import tiny
from report_page import Page

import spurious_memorization as sm
from spurious_memorization.reporting.figures.figure import CHOOSERS

pytestmark = pytest.mark.filterwarnings("ignore:all .* samples .* are classified correctly", "ignore:only .* null sets")


def test_the_pages_choosers_are_those_of_the_command(page: Page) -> None:
    assert set(CHOOSERS) - {"run"} == set(sm.FigureSettings.model_fields) - {"format"}
    for name, figure in page.data["figures"].items():
        assert set(figure["choosers"]) <= set(CHOOSERS), name


def test_nothing_is_loaded_and_no_script_runs_but_ours(file: Path, page: Page) -> None:
    text = file.read_text(encoding="utf-8")
    assert "default-src &#39;none&#39;; script-src &#39;sha256-" in text
    assert page.elements["script"] == 3
    assert page.elements["img"] == page.elements["link"] == page.elements["iframe"] == 0
    assert {"src", "href", "onload", "onerror", "onclick"} & set(page.attributes) == set()
    assert file.stat().st_size < 5_000_000


@pytest.mark.slow
def test_names_can_inject_nothing(hostile: sm.Run, page: Page, tmp_path: Path) -> None:
    shown = Page(sm.report([hostile.path], tmp_path / "page.html"))
    for tag in ("script", "img", "b", "table", "section", "h1"):
        assert shown.elements[tag] == page.elements[tag], tag
    assert set(shown.attributes) == set(page.attributes)
    groups = {row["group"] for row in shown.tables["accuracy"]}
    expected = {f"{c} with {a}" for c in tiny.HOSTILE["classes"] for a in tiny.HOSTILE["attributes"]}
    assert groups == expected
    for name in ("svg", "latex"):
        files = sm.draw_figures("all", [hostile.path], tmp_path / name, sm.FigureSettings(format=name))
        assert len(files) >= 6
    for drawn in (tmp_path / "svg").iterdir():
        tags = {element.tag.rpartition("}")[2] for element in ET.parse(drawn).iter()}
        assert not tags & {"script", "b", "img"}
