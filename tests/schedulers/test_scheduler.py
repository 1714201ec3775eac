"""Pieces of work on workers: every result once, errors as they were raised, and lost workers replaced."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import cloudpickle
import pieces
import pytest

import spurious_memorization as sm
from spurious_memorization.schedulers.local import LocalProcess, LocalProcesses
from spurious_memorization.schedulers.scheduler import InThisProcess, OnWorkers, Scheduler, workers_on

NOT_PLACES = ["there", "processes:0", "processes:257", "processes:", "processes:1e3", "ray://head", ""]
PLACES = ["processes:2", pytest.param("ray", marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=PLACES)
def scheduler(request: pytest.FixtureRequest) -> Iterator[Scheduler[object, object]]:
    if request.param == "ray":
        request.getfixturevalue("two_ray_workers")
    with workers_on(request.param, partial(pieces.times, 10), on_gpus=True) as workers:
        yield workers


def test_this_process_runs_pieces_in_their_order() -> None:
    assert list(InThisProcess(pieces.times(2)).run(range(3))) == [(n, (2 * n, os.getpid())) for n in range(3)]


@pytest.mark.slow
def test_workers_give_every_result_once(scheduler: Scheduler[object, object]) -> None:
    found = dict(scheduler.run(range(20)))
    assert {number: value for number, (value, _) in found.items()} == {n: 10 * n for n in range(20)}
    assert os.getpid() not in {process for _, process in found.values()}
    assert list(scheduler.run([])) == []
    assert scheduler.workers == 2


@pytest.mark.slow
def test_a_lost_worker_costs_its_piece_only(
    scheduler: Scheduler[object, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = dict(scheduler.run([1, tmp_path / "ends_one_worker", 2]))
    assert [found[0][0], found[1], found[2][0]] == [10, 1, 20]
    assert capsys.readouterr().err.count("piece 1 is tried again") == 1


def run_script(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program that can import what the tests can."""
    script = folder / "script.py"
    script.write_text(text)
    own = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, script], cwd=folder, env=own, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.slow
def test_workers_end_with_a_process_that_never_stopped_them(tmp_path: Path) -> None:
    """So it is if a second interrupt comes while the first one ends the workers."""
    done = run_script(
        tmp_path,
        "import cloudpickle, pieces\n"
        "from spurious_memorization.schedulers.local import LocalProcesses\n"
        "from spurious_memorization.schedulers.scheduler import OnWorkers\n"
        "workers = OnWorkers(LocalProcesses(1, cloudpickle.dumps(pieces.meeting), 1))\n"
        "found = workers.run([(pieces.Path('one'), pieces.Path('one')), (pieces.Path('two'), pieces.Path('never'))])\n"
        "print(next(found))\n",
    )
    assert (done.returncode, done.stdout) == (0, "(0, True)\n"), done.stderr


@pytest.mark.slow
def test_a_killed_worker_leaves_no_semaphore_of_a_progress_bar(tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        "import pieces\n"
        "from spurious_memorization.schedulers.scheduler import workers_on\n"
        "with workers_on('processes:1', pieces.bar, on_gpus=False) as workers:\n"
        "    print(*workers.run([3]))\n",
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "(0, 3)\n", "")


@pytest.mark.slow
def test_workers_that_come_late_are_used(tmp_path: Path) -> None:
    """Each piece ends only if the other one has begun."""

    class Growing(LocalProcesses):
        def ready(self, busy: Sequence[LocalProcess]) -> LocalProcess | None:  # type: ignore[override]
            self.room, was = 2, self.room
            return super().ready(busy) if was == 2 else None

    workers = OnWorkers[tuple[Path, Path], bool](Growing(1, cloudpickle.dumps(pieces.meeting), 1))
    one, two = tmp_path / "one", tmp_path / "two"
    try:
        assert dict(workers.run([(one, two), (two, one)])) == {0: True, 1: True}
    finally:
        workers.close()


@pytest.mark.slow
def test_errors_of_workers_are_those_that_were_raised(scheduler: Scheduler[object, object]) -> None:
    with pytest.raises(sm.UserError, match=r"^the piece is wrong: change it$"):
        list(scheduler.run(["user"]))
    with pytest.raises(KeyError, match="a bug") as caught:
        list(scheduler.run(["bug"]))
    assert "in a worker" in caught.value.__notes__[0]
    assert next(scheduler.run([4]))[1][0] == 40


@pytest.mark.slow
def test_a_run_that_was_given_up_leaves_no_answer_for_the_next(scheduler: Scheduler[object, object]) -> None:
    next(scheduler.run([1, 2, 3, 4]))
    found = dict(scheduler.run([5, 6, 7]))
    assert {number: value for number, (value, _) in found.items()} == {0: 50, 1: 60, 2: 70}


@pytest.mark.slow
def test_a_piece_that_ends_every_worker_is_given_up(scheduler: Scheduler[object, object]) -> None:
    with pytest.raises(sm.UserError, match=r"^piece 0 has ended 3 workers \(.*\): often memory is full, so") as caught:
        list(scheduler.run(["end"]))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("on", PLACES)
def test_workers_that_cannot_start_say_why(on: str, two_ray_workers: None) -> None:
    with (
        pytest.raises(sm.UserError, match="the factor is 0: choose another one"),
        workers_on(on, partial(pieces.times, 0), on_gpus=True) as workers,
    ):
        list(workers.run([1]))


@pytest.mark.parametrize(
    "on", ["there", "processes:0", "processes:257", "processes:", "processes:1e3", "ray://head", ""]
)
def test_unknown_places_are_refused(on: str) -> None:
    with pytest.raises(ValueError, match="is none of here, processes:N"):
        sm.WorkerExecution(on=on)
