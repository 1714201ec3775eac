"""Tables in a narrow terminal: one that doesn't fit is shown row by row, so that no number is cut."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

UNBOUNDED = 10_000


def fitting(table: Table, console: Console) -> Iterator[RenderableType]:
    """The table if its words fit into the console's width, otherwise each of its rows as lines of heading and cell."""
    unbounded = console.options.update(max_width=UNBOUNDED)
    if Measurement.get(console, unbounded, table).minimum <= console.width:
        yield table
        return
    if table.title is not None:
        yield table.title
    headings = [column.header for column in table.columns]
    for cells in zip(*(column.cells for column in table.columns), strict=True):
        row = Table.grid(padding=(0, 2))
        row.add_column(overflow="fold", ratio=1)
        row.add_column(overflow="fold", ratio=2)
        for heading, cell in zip(headings, cells, strict=True):
            row.add_row(heading, cell)
        yield row
        yield Text()
    if table.caption is not None:
        yield table.caption
