"""Input files: regular, readable, and not larger than what they can sensibly hold."""

from __future__ import annotations

import codecs
import os
import stat
from pathlib import Path

from .errors import UserError, first_line

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # starts like that of UTF-16, so it comes first
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def regular_file(path: str | Path, *, what: str = "", max_bytes: int | None = None) -> Path:
    """The path itself, if it is a regular, readable file. Pipes and devices are refused, since reading may not end.

    Arguments:
        path: the file; a symbolic link counts as what it leads to.
        what: what the file is, for the error message.
        max_bytes: the largest size that is accepted.

    Raises:
        UserError: the file does not exist, is a directory, a pipe or a device, can't be read, or is too large.
    """
    file = Path(path)
    name = f"{what} {shown(file)}".lstrip()
    try:
        status = file.stat()
    except FileNotFoundError as error:
        raise UserError(f"{name} does not exist: correct the path") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else first_line(error)
        raise UserError(f"{name} can't be read: {reason}: correct the path") from error
    if stat.S_ISDIR(status.st_mode):
        raise UserError(f"{name} is a folder: give a file")
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{name} is a pipe or a device: give a regular file")
    if not os.access(file, os.R_OK):
        raise UserError(f"{name} can't be read: permission denied: change its permissions")
    if max_bytes is not None and status.st_size > max_bytes:
        raise UserError(f"{name} has {status.st_size:,} bytes, more than the {max_bytes:,} allowed: shorten it")
    return file


def shown(text: str | Path, limit: int = 200) -> str:
    """A path or a name for a message of one line: unprintable characters are escaped, and a long middle is left out."""
    whole = str(text)
    printable = whole if whole.isprintable() else repr(whole)
    if len(printable) <= limit:
        return printable
    return f"{printable[: limit // 2]} ... {printable[-limit // 4 :]}"


def read_text(file: Path, *, max_bytes: int) -> str:
    """The text of a regular file in UTF-8, or in UTF-16 if it starts with the mark (BOM) of that encoding.

    Raises:
        UserError: the file is none, as for `regular_file`, or is in another encoding. The message names the encoding.
    """
    content = regular_file(file, max_bytes=max_bytes).read_bytes()
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8")
    if encoding.startswith("utf-8") and b"\0" in content:
        line = content.count(b"\n", 0, content.index(b"\0")) + 1
        raise UserError(f"{shown(file)} has a NUL byte in line {line}, as UTF-16 without a mark has: save it as UTF-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        likely = ", it is probably cp1252 (Windows) or latin-1" if encoding == "utf-8" else ""
        raise UserError(f"{shown(file)} is not {encoding} in line {line}{likely}: save it as UTF-8") from error
