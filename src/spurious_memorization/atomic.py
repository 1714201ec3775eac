"""Files and folders that are written atomically: a reader sees all of their content, or nothing."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import UserError
from .locks import kept_if_used
from .remote_folders import check_no_url, send

if TYPE_CHECKING:
    import pandas as pd


@contextmanager
def atomic_write(path: Path, *, flush: bool = True) -> Iterator[Path]:
    """Yield a temporary path in the same folder. It is renamed to `path` when the block ends without an error.

    Arguments:
        path: the file to write.
        flush: flush the content to the disk before the rename, so that a power cut can't leave an empty file. Without
            it, thousands of small files are written faster. Use that only for files that can be made again.

    Raises:
        UserError: the disk is full, or the folder can't be written. Nothing is left behind. An earlier file at `path`
            stays as it was. In a local copy of a URL, the file is there but can't be sent.
    """
    check_no_url(path)
    with kept_if_used(path.parent), _writing(path):
        temporary = _new_file_beside(path)
        try:
            yield temporary
            if flush:
                _flush_to_disk(temporary)
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
        except (OSError, UserError):
            raise
        except Exception as error:
            if reason := _system_error(temporary):
                raise _user_error(reason, path) from error
            raise
        finally:
            temporary.unlink(missing_ok=True)
    send(path)


def check_writable(path: Path) -> None:
    """Check that a file can be written, before the work that makes its content.

    Raises:
        UserError: its folder can't be written. Nothing is left behind.
    """
    check_no_url(path)
    with kept_if_used(path.parent), _writing(path):
        _new_file_beside(path).unlink()


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder in the same place. It is renamed to `path` when the block ends without an error.

    Raises:
        UserError: `path` is a file or a folder with content, or can't be written. Nothing is left behind.
    """
    check_no_url(path)
    with _writing(path):
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UserError(f"{path} exists and is not empty: choose another place")
        with kept_if_used(path.parent):
            temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
            try:
                yield temporary
                temporary.chmod(0o777 & ~_umask())
                if path.exists():
                    path.rmdir()
                temporary.rename(path)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    send(path)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_parquet(path: Path, frame: pd.DataFrame) -> None:
    """Write a frame to `path` as Parquet, atomically, with a checksum of each page."""
    with atomic_write(path) as temporary:
        frame.to_parquet(temporary, write_page_checksum=True)


class UnnamedFile:
    """A file that grows on the disk and is not seen until it is complete. Nothing of it is left if the process ends
    before.

    Arguments:
        path: where it appears when it is saved. Its folder is made.

    Raises:
        UserError: the disk is full, or the folder can't be written; this can happen with each call.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._file.closed

    def write(self, content: bytes) -> int:
        """Add bytes at its end."""
        with _writing(self._path):
            return self._file.write(content)

    def flush(self) -> None:
        """Write what is still in memory."""
        with _writing(self._path):
            self._file.flush()

    def tell(self) -> int:
        """Its length."""
        return self._file.tell()

    def save(self) -> None:
        """Let it appear at its path, atomically."""
        self.flush()
        self._file.seek(0)
        with atomic_write(self._path) as temporary, temporary.open("wb") as file:
            shutil.copyfileobj(self._file, file)

    def close(self) -> None:
        """End it. What was not saved is gone."""
        self._file.close()


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _user_error(error, path) from error


def _new_file_beside(path: Path) -> Path:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    return Path(name)


def _flush_to_disk(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _system_error(file: Path) -> OSError | None:
    """The system's reason why a file can't grow. PyTorch and safetensors hide it in errors of their own."""
    try:
        with file.open("ab") as stream:
            stream.write(bytes(1 << 20))
    except OSError as error:
        return error
    return None


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _user_error(error: OSError, path: Path) -> UserError:
    """An error whose message says how to fix the cause of a failed write."""
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return UserError(
                f"no space left to write {path}: free some space, then run the command again (a training with --resume)"
            )
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return UserError(f"{path.parent} can't be written: choose another folder or change its permissions")
        case errno.EEXIST | errno.ENOTDIR:
            return UserError(f"{path.parent} is not a folder: choose another place")
        case _:
            return UserError(f"{path} can't be written ({error.strerror or error}): choose another folder")
