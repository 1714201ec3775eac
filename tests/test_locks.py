"""One command at a time writes a folder, whatever the file system can do and however the last one died."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from pathlib import Path
from typing import NoReturn

import pytest
import tiny

import spurious_memorization as sm
from spurious_memorization.locks import kept_if_used, locked


@pytest.fixture(params=[errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def without_flock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without locks."""

    def fail(*_: object) -> NoReturn:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", fail)


def refused(folder: Path) -> str:
    with pytest.raises(sm.UserError) as caught, locked(folder):
        pass
    return str(caught.value)


def test_a_second_command_is_refused(tmp_path: Path) -> None:
    with locked(tmp_path / "run"):
        (tmp_path / "run" / "file").touch()
        assert refused(tmp_path / "run").startswith(f"another command is writing {tmp_path / 'run'}")
    with locked(tmp_path / "run"):
        pass


def test_a_new_folder_in_which_nothing_was_written_goes_again(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "new"):
        raise ZeroDivisionError
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    with locked(tmp_path / "old"):
        pass
    assert (tmp_path / "old").is_dir()


def test_folders_around_it_go_again_unless_another_command_uses_them(tmp_path: Path) -> None:
    with locked(tmp_path / "a" / "b" / "c"):
        (tmp_path / "a" / "b" / "c" / "empty").mkdir()
    assert not list(tmp_path.iterdir())
    with locked(tmp_path / "a" / "b" / "c"), locked(tmp_path / "a" / "b"):
        with kept_if_used(tmp_path / "a" / "b" / "d" / "e"):
            pass
        (tmp_path / "a" / "b" / "c" / "file").touch()
    assert tiny.files_below(tmp_path) == {"a/b/c/file"}


def test_a_lock_that_another_command_holds_stays(tmp_path: Path) -> None:
    with kept_if_used(tmp_path / "new"):
        other = locked(tmp_path / "new" / "run")
        other.__enter__()
    assert (tmp_path / "new" / "run" / ".lock").is_file()
    other.__exit__(None, None, None)
    assert not (tmp_path / "new" / "run").exists()


def test_a_folder_that_cannot_be_made_leaves_none_around_it(tmp_path: Path) -> None:
    with pytest.raises(sm.UserError, match="can't be written"), kept_if_used(tmp_path / "new" / ("x" * 300)):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("without_flock")
def test_a_file_stands_for_the_lock_where_there_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with locked(tmp_path):
        assert "has no locks: .lock.held marks the folder" in capsys.readouterr().err
        message = refused(tmp_path)
        assert f"(process {os.getpid()} on " in message
        assert message.endswith(f"if it no longer runs, delete {tmp_path / '.lock.held'}")
    with locked(tmp_path):
        pass


@pytest.mark.usefixtures("without_flock")
def test_that_of_a_killed_process_does_not_count(tmp_path: Path) -> None:
    def killed() -> None:
        with locked(tmp_path):
            os.kill(os.getpid(), signal.SIGKILL)

    assert tiny.in_child(killed) == -signal.SIGKILL
    assert (tmp_path / ".lock.held").exists()
    with locked(tmp_path):
        assert (tmp_path / ".lock.held").read_text().startswith(f"{os.getpid()}\n")


@pytest.mark.usefixtures("without_flock")
def test_that_of_another_machine_counts_until_it_is_deleted(tmp_path: Path) -> None:
    (tmp_path / ".lock.held").write_text("123\nnode17\n")
    assert f"process 123 on node17): wait for it; if it no longer runs, delete {tmp_path}" in refused(tmp_path)
    (tmp_path / ".lock.held").unlink()
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("name", ["x" * 300, "nul\0byte", "file/below"])
def test_a_place_that_can_be_no_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert ("is not a folder" if "file" in name else "can't be written") in refused(tmp_path / name)
