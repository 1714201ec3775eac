"""Processes that run at once: all of them end when one fails."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path

import beside
import filelock
import pytest
import tiny

import spurious_memorization as sm
from spurious_memorization.schedulers.at_once import at_once

pytestmark = pytest.mark.slow


def run_on(folder: Path) -> bool:
    """Whether a process still holds its lock."""
    try:
        for file in folder.iterdir():
            filelock.FileLock(file, timeout=0).acquire().lock.release()
    except filelock.Timeout:
        return True
    return False


def test_each_number_is_called_once(tmp_path: Path) -> None:
    at_once(partial(beside.fails, "done", tmp_path), 3)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["0", "1", "2"]
    assert not run_on(tmp_path)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("user", "^the image is missing: restore it$"),
        ("kill", r"^process \d+ has ended, SIGKILL, and so the other processes were ended: .* --resume$"),
        ("lost", r"^process \d+ has ended, exit status 3, and so the other"),
    ],
)
def test_one_that_fails_ends_all(what: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(sm.UserError, match=message) as caught:
        at_once(partial(beside.fails, what, tmp_path), 2)
    assert "\n" not in str(caught.value)
    assert not run_on(tmp_path)


def test_a_bug_is_raised_as_it_was(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="a bug"):
        at_once(partial(beside.fails, "bug", tmp_path), 2)
    assert not run_on(tmp_path)


def test_they_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    def parent() -> None:
        import threading

        def kill_when_both_run() -> None:
            while len(list(tmp_path.iterdir())) < 2:
                time.sleep(0.1)
            time.sleep(0.5)
            os.kill(os.getpid(), signal.SIGKILL)

        threading.Thread(target=kill_when_both_run).start()
        at_once(partial(beside.fails, "wait", tmp_path), 2)

    assert tiny.in_child(parent) == -signal.SIGKILL
    for _ in range(50):
        if not run_on(tmp_path):
            return
        time.sleep(0.1)
    raise AssertionError("processes still run")
