"""Locks: one command at a time writes a folder, also on file systems that have no locks of their own."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from .console import log
from .errors import UserError
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
    try:
        is_new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        lock = _acquired(folder)
    except filelock.Timeout as error:
        raise UserError(_taken(folder)) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{folder} can't be written ({reason}): choose another place") from error
    try:
        yield
    finally:
        if is_new:
            _remove_if_unused(folder)
        lock.release()


def _acquired(folder: Path) -> filelock.BaseFileLock:
    lock: filelock.BaseFileLock = filelock.FileLock(folder / LOCK, timeout=0, fallback_to_soft=False)
    try:
        lock.acquire()
    except OSError as error:
        if isinstance(error, filelock.Timeout) or error.errno not in _NO_LOCKS_HERE:
            raise
        marker = folder / MARKER
        log(f"note: the file system of {folder} has no locks: {marker.name} marks the folder as taken meanwhile")
        lock = filelock.SoftFileLock(marker, timeout=0.5, poll_interval=0.05)
        lock.acquire()
    return lock


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


def _remove_if_unused(folder: Path) -> None:
    """Remove a folder that holds nothing but the lock."""
    with suppress(OSError):
        if [file.name for file in folder.iterdir()] == [LOCK]:
            (folder / LOCK).unlink()
            folder.rmdir()
