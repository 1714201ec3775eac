"""The image files of a data set by name. They lie in a folder, or within larger files."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Protocol

from ..errors import UserError
from ..input_files import shown

Stream = BufferedReader | BytesIO


class ImageFiles(Protocol):
    """Image files by name.

    Attributes:
        root: where the data are, for messages.
    """

    @property
    def root(self) -> Path: ...

    @property
    def identity(self) -> str:
        """Equal for two objects exactly if they read the same place."""
        ...

    def open(self, name: str) -> Stream:
        """The bytes of a file.

        Raises:
            OSError: the file can't be read.
            UserError: it is no regular file. The message doesn't name it.
        """
        ...

    def size(self, name: str) -> int | None:
        """The size of a file in bytes; None if there is no such file."""
        ...

    def version(self, name: str) -> str:
        """A text that changes when the file changes; empty if there is no such file."""
        ...

    def is_regular(self, name: str) -> bool:
        """Whether a file that exists is neither a folder nor a pipe nor a device."""
        ...

    def place(self, name: str) -> str:
        """How a message names the file."""
        ...


@dataclass(frozen=True)
class Folder:
    """Files below a folder, by their path relative to it."""

    root: Path

    @property
    def identity(self) -> str:
        return str(self.root.resolve())

    def open(self, name: str) -> Stream:
        file = self.root / name
        if not stat.S_ISREG(file.stat().st_mode):
            raise UserError("it is not a regular file")
        return file.open("rb")

    def size(self, name: str) -> int | None:
        try:
            return (self.root / name).stat().st_size
        except (OSError, ValueError):
            return None

    def version(self, name: str) -> str:
        return file_version(self.root / name)

    def is_regular(self, name: str) -> bool:
        return (self.root / name).is_file()

    def place(self, name: str) -> str:
        return shown(self.root / name)


def file_version(file: Path) -> str:
    """A text that changes when a file changes; empty if there is no such file."""
    try:
        facts = file.stat()
    except (OSError, ValueError):
        return ""
    return f"{facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns}"
