"""Tables that grow while a study runs. They are kept on the disk, so that they need little memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


AddRows = Callable[[pd.DataFrame], None]


@contextmanager
def growing_frame(columns: Columns, file: UnnamedFile | BytesIO, save: Callable[[], None]) -> Iterator[AddRows]:
    """A frame that is written part by part, with a checksum of each page. Without an error, it is saved at the end.

    Arguments:
        columns: of the frame, with what they hold.
        file: where it grows; it is closed at the end.
        save: called when the file is complete.

    Returns:
        Yields the function that adds rows.
    """
    schema = pa.schema([(name, _TYPES[kind]) for name, kind in columns.items()])
    waiting: list[pd.DataFrame] = []

    def write() -> None:
        rows = pd.concat(waiting, ignore_index=True)
        writer.write_table(pa.Table.from_pandas(rows, schema, preserve_index=False))
        waiting.clear()

    def add(rows: pd.DataFrame) -> None:
        waiting.append(rows)
        if sum(map(len, waiting)) >= ROWS_AT_A_TIME:
            write()

    try:
        with parquet.ParquetWriter(file, schema, write_page_checksum=True) as writer:
            yield add
            if waiting:
                write()
        save()
    finally:
        file.close()
