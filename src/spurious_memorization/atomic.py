"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import UserError


@contextmanager
def whole_file(path: Path, *, flush: bool = True) -> Iterator[Path]:
    """Give a temporary path beside `path`, and rename it to `path` when the block ends without an error.

    Arguments:
        flush: make sure that the content is on the disk before the rename, so that a power cut can't leave an empty
            file; without it thousands of small files that can be made again are written quickly.

    Raises:
        UserError: the disk is full, or the folder can't be written. Nothing is left behind, and a file that stood
            at `path` before stays as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise _mendable(error, path) from error
    temporary = Path(name)
    try:
        yield temporary
        if flush:
            _flush_to_disk(temporary)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise _mendable(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _flush_to_disk(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _mendable(error: OSError, path: Path) -> UserError:
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return UserError(f"no space left to write {path}: free some space and run the same command again")
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return UserError(f"{path.parent} can't be written: choose another folder or change its permissions")
        case errno.EEXIST | errno.ENOTDIR:
            return UserError(f"{path.parent} is not a folder: choose another place")
        case _:
            return UserError(f"{path} can't be written ({error.strerror or error}): choose another folder")
