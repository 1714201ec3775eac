"""Places that can't be written, full disks and two writers: an error of one line, and the same command works later."""

from __future__ import annotations

import errno
import multiprocessing
import os
import re
import resource
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import pytest
import tiny
import torch

import spurious_memorization as sm

pytestmark = pytest.mark.filterwarnings("ignore:all .* samples .* are classified correctly", "ignore:only .* null sets")

Capture = pytest.CaptureFixture[str]


def commands(squares: Path, run: sm.Run, weights: Path, out: Path) -> dict[str, list[Any]]:
    return {
        "train": ["train", squares, *tiny.train_flags(out)],
        "import": ["import", squares, "--model", tiny.NETWORK, "--weights", weights, "--out", out],
        "edit": ["edit", run.path, "--units=conv1:1", "--out", out],
    }


@pytest.mark.parametrize("command", ["train", "import", "edit"])
def test_a_place_below_a_file(command: str, squares: Path, run: sm.Run, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "file").write_text("mine")
    torch.save(run.state(3), tmp_path / "w.pth")
    before = tiny.contents(tmp_path)
    chosen = commands(squares, run, tmp_path / "w.pth", tmp_path / "file" / "out")[command]
    assert "file" in tiny.spurmem(capsys, *chosen).error
    assert tiny.contents(tmp_path) == before


@pytest.mark.parametrize("command", ["train", "import", "edit"])
def test_a_place_without_permission(
    command: str, squares: Path, run: sm.Run, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(run.state(3), tmp_path / "w.pth")
    original = os.mkdir

    def fail(path: Any, *arguments: Any, **named: Any) -> None:
        if "forbidden" in str(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        original(path, *arguments, **named)

    monkeypatch.setattr(os, "mkdir", fail)
    before = tiny.contents(tmp_path)
    chosen = commands(squares, run, tmp_path / "w.pth", tmp_path / "forbidden" / "out")[command]
    assert "can't be written" in tiny.spurmem(capsys, *chosen).error
    assert tiny.contents(tmp_path) == before


def test_a_report_says_before_its_pass_over_the_images_that_it_cannot_be_written(
    studied: sm.Study, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = tempfile.mkstemp

    def fail(*arguments: Any, dir: Any = None, **named: Any) -> Any:
        if Path(dir).name == "forbidden":
            raise PermissionError(errno.EACCES, "Permission denied", str(dir))
        return original(*arguments, dir=dir, **named)

    monkeypatch.setattr(tempfile, "mkstemp", fail)
    before = tiny.contents(studied.path)
    page = tmp_path / "forbidden" / "page.html"
    said = tiny.spurmem(capsys, "report", studied.path.parent.parent, "--out", page)
    assert "forbidden can't be written" in said.error
    assert "one pass over" not in said.err
    assert tiny.contents(studied.path) == before
    assert not page.parent.exists()


def _hold(lock: Path, ready: Any, done: Any) -> None:
    with filelock.FileLock(lock):
        ready.set()
        done.wait(60)


@pytest.fixture
def held(run: sm.Run) -> Iterator[None]:
    """Another process writes the run."""
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(run.path / ".lock", ready, done))
    other.start()
    assert ready.wait(60)
    yield
    done.set()
    other.join()


@pytest.mark.usefixtures("held")
def test_two_commands_writing_one_run(run: sm.Run, squares: Path, capsys: Capture) -> None:
    before = tiny.contents(run.path)
    for command in (
        ("train", squares, *tiny.train_flags(run.path), "--resume"),
        ("trace", run.path, "--criterion=magnitude"),
        ("study", run.path, "--criterion=magnitude"),
    ):
        assert "another command is writing" in tiny.spurmem(capsys, *command).error
    assert tiny.contents(run.path) == before


@pytest.mark.parametrize(
    ("command", "place"),
    [
        ("report", "run/run.json"),
        ("report", "run"),
        ("export csv", "data/metadata.csv"),
        ("export csv", "run/history.parquet"),
        ("export model-card", "run/run.json"),
        ("discover", "data/metadata.csv"),
        ("discover", "run/run.json"),
    ],
)
def test_a_file_of_another_kind_stays(
    command: str, place: str, trained: sm.Run, squares: Path, tmp_path: Path, capsys: Capture
) -> None:
    run = tiny.copied(trained, tmp_path / "run")
    shutil.copytree(squares, tmp_path / "data")
    before = tiny.contents(tmp_path)
    given = tmp_path / "data" if command == "discover" else run.path
    error = tiny.spurmem(capsys, *command.split(), given, "--out", tmp_path / place).error
    assert "name a file that ends in" in error or "choose another file" in error
    assert tiny.contents(tmp_path) == before


def test_a_full_disk_while_training(squares: Path, trained: sm.Run, tmp_path: Path, capsys: Capture) -> None:
    """A write fails in the second epoch. The run stays usable and continues later."""
    out = tmp_path / "run"
    real = os.fsync
    written: list[int] = []

    def full(handle: int) -> None:
        written.append(handle)
        if len(written) > 15:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert "no space left to write" in tiny.spurmem(capsys, "train", squares, *tiny.train_flags(out)).error
    run = sm.Run(out)
    assert run.epochs()
    assert run.epochs() != trained.epochs()
    assert not [name for name in tiny.files_below(out) if "/." in name]
    assert tiny.spurmem(capsys, "trace", out, "--criterion=magnitude").status == 0
    assert tiny.spurmem(capsys, "train", squares, *tiny.train_flags(out), "--resume").status == 0
    assert tiny.same_networks(sm.Run(out), trained)


@pytest.mark.slow
@pytest.mark.parametrize("limit", [2_000, 9_000, 12_000])
def test_no_room_for_a_larger_file(limit: int, squares: Path, trained: sm.Run, tmp_path: Path) -> None:
    """Whatever library writes the file that doesn't fit: tables, checkpoints (6 kB), the trainer's state (21 kB)."""
    out = tmp_path / "run"

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            sm.train(squares, out, sm.TrainSettings(**tiny.QUICK))
        except sm.UserError as error:
            os._exit(7 if "\n" not in str(error) and "too large" in str(error) else 8)
        os._exit(9)

    assert tiny.in_child(limited) == 7
    assert not [name for name in tiny.files_below(out) if "/." in name]
    run = sm.train(squares, out, sm.TrainSettings(**tiny.QUICK), resume=True)
    assert tiny.same_networks(run, trained)


@pytest.mark.slow
def test_a_full_disk_while_studying(run: sm.Run, tmp_path: Path, capsys: Capture) -> None:
    command = ("study", run.path, "--criterion=magnitude", "--controls=2", "--name=s")
    real, written = os.fsync, []

    def full(handle: int) -> None:
        written.append(handle)
        if len(written) > 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    before = tiny.contents(run.path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert "no space left" in tiny.spurmem(capsys, *command).error
    assert before.items() <= tiny.contents(run.path).items()
    assert tiny.spurmem(capsys, *command).status == 0
    whole = sm.study(
        tiny.copied(run, tmp_path / "w"), sm.StudySettings(criterion=("weight_norm",), controls=2), name="t"
    )
    assert sm.Study(run.path / "studies" / "s").results().equals(whole.results())


def test_checkpoints_that_would_not_fit_are_an_error_before_training(
    squares: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    error = tiny.spurmem(capsys, "train", squares, *tiny.train_flags(tmp_path / "out")).error
    assert re.search(r"4 checkpoints need \d\d kB but \S+ has 10 kB: ", error)
    assert "--checkpoint-every" in error
    assert not sm.Run(tmp_path / "out").exists
