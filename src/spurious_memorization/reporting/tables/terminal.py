"""Tables in a terminal. A table that does not fit is shown row by row, so that no number is cut."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from .cells import Cell, Grid, Heading

UNBOUNDED = 10_000

WIDE = 130
"""From this width on, narrow columns are broken only within long words."""

MAX_WORD = 24
"""Letters of a narrow column's longest word."""


def terminal_table(grid: Grid, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
    """The table if its words fit into the width. Otherwise each of its rows as lines of heading and cell."""
    table = _rich_table(grid, options.max_width)
    if Measurement.get(console, options.update(max_width=UNBOUNDED), table).minimum <= options.max_width:
        yield table
        return
    yield Text(grid.title)
    for cells in grid.rows:
        row = Table.grid(padding=(0, 2))
        row.add_column(overflow="fold", ratio=1)
        row.add_column(overflow="fold", ratio=2)
        for heading, cell in zip(grid.headings, cells, strict=True):
            row.add_row(Text(heading.text), _text(cell, heading))
        yield row
        yield Text()
    if grid.caption:
        yield Text(grid.caption)


def _rich_table(grid: Grid, width: int) -> Table:
    table = Table(
        title=Text(grid.title) if grid.title else None,
        caption=Text(grid.caption) if grid.caption else None,
        title_justify="left",
        caption_justify="left",
    )
    for place, heading in enumerate(grid.headings):
        table.add_column(
            Text(heading.text),
            justify="right" if heading.is_right else "left",
            overflow="fold",
            width=_word_width(grid, place) if heading.is_narrow and width >= WIDE else None,
        )
    for position, row in enumerate(grid.rows):
        if position in grid.block_starts:
            table.add_section()
        table.add_row(*(_text(cell, heading) for cell, heading in zip(row, grid.headings, strict=True)))
    return table


def _word_width(grid: Grid, place: int) -> int:
    words = (word for row in grid.rows for word in row[place].text.split())
    return min(MAX_WORD, max(6, *map(len, words), 0))


def _text(cell: Cell, heading: Heading) -> Text:
    text = Text(cell.text, style="bold" if cell.is_strong else "")
    if cell.detail:
        text.append("\n" if heading.is_detail_below else " ").append(cell.detail, style="dim")
    return text
