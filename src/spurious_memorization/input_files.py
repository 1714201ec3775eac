"""Input files: regular, readable, and not larger than what they can sensibly hold."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from .errors import UserError, first_line


def regular_file(path: str | Path, *, max_bytes: int | None = None) -> Path:
    """The path itself, if it is a regular, readable file. Pipes and devices are refused, since reading may not end.

    Arguments:
        path: the file; a symbolic link counts as what it leads to.
        max_bytes: the largest size that is accepted.

    Raises:
        UserError: the file does not exist, is a directory, a pipe or a device, can't be read, or is too large.
    """
    file = Path(path)
    try:
        status = file.stat()
    except FileNotFoundError as error:
        raise UserError(f"{shown(file)} does not exist: correct the path") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else first_line(error)
        raise UserError(f"{shown(file)} can't be read: {reason}: correct the path") from error
    if stat.S_ISDIR(status.st_mode):
        raise UserError(f"{shown(file)} is a folder: give a file")
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{shown(file)} is a pipe or a device: give a regular file")
    if not os.access(file, os.R_OK):
        raise UserError(f"{shown(file)} can't be read: permission denied: change its permissions")
    if max_bytes is not None and status.st_size > max_bytes:
        raise UserError(f"{shown(file)} has {status.st_size:,} bytes, more than the {max_bytes:,} allowed: shorten it")
    return file


def shown(text: str | Path, limit: int = 200) -> str:
    """A path or a name for a message of one line: unprintable characters are escaped, and a long middle is left out."""
    whole = str(text)
    printable = whole if whole.isprintable() else repr(whole)
    if len(printable) <= limit:
        return printable
    return f"{printable[: limit // 2]} ... {printable[-limit // 4 :]}"
