"""CSV files whose lines are checked one by one: an error names the line and the column."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

import pandas as pd
from pydantic import BeforeValidator, Field, ValidationError

from ..datasets.text_tables import place, read_text_table
from ..errors import UserError
from ..input_files import shown
from ..settings import Settings

L = TypeVar("L", bound=Settings)

FIXES = {
    "less_than_equal": "write a share, such as 0.867 for 86.7 %",
    "string_too_short": "fill it in",
}
"""What to do about a wrong cell, by the kind of error that pydantic names."""


def _none_if_empty(cell: Any) -> Any:
    return None if cell == "" else cell


Share = Annotated[float, Field(ge=0, le=1)]
"""An accuracy, or its standard deviation: 0.867 is 86.7 %."""

OptionalShare = Annotated[Share | None, BeforeValidator(_none_if_empty)]
"""A share; an empty cell if there is none."""

Words = Annotated[str, Field(min_length=1)]
"""Text that must be there."""


def read_lines(file: Path, kind: type[L]) -> tuple[L, ...]:
    """The lines of a CSV file.

    Arguments:
        file: its header names the fields of `kind`, in any order.
        kind: what a line holds.

    Raises:
        UserError: the file can't be read, a column is missing or unknown, or a cell is wrong.
    """
    table = read_text_table(file)
    _check_header(file, table, list(kind.model_fields))
    return tuple(_line(table, position, kind) for position in range(len(table)))


def _check_header(file: Path, table: pd.DataFrame, wanted: list[str]) -> None:
    missing, unknown = [name for name in wanted if name not in table], [name for name in table if name not in wanted]
    header = f"the header must be {','.join(wanted)}"
    if missing:
        raise UserError(f"{shown(file)} has no column {missing[0]!r}: {header}")
    if unknown:
        raise UserError(f"{shown(file)} has an unknown column {unknown[0]!r}: {header}")


def _line(table: pd.DataFrame, position: int, kind: type[L]) -> L:
    cells = table.iloc[position].to_dict()
    try:
        return kind.model_validate(cells)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        column = str(first["loc"][0])
        what = first["msg"].removeprefix("Value error, ")
        fix = FIXES.get(first["type"], "correct it")
        where = place(table[column], position)
        raise UserError(f"{where}, column {column}: {what}, not {shown(cells[column])!r}: {fix}") from error
