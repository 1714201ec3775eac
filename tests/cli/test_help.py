"""Help texts: every command has one, it names every option, and it needs no slow library."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

import spurious_memorization as sm
from spurious_memorization.cli import COMMANDS

Capture = pytest.CaptureFixture[str]

DATA_COMMANDS = (
    "data", "data make", "data make synthbirds", "data make colored-digits", "data make waterbirds", "data prepare",
    "data prepare waterbirds", "data prepare celeba", "data check", "data properties", "data groups",
)  # fmt: skip
SCRIPTS = sorted((Path(__file__).parents[2] / "scripts").glob("*.py"))
SLOW_LIBRARIES = ("torch", "torchvision", "timm", "pandas", "scipy", "sklearn", "altair")

SHOW_HELP = f"""
import contextlib, io, json, runpy, sys
from spurious_memorization.cli import main

sys.argv[1:], argument = ["--help"], sys.argv[1]
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    if argument.endswith(".py"):
        sys.argv[0] = argument
        runpy.run_path(argument, run_name="__main__")
    else:
        main([*argument.split(), "--help"])
print(json.dumps([name for name in {SLOW_LIBRARIES} if name in sys.modules]))
"""


@pytest.mark.parametrize("command", ["", *COMMANDS, *DATA_COMMANDS])
def test_help(command: str, capsys: Capture) -> None:
    done = tiny.spurmem(capsys, *command.split(), "--help")
    assert done.status == 0
    assert f"Usage: spurmem {command}".strip() in done.out
    assert done.err == ""


def test_help_names_every_option(capsys: Capture) -> None:
    out = tiny.spurmem(capsys, "train", "--help").out
    for field in (*sm.TrainSettings.model_fields, *sm.TrainExecution.model_fields):
        flag = "from" if field == "start" else field.replace("_", "-")
        assert f"--{flag}" in out, flag
    out = tiny.spurmem(capsys, "study", "--help").out
    for field in sm.StudySettings.model_fields:
        assert f"--{field.replace('_', '-')}" in out, field


@pytest.mark.slow
def test_help_offers_places_for_pieces_of_work_only_where_there_are_pieces(capsys: Capture) -> None:
    offered = {command for command in COMMANDS if re.search(r"--on\s", tiny.spurmem(capsys, command, "--help").out)}
    assert offered >= {"study", "trace", "compare", "calibrate", "memorization", "discover", "mitigate", "reproduce"}
    assert not offered & {"report", "figure", "words", "edit", "import", "export", "check-groups", "data", "demo"}


@pytest.mark.parametrize("command", ["", "study", "data make waterbirds"])
def test_help_imports_no_slow_library(command: str) -> None:
    assert slow_libraries_of_help(command) == []


@pytest.mark.slow
@pytest.mark.parametrize("command", [*COMMANDS, *DATA_COMMANDS, *map(str, SCRIPTS)])
def test_help_of_any_command_imports_no_slow_library(command: str) -> None:
    assert slow_libraries_of_help(command) == []


def slow_libraries_of_help(command: str) -> list[str]:
    """Libraries that a new process has imported once it has shown the help of a command or a script."""
    done = subprocess.run([sys.executable, "-c", SHOW_HELP, command], capture_output=True, text=True, check=True)
    imported: list[str] = json.loads(done.stdout)
    return imported
