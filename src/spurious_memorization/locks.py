"""Folders that are written: by one command at a time, and gone again if nothing was written.

The locks also work on file systems that have no locks of their own.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path

import filelock

from .console import log
from .errors import UserError
from .input_files import shown
from .remote_folders import check_no_url

LOCK = ".lock"
MARKER = ".lock.held"
"""Where the file system has no locks, this file stands for one. It holds process and machine, one per line."""

_NO_LOCKS_HERE = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which is made if it doesn't exist.

    A process that dies lets go of the lock. Where the file system has no locks, a file marks the folder as taken. That
    of a dead process on the same machine does not count.

    Raises:
        UserError: another command holds the lock, or the folder can't be written.
    """
    check_no_url(folder)
    with kept_if_used(folder):
        with _reported(folder):
            lock = _acquired(folder)
        try:
            yield
        finally:
            lock.release()


@contextmanager
def kept_if_used(folder: Path) -> Iterator[None]:
    """Make a folder, and those around it. What of them is new goes again if it holds no file after the block.

    Locks are no such files, unless another command holds them.

    Raises:
        UserError: the folder can't be made.
    """
    new: list[Path] = []
    try:
        with _reported(folder):
            new += takewhile(lambda place: not place.exists(), (folder, *folder.parents))
            folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        if new:
            with suppress(ValueError):  # no folder can have such a name
                _remove_unused(folder, new)


def check_holds_only(folder: Path, own: Sequence[str] = ()) -> None:
    """Check that a folder, which need not exist, holds nothing but these files and folders, and hidden ones.

    Arguments:
        folder: to write.
        own: names of what an earlier call may have left.

    Raises:
        UserError: it holds something else.
    """
    others = sorted(file.name for file in folder.glob("[!.]*") if file.name not in own)
    if others:
        raise UserError(f"{shown(folder)} is not empty (it contains {others[0]}): choose an empty or a new folder")


def _acquired(folder: Path) -> filelock.BaseFileLock:
    lock: filelock.BaseFileLock = filelock.FileLock(folder / LOCK, timeout=0, fallback_to_soft=False)
    try:
        try:
            lock.acquire()
        except OSError as error:
            if isinstance(error, filelock.Timeout) or error.errno not in _NO_LOCKS_HERE:
                raise
            marker = folder / MARKER
            log(f"note: the file system of {folder} has no locks: {marker.name} marks the folder as taken meanwhile")
            lock = filelock.SoftFileLock(marker, timeout=0.5, poll_interval=0.05)
            lock.acquire()
    except filelock.Timeout as error:
        raise UserError(_taken(folder)) from error
    return lock


@contextmanager
def _reported(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        is_file = isinstance(error, FileExistsError | NotADirectoryError)
        reason = error.strerror if isinstance(error, OSError) else error
        what = "is not a folder" if is_file else f"can't be written ({reason})"
        raise UserError(f"{shown(folder)} {what}: choose another place") from error


def _taken(folder: Path) -> str:
    marker = folder / MARKER
    with suppress(OSError, ValueError):
        process, machine, *_ = marker.read_text(encoding="utf-8").splitlines()
        return (
            f"another command is writing {folder} (process {process} on {machine}): wait for it; "
            f"if it no longer runs, delete {marker}"
        )
    if marker.exists():
        return f"another command is writing {folder}: wait for it; if none runs, delete {marker}"
    return f"another command is writing {folder}: wait for it, or choose another folder"


def _remove_unused(folder: Path, new: Sequence[Path]) -> None:
    """Remove new folders, and all below the innermost one, that hold nothing but locks that no command holds."""
    inside = [Path(name) for name, _, _ in os.walk(folder, topdown=False)]
    for place in (*inside, *new):
        with suppress(OSError):
            if [file.name for file in place.iterdir()] == [LOCK]:
                with filelock.FileLock(place / LOCK, timeout=0):
                    (place / LOCK).unlink()
            place.rmdir()
