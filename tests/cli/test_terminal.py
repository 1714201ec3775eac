"""What a new user sees in a terminal: without colors, piped, with a typo, with a wrong value."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from rich.console import Console

import spurious_memorization as sm
from spurious_memorization import console as waiting
from spurious_memorization.cli import main
from spurious_memorization.training import train as training

Capture = pytest.CaptureFixture[str]


def program(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, its output piped."""
    return subprocess.run(
        [sys.executable, "-m", "spurious_memorization", *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["stduy"]])
def test_what_needs_no_network_loads_none(arguments):
    heavy = {"torch", "timm", "torchvision", "scipy", "altair"}
    code = f"""
import sys
from spurious_memorization.cli import main
try:
    main({arguments!r})
except SystemExit:
    pass
print(sorted({heavy!r} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("encoding", "bird"), [("ascii", r"\u9ce5"), ("cp1252", r"\u9ce5"), ("latin-1", r"\u9ce5"), ("utf-8", "鳥")]
)
def test_names_beyond_the_encoding_of_the_output_are_escaped(
    tmp_path: Path, encoding: str, bird: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [f"{i}.png,{'café' if i % 2 else '鳥'},{'sea' if i % 3 else 'land'},train" for i in range(6)]
    (tmp_path / "metadata.csv").write_text("\n".join(["path,y,a,split", *rows]), encoding="utf-8")

    def printed(*arguments: str) -> tuple[int | str | None, str, str]:
        streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
        monkeypatch.setattr(sys, "stdout", streams[0])
        monkeypatch.setattr(sys, "stderr", streams[1])
        with pytest.raises(SystemExit) as caught:
            main(["data", "check", *arguments])
        for stream in streams:
            stream.flush()
        out, err = (stream.buffer.getvalue().decode("utf-8") for stream in streams)  # type: ignore[attr-defined]
        return caught.value.code, out, err

    status, out, err = printed(str(tmp_path), "--no-decode")
    assert (status, err) == (1, "")
    assert f"{bird} with land" in out
    assert ("café with" if encoding == "utf-8" else r"caf\xe9 with") in out
    status, out, err = printed(str(tmp_path), "--no-decode", "--json")
    assert (status, err) == (1, "")
    assert "鳥 with land" in json.loads(out)["groups"]
    status, out, err = printed(str(tmp_path / "鳥"))
    assert (status, out) == (2, "")
    assert f"{bird} does not exist" in err
    assert err.count("\n") == 1


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, spurious_memorization as sm; dir(sm); print({'torch', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.slow
def test_no_function_shares_its_name_with_a_module():
    """Otherwise importing the module would hide the function."""
    code = """
import pkgutil
import spurious_memorization as sm
import spurious_memorization.statistics.verdicts as verdicts
assert verdicts.LEVEL == 0.05
for package in (sm, sm.criteria, sm.edits):
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    hidden = modules & set(package.__all__) - {"criteria", "edits"}
    assert not hidden, hidden
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="attribute gradeint"):
        sm.gradeint  # noqa: B018


@pytest.mark.slow
def test_the_list_of_commands_shows_the_summary_of_each(capsys: Capture) -> None:
    listed = " ".join(re.sub("[│\n]", " ", tiny.spurmem(capsys, "--help").out).split())
    for command in ("train", "study", "trace", "demo", "edit", "import", "calibrate"):
        usage, _, rest = tiny.spurmem(capsys, command, "--help").out.partition("\n\n")
        summary = " ".join(rest.partition("\n\n")[0].split())
        assert usage.startswith(f"Usage: spurmem {command}")
        assert f"{command} {summary}" in listed, command


@pytest.mark.parametrize(
    ("typed", "error"),
    [
        (["stduy", "runs/first"], 'spurmem: Unknown command "stduy". Did you mean "study"?'),
        (["xyzzy"], 'spurmem: Unknown command "xyzzy". Available commands: calibrate, check-groups, compare'),
        (["data", "chekc", "x"], "did you mean"),
        (["train", "nowhere", "--out", "x"], "nowhere"),
        (["train", "nowhere", "--out", "x", "--epohcs", "3"], "--epochs"),
        (["train"], "DATA"),
    ],
)
def test_a_typo_is_one_line_that_fixes_it(typed: list[str], error: str, capsys: Capture) -> None:
    assert error.lower() in tiny.spurmem(capsys, *typed).error.lower()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--criterion", "gradeint"], "unknown criterion 'gradeint': choose among weight_norm, gradient"),
        (["--size", "three"], "size 'three': write 1..3"),
        (["--edit", "zeroo"], "unknown edit 'zeroo': choose among zero"),
        (["--units", "layer9.conv:3"], "no tensor 'layer9.conv'"),
        (["--split", "trian"], "unknown split 'trian': choose among train"),
        (["--group", "seagull"], "seagull"),
        (["--epoch", "99"], "no checkpoint of epoch '99'"),
        (["--unit", "chanel"], "channel"),
        (["--controls", "many"], "--controls"),
    ],
)
def test_a_wrong_value_is_one_line_that_fixes_it(
    options: list[str], error: str, trained: sm.Run, capsys: Capture
) -> None:
    assert error in tiny.spurmem(capsys, "study", trained.path, *options).error


@pytest.mark.slow
def test_piped_output_has_no_escape_codes_and_no_bar(squares: Path, tmp_path: Path) -> None:
    for environment in ({}, {"NO_COLOR": "1", "TERM": "dumb"}):
        done = program("data", "check", str(squares), **environment)
        assert done.returncode == 0, done.stderr
        assert "\x1b" not in done.stdout + done.stderr
        assert "\r" not in done.stdout + done.stderr
        assert "class 0 with color 1" in done.stdout


@pytest.mark.slow
def test_output_into_an_encoding_without_signs(squares: Path) -> None:
    done = program("data", "check", str(squares), PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "class 0 with color 1" in done.stdout


@pytest.mark.slow
def test_a_reader_that_leaves_early(squares: Path) -> None:
    command = f"'{sys.executable}' -m spurious_memorization data check '{squares}' | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert len(done.stdout.splitlines()) == 1


def test_no_bar_where_a_line_can_not_be_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream = io.StringIO()
    monkeypatch.setattr(waiting, "console", Console(file=stream, force_terminal=True))
    assert list(waiting.progress([1, 2], 2, "work")) == [1, 2]
    assert stream.getvalue() == ""


@pytest.mark.slow
def test_closed_output(squares: Path) -> None:
    command = 'exec "$0" -m spurious_memorization data check "$1" >&-'
    done = subprocess.run(["sh", "-c", command, sys.executable, str(squares)], stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("flags", ["", "--json"])
def test_output_to_a_full_disk(flags: str, squares: Path) -> None:
    command = f"'{sys.executable}' -m spurious_memorization data check '{squares}' {flags} > /dev/full"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    said = "spurmem: the output can't be written (No space left on device): free some space, or send it elsewhere\n"
    assert (done.returncode, done.stderr) == (2, said)


def test_an_interrupt_says_how_to_go_on(
    squares: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", interrupted)
    said = tiny.spurmem(capsys, "train", squares, "--out", tmp_path / "run")
    line = "spurmem: interrupted; run the same command again to continue (a training with --resume)\n"
    assert (said.status, said.err) == (130, line)
