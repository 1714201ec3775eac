"""Where a study keeps what it measures: in a folder, or in memory. The pipeline does not know which."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from ..atomic import UnnamedFile, write_parquet, write_text
from ..criteria.scores import Scores, read_scores, save_scores
from ..stored_files import is_stored, read_frame, read_json
from .growing_frames import AddRows, growing_frame
from .stored_columns import columns_of, key_of, may_be_empty

Record = dict[str, Any]

REMEDY = "delete it and run the same command again"


class Store(Protocol):
    """Named frames, records and scores. What was not saved is None. Names may hold slashes."""

    def below(self, name: str) -> Store:
        """The part of the store whose names begin with `name/`."""
        ...

    def has_frame(self, name: str) -> bool:
        """Whether a frame of this name was saved. It is not read."""
        ...

    def frame(
        self, name: str, *, columns: Sequence[str] | None = None, variants: Sequence[int] | None = None
    ) -> pd.DataFrame | None:
        """A frame; only these columns, and only the rows of these variants, if given."""
        ...

    def frame_names(self, folder: str) -> list[str]:
        """Names of the frames in a folder of the store, in order."""
        ...

    def save_frame(self, name: str, frame: pd.DataFrame) -> None: ...

    def growing_frame(self, name: str) -> AbstractContextManager[AddRows]:
        """Save a frame part by part: yield the function that adds rows. At the end, if there is no error, the frame is
        in the store."""
        ...

    def record(self, name: str) -> Record | None: ...

    def save_record(self, name: str, record: Record) -> None: ...

    def scores(self, name: str) -> Scores | None: ...

    def save_scores(self, name: str, scores: Scores) -> None: ...


@dataclass(frozen=True)
class FolderStore:
    """A store in a folder: frames as Parquet, records as JSON, scores as safetensors. Each file appears whole or not
    at all.

    Arguments:
        path: of the folder; it is made when something is saved.
    """

    path: Path

    def below(self, name: str) -> FolderStore:
        return FolderStore(self.path / name)

    def has_frame(self, name: str) -> bool:
        return is_stored(self._frame_file(name))

    def frame(
        self, name: str, *, columns: Sequence[str] | None = None, variants: Sequence[int] | None = None
    ) -> pd.DataFrame | None:
        """A frame; see `Store`.

        Raises:
            UserError: the file is broken.
        """
        if not self.has_frame(name):
            return None
        return read_frame(
            self._frame_file(name),
            columns_of(name),
            REMEDY,
            only=columns,
            variants=variants,
            key=key_of(name),
            may_be_empty=may_be_empty(name),
        )

    def frame_names(self, folder: str) -> list[str]:
        return sorted(f"{folder}/{file.stem}" for file in (self.path / folder).glob("*.parquet"))

    def save_frame(self, name: str, frame: pd.DataFrame) -> None:
        write_parquet(self._frame_file(name), frame)

    def growing_frame(self, name: str) -> AbstractContextManager[AddRows]:
        file = UnnamedFile(self._frame_file(name))
        return growing_frame(columns_of(name), file, file.save)

    def record(self, name: str) -> Record | None:
        """A record; see `Store`.

        Raises:
            UserError: the file is broken.
        """
        file = self.path / f"{name}.json"
        return read_json(file, REMEDY) if is_stored(file) else None

    def save_record(self, name: str, record: Record) -> None:
        write_text(self.path / f"{name}.json", json.dumps(record, indent=2) + "\n")

    def scores(self, name: str) -> Scores | None:
        file = self.scores_file(name)
        return read_scores(file) if is_stored(file) else None

    def save_scores(self, name: str, scores: Scores) -> None:
        save_scores(self.scores_file(name), scores)

    def scores_file(self, name: str) -> Path:
        """Where scores of this name are."""
        return self.path / f"{name}.safetensors"

    def _frame_file(self, name: str) -> Path:
        return self.path / f"{name}.parquet"


class MemoryStore:
    """A store in memory. It is gone with the process.

    Frames are kept as Parquet, so that they come back with the same types as from a folder.
    """

    def __init__(self) -> None:
        self._frames: dict[str, bytes] = {}
        self._records: dict[str, Record] = {}
        self._scores: dict[str, Scores] = {}
        self._prefix = ""

    def below(self, name: str) -> MemoryStore:
        part = copy.copy(self)
        part._prefix = f"{self._prefix}{name}/"
        return part

    def has_frame(self, name: str) -> bool:
        return self._prefix + name in self._frames

    def frame(
        self, name: str, *, columns: Sequence[str] | None = None, variants: Sequence[int] | None = None
    ) -> pd.DataFrame | None:
        content = self._frames.get(self._prefix + name)
        if content is None:
            return None
        rows = None if variants is None else [("variant", "in", list(variants))]
        return pd.read_parquet(io.BytesIO(content), columns=None if columns is None else list(columns), filters=rows)

    def frame_names(self, folder: str) -> list[str]:
        start = f"{self._prefix}{folder}/"
        names = [name for name in self._frames if name.startswith(start) and "/" not in name.removeprefix(start)]
        return sorted(name.removeprefix(self._prefix) for name in names)

    def save_frame(self, name: str, frame: pd.DataFrame) -> None:
        self._frames[self._prefix + name] = frame.to_parquet()

    def growing_frame(self, name: str) -> AbstractContextManager[AddRows]:
        file = io.BytesIO()

        def save() -> None:
            self._frames[self._prefix + name] = file.getvalue()

        return growing_frame(columns_of(name), file, save)

    def record(self, name: str) -> Record | None:
        record = self._records.get(self._prefix + name)
        return None if record is None else copy.deepcopy(record)

    def save_record(self, name: str, record: Record) -> None:
        self._records[self._prefix + name] = copy.deepcopy(record)

    def scores(self, name: str) -> Scores | None:
        return self._scores.get(self._prefix + name)

    def save_scores(self, name: str, scores: Scores) -> None:
        self._scores[self._prefix + name] = scores
