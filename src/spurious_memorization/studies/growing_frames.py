"""Tables that grow while a study runs. They are kept on the disk, so that they need little memory."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from ..atomic import UnnamedFile
from ..stored_files import ColumnKind, Columns

ROWS_AT_A_TIME = 8192

_TYPES: dict[ColumnKind, pa.DataType] = {
    "count": pa.int64(),
    "whole": pa.int64(),
    "number": pa.float64(),
    "share": pa.float64(),
    "text": pa.string(),
    "text or none": pa.string(),
    "flag": pa.bool_(),
    "flag or none": pa.bool_(),
}


class GrowingFrame:
    """A frame that is written part by part, with a checksum of each page.

    Arguments:
        columns: of the frame, with what they hold.
        file: where it grows.
        save_file: called when the file is complete.
    """

    def __init__(self, columns: Columns, file: UnnamedFile | BytesIO, save_file: Callable[[], None]) -> None:
        self._save_file = save_file
        self._schema = pa.schema([(name, _TYPES[kind]) for name, kind in columns.items()])
        self._writer = parquet.ParquetWriter(file, self._schema, write_page_checksum=True)
        self._waiting: list[pd.DataFrame] = []

    def add(self, rows: pd.DataFrame) -> None:
        """Add rows."""
        self._waiting.append(rows)
        if sum(map(len, self._waiting)) >= ROWS_AT_A_TIME:
            self._write()

    def save(self) -> None:
        """Let the frame appear in its store. Nothing can be added any more."""
        if self._waiting:
            self._write()
        self._writer.close()
        self._save_file()

    def _write(self) -> None:
        rows = pd.concat(self._waiting, ignore_index=True)
        self._writer.write_table(pa.Table.from_pandas(rows, self._schema, preserve_index=False))
        self._waiting = []
