"""Tables in CSV and Parquet files, read as text: every cell as it is written, without blanks around it."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ..console import log
from ..errors import UserError, first_line
from ..input_files import read_text, regular_file, shown

MAX_BYTES = 1 << 30
MAX_ROWS = 10_000_000
MAX_HEADER = 100_000
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_UNNAMED = re.compile(r"(Unnamed: \d+|__index_level_\d+__)?")
_BROKEN = (pa.ArrowException, OSError, ValueError, LookupError, NotImplementedError, ArithmeticError, MemoryError)


def read_text_table(file: Path) -> pd.DataFrame:
    """Read a CSV or Parquet file as text. An empty cell is "", and no other text counts as empty.

    CSV may be in UTF-8, or in UTF-16 with its mark. The header decides whether commas, semicolons, tabs or vertical
    bars separate the cells. Numbers in Parquet files become the text that a CSV file would hold; 1.0 becomes "1".
    Columns without a name, and columns of Parquet files that hold other things than single values, are left out.

    Returns:
        The cells, [rows, columns]. The index holds line numbers (CSV) or row numbers from 1 (Parquet); its name says so
        and names the file, as for `place`.

    Raises:
        UserError: the file can't be read, a row has other cells than the header, or a column name is given twice.
    """
    return _read_parquet(file) if file.suffix == ".parquet" else _read_csv(file)


def header_of(file: Path) -> tuple[str, ...]:
    """The column names of a CSV file. Raises the errors of `read_text_table` that concern the header."""
    text = read_text(file, max_bytes=MAX_BYTES)
    return tuple(name for name in _header(file, _rows(file, text, _separator(text))) if not _UNNAMED.fullmatch(name))


def check_replaceable(out: Path, kind: str, *columns: set[str]) -> None:
    """Check that a CSV file can be written: no file of another kind is replaced, such as the table of a data folder.

    Arguments:
        out: the file.
        kind: what it will be, for the error message.
        columns: a table of this kind has all columns of one of these sets.

    Raises:
        UserError: its name doesn't end in .csv, or it exists and is of another kind.
    """
    if out.suffix != ".csv":
        raise UserError(f"--out {shown(out)} will be a {kind}: name a file that ends in .csv")
    with suppress(UserError):
        if not out.exists() or any(names <= set(header_of(out)) for names in columns):
            return
    raise UserError(f"--out {shown(out)} exists and is no {kind}: choose another file")


def place(column: pd.Series, position: int) -> str:
    """Where a cell is, for a message: "metadata.csv, line 5"."""
    return f"{column.index.name or 'row'} {column.index[position]}"


def _read_csv(file: Path) -> pd.DataFrame:
    text = read_text(file, max_bytes=MAX_BYTES)
    separator = _separator(text)
    if separator != ",":
        log(f"{shown(file)}: the cells are separated by {SEPARATORS[separator]}")
    rows = _rows(file, text, separator)
    header = _header(file, rows)
    width = len(header)
    lines, kept = [], []
    for line, cells in rows:
        if len(cells) < width or any(cells[width:]):
            raise UserError(
                f"{shown(file)}, line {line}: {len(cells)} cells, but the header has {width}: give every row the same "
                f"number, and put text that contains {separator!r} in quotes"
            )
        lines.append(line)
        kept.append(cells[:width])
    columns = dict(zip(header, zip(*kept, strict=True), strict=True)) if kept else dict.fromkeys(header, ())
    return _named(file, columns, pd.Index(lines, name=f"{file.name}, line"))


def _separator(text: str) -> str:
    """The separator that gives the header the most cells. A comma, if several do."""
    header = next((line[:MAX_HEADER] for line in io.StringIO(text, newline=None) if line.strip()), "")
    return max(SEPARATORS, key=lambda separator: len(next(csv.reader([header], delimiter=separator), ())))


def _rows(file: Path, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """The rows with anything in them: the number of the last line, and the cells."""
    reader = csv.reader(io.StringIO(text, newline=None), delimiter=separator, skipinitialspace=True, strict=True)
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield reader.line_num, cells
    except csv.Error as error:
        raise UserError(
            f"{shown(file)} can't be read as a table: line {reader.line_num}: {error}: correct it"
        ) from error


def _header(file: Path, rows: Iterator[tuple[int, list[str]]]) -> list[str]:
    """The first row, without empty cells at its end."""
    _, header = next(rows, (0, []))
    while header and not header[-1]:
        header = header[:-1]
    if not header:
        raise UserError(f"{shown(file)} can't be read as a table: it is empty")
    _check_names(file, header)
    return header


def _check_names(file: Path, header: list[str]) -> None:
    if twice := next((name for name, n in Counter(header).items() if name and n > 1), None):
        raise UserError(f"{shown(file)} has two columns {shown(twice)!r}: rename or remove one")


def _named(file: Path, columns: dict[str, Any], index: pd.Index) -> pd.DataFrame:
    """The columns with a name. A column without one can't be chosen."""
    if unnamed := [name for name in columns if _UNNAMED.fullmatch(name)]:
        log(f"{shown(file)}: a column without a name is left out")
    return pd.DataFrame(
        {shown(name): column for name, column in columns.items() if name not in unnamed}, index=index, dtype=object
    )


def _read_parquet(file: Path) -> pd.DataFrame:
    regular_file(file, max_bytes=MAX_BYTES)
    try:
        with pq.ParquetFile(file) as opened:
            if (n := opened.metadata.num_rows) > MAX_ROWS:
                raise UserError(f"{shown(file)} has {n:,} rows, more than the {MAX_ROWS:,} allowed: split it")
            table = opened.read()
        names = [str(name).strip() for name in table.column_names]
        single = {name: column for name, column in zip(names, table.columns, strict=True) if _is_single(column.type)}
        columns = {name: [cell_text(value) for value in column.to_pylist()] for name, column in single.items()}
    except _BROKEN as error:
        raise UserError(f"{shown(file)} can't be read as a table: {first_line(error)}") from error
    _check_names(file, names)
    if left_out := [shown(name) for name in names if name not in single]:
        log(f"{shown(file)}: left out, since they hold no text or numbers: {', '.join(left_out)}")
    return _named(file, columns, pd.RangeIndex(1, n + 1, name=f"{file.name}, row"))


def _is_single(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_single(kind.value_type)
    tests = ("null", "boolean", "integer", "floating", "decimal", "string", "large_string", "string_view", "date")
    return any(getattr(pa.types, f"is_{test}")(kind) for test in tests)


def cell_text(value: Any) -> str:
    """The text of a value as a CSV file would hold it. Empty for None and NaN."""
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value).strip()
