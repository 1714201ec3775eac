"""No retired word comes back: what codespell can't see, since it reads whole words only.

`retired-words.txt` lists words for codespell. Here are parts of identifiers and phrases.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
THIS = Path(__file__)
MADE = ROOT / "docs" / "commands.md"  # made from the help of the commands by docs/build.py
FOLDERS = ("src", "tests", "docs", "benchmarks")
KINDS = {".py", ".pyi", ".md", ".html", ".js", ".css", ".jinja", ".j2", ".toml", ".yaml", ".sh"}
OLD_NAMES = re.compile(r"<!-- old names: begin -->.*?<!-- old names: end -->", re.DOTALL)

RETIRED = {
    r"picture": "image",
    r"memoris": "memoriz...",
    r"colour": "color",
    r"refuse_": "check_",
    r"(?-i:\bMOST_)": "MAX_",
    r"(?-i:\bLEAST_)": "MIN_",
    r"whole_file|whole_folder": "atomic_write, atomic_folder",
    r"kept_ready": "edit_cache",
    r"(?<!mi)n_worst|worst samples|worst images|\bworst\(": "hardest_samples",
    r"accuracy_shift|shift_of|\bshifts\b": "accuracy_change",
    r"\bloud|_loud": "norm",
    r"excit(?:e|ing|ation)": "activate, top_activating",
    r"(?-i:\bExhibit)": "GalleryItem",
    r"(?-i:\bFollowing\b(?! the| this| an?\b))|\bfollow_units": "UnitTracking, track_units",
    r"(?-i:\bsay\()|console\.say": "console.log",
    r"(?-i:\bSpent\b)|_spent\b|\bspent_": "TrainingCost, training_cost",
    r"sm\.examine|\bexamine\(": "study_in_memory",
    r"a row a (?!time)|one row a |\ba file a |\ba line a ": "per: one row per unit",
    r"beside (?:its |their |the |matched |99 )?controls?\b": "compared with controls",
    r"matched.controls?\b": "null sets",
    r"every so many|so many-th|as far as the same|there are none of|\bis told\b": "plain words",
}


def files() -> Iterator[Path]:
    yield from (ROOT / "README.md", ROOT / "CHANGELOG.md")
    for folder in FOLDERS:
        for file in sorted((ROOT / folder).rglob("*")):
            if file.suffix in KINDS and file not in (THIS, MADE) and "__pycache__" not in file.parts:
                yield file


@pytest.fixture(scope="module")
def lines() -> list[tuple[str, str]]:
    """Every line of the project with its place."""
    found = []
    for file in files():
        text = OLD_NAMES.sub("", file.read_text(encoding="utf-8"))
        place = file.relative_to(ROOT).as_posix()
        found += [(f"{place}:{number}", line) for number, line in enumerate(text.splitlines(), 1)]
    return found


@pytest.mark.parametrize("pattern", RETIRED)
def test_no_retired_word(pattern, lines):
    retired = re.compile(pattern, re.IGNORECASE)
    hits = [f"{place}: {line.strip()[:100]}" for place, line in lines if retired.search(line)]
    assert not hits, f"use {RETIRED[pattern]}:\n" + "\n".join(hits)
