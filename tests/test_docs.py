"""The documentation's examples: Python runs, and every command that is shown is one that the program takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from spurious_memorization.cli.app import app

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    lines = [line for page in PAGES for block in blocks(page, "sh") for line in block.splitlines()]
    return sorted({line.split(" #")[0].strip() for line in lines if line.startswith("spurmem ")})


def test_commands_are_shown_for_every_part():
    shown = {line.split()[1] for line in commands()}
    assert {"data", "train", "import", "trace", "study", "edit", "demo"} <= shown


@pytest.mark.parametrize("line", commands())
def test_shown_commands_parse(line):
    app.parse_args(shlex.split(line)[1:], exit_on_error=False, print_error=False)


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:all .* are classified correctly:UserWarning")  # an untrained network may be lucky
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_examples_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for block in blocks(page, "python"):
        exec(compile(block, page.name, "exec"), {})
