"""Studies on further processes and on Ray: the frames of one process, bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pieces
import pytest
import tiny
from study_oracle import small

import spurious_memorization as sm
from spurious_memorization.engine import outcomes
from spurious_memorization.studies import blocks
from spurious_memorization.studies.store import MemoryStore

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:all .* samples .* are classified correctly", "ignore:only .* null sets"),
]

ALL_EDITS = sm.StudySettings(criterion=("weight_norm",), size=("1..6",), controls=19, split=("train",), edit=("zero",))


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of five edits x seven samples, so that a tiny study has many."""
    sizes = {"EDITS": 5, "MIN_SAMPLES": 7, "OUTCOMES": 1, "MAX_OUTCOMES": 1}
    for name, value in sizes.items():
        monkeypatch.setattr(outcomes, f"{name}_PER_BLOCK", value)


def frames(study: sm.Study) -> dict[str, bytes]:
    """Every frame of a study in memory, as Parquet."""
    assert isinstance(study.store, MemoryStore)
    return study.store._frames


def in_memory(run: sm.Run, data: sm.Dataset, on: str) -> dict[str, bytes]:
    return frames(sm.study_in_memory(run.network(3), data, ALL_EDITS, execution=sm.WorkerExecution(on=on)))


@pytest.mark.parametrize("on", ["processes:2", "ray"])
@pytest.mark.usefixtures("small_blocks", "two_ray_workers")
def test_a_worker_killed_midway_changes_no_bit(
    on: str,
    trained: sm.Run,
    squares: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = sm.read_data(squares)
    once = in_memory(trained, data, "here")
    assert sum("outcomes" in name for name in once) > 20
    watched = replace(data, source=pieces.Watched(data.source, tmp_path))
    saved: list[str] = []
    original = MemoryStore.save_frame

    def killing(store: MemoryStore, name: str, frame: object) -> None:
        saved.append(name)
        if len(saved) == 8:
            readers = {int(file.name) for file in tmp_path.iterdir()} - {os.getpid()}
            assert len(readers) == 2
            os.kill(readers.pop(), signal.SIGKILL)
        original(store, name, frame)

    monkeypatch.setattr(MemoryStore, "save_frame", killing)
    again = in_memory(trained, watched, on)
    assert capsys.readouterr().err.count("a worker is lost") == 1
    assert len({int(file.name) for file in tmp_path.iterdir()} - {os.getpid()}) == 3
    assert len(saved) == len(set(saved))  # each block once
    assert again.keys() == once.keys()
    assert [name for name in once if once[name] != again[name]] == []


@pytest.mark.parametrize("on", ["processes:2", "ray"])
@pytest.mark.usefixtures("two_ray_workers")
def test_an_error_of_a_worker_arrives_in_one_line(on: str, trained: sm.Run, squares: Path, tmp_path: Path) -> None:
    data = sm.read_data(squares)
    source = pieces.UnreadableElsewhere(data.source, tmp_path, os.getpid())
    with pytest.raises(sm.UserError, match=r"^image a\.png is missing: `spurmem data check` lists all missing files$"):
        in_memory(trained, replace(data, source=source), on)


def test_a_study_whose_head_died_goes_on_here(trained: sm.Run, tmp_path: Path) -> None:
    """The whole tree of processes is killed: the study, Ray's head and its workers."""
    whole = sm.study(tiny.copied(trained, tmp_path / "whole"), small(), name="once")
    run = tiny.copied(trained, tmp_path / "run")
    flags = ["--criterion", "weight_norm,gradient", "--size", "1..2", "--controls", "3", "--split", "train,test"]
    study = ["study", str(run.path), "--name", "once", *flags, "--on", "ray"]
    log = tmp_path / "log.txt"
    own = {"PYTHONPATH": os.pathsep.join(sys.path), "RAY_ADDRESS": "local"}
    with log.open("w") as said:
        command = [sys.executable, "-m", "spurious_memorization", *study]
        head = subprocess.Popen(command, start_new_session=True, stderr=said, env={**os.environ, **own})
    folder = run.path / "studies" / "once" / "outcomes"
    waited_for(lambda: head.poll() is not None or len(list(folder.glob("*.parquet"))) >= 3)
    assert head.poll() is None, log.read_text()
    for process in of_session(head.pid):
        os.kill(process, signal.SIGKILL)
    head.wait()
    left = {file: file.stat().st_mtime_ns for file in folder.glob("*.parquet")}
    assert 3 <= len(left) < len(list((whole.path / "outcomes").glob("*.parquet")))
    again = sm.study(run, small(), name="once")
    assert all(file.stat().st_mtime_ns == then for file, then in left.items())
    assert tiny.files_below(whole.path) == tiny.files_below(again.path)
    for name in tiny.files_below(whole.path):
        assert (again.path / name).read_bytes() == (whole.path / name).read_bytes(), name


def test_the_plan_says_hours_by_the_number_of_workers(
    trained: sm.Run, squares: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    in_memory(trained, sm.read_data(squares), "processes:1")
    assert " blocks: " in capsys.readouterr().err
    assert blocks._by_workers(36_000, 120) == (
        "10.0 h on 1 worker, 2.5 h on 4 workers, 40 min on 16 workers, 10 min on 64 workers"
    )
    assert blocks._by_workers(30, 9) == "30 s on 1 worker, 10 s on 4 workers, 3 s on 9 workers"


def waited_for(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def of_session(session: int) -> list[int]:
    """Every process of a session."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(folder.name)) == session:
                found.append(int(folder.name))
        except ProcessLookupError:
            continue
    return found
