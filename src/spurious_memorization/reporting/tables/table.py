"""The model of a table: rows of numbers, and how each column is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from rich.console import Console, ConsoleOptions, RenderResult

from ..settings import TableFormat
from .cells import Cell, Grid, Heading
from .html import html_table
from .number_formats import Kind, format_value, is_missing
from .terminal import terminal_table
from .text_formats import latex_text, markdown_text

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column that is shown.

    Arguments:
        name: of the column in the rows.
        heading: what a reader sees.
        kind: of its values; decides their format and alignment.
        detail: makes the text after a value, such as its interval, from the whole row; "" for none.
        is_detail_below: a terminal shows the detail on a line of its own.
        is_narrow: a wide terminal breaks the column's text between words.
        is_long: the column holds sentences.
        strong: name of a column of truth values; where it is true, the cell is emphasized.
        strong_sign: put before the text of an emphasized cell.
    """

    name: str
    heading: str
    kind: Kind = "text"
    detail: Callable[[Row], str] | None = None
    is_detail_below: bool = False
    is_narrow: bool = False
    is_long: bool = False
    strong: str | None = None
    strong_sign: str = ""

    @property
    def is_right(self) -> bool:
        """Numbers are aligned to the right."""
        return self.kind not in ("text", "yes_no")

    def cell(self, row: Row) -> Cell:
        """The cell of one row."""
        value = row[self.name]
        text = format_value(value, self.kind)
        is_strong = self.strong is not None and bool(row[self.strong])
        if is_strong and self.strong_sign:
            text = f"{self.strong_sign} {text}"
        detail = "" if self.detail is None else self.detail(row)
        return Cell(text=text, detail=detail, is_strong=is_strong, exact=_exact(value, self.kind))

    def head(self) -> Heading:
        """The head of the column."""
        return Heading(
            name=self.name,
            text=self.heading,
            is_right=self.is_right,
            is_detail_below=self.is_detail_below,
            is_narrow=self.is_narrow,
            is_long=self.is_long,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """A table for every output: terminal (rich prints it), HTML, Markdown, LaTeX and CSV.

    Arguments:
        title: above the table.
        rows: numbers in full precision under machine names; columns that are not shown are allowed.
        columns: what is shown, in this order.
        caption: below the table.
        strong: name of a column of truth values; rows where it is true are emphasized.
        blocks: names of columns whose repeated values are shown once; CSV repeats them.
    """

    title: str
    rows: pd.DataFrame
    columns: tuple[Column, ...]
    caption: str = ""
    strong: str | None = None
    blocks: tuple[str, ...] = ()

    def grid(self) -> Grid:
        """Headings and cells as text."""
        rows, starts, last = [], set(), None
        for position, row in enumerate(self.rows.to_dict(orient="records")):
            cells = [column.cell(row) for column in self.columns]
            block = tuple(row[name] for name in self.blocks)
            if self.blocks and block == last:
                cells = [
                    Cell(text="") if column.name in self.blocks else cell
                    for column, cell in zip(self.columns, cells, strict=True)
                ]
            elif self.blocks:
                starts.add(position)
            last = block
            rows.append(tuple(cells))
        headings = tuple(column.head() for column in self.columns)
        return Grid(
            title=self.title, caption=self.caption, headings=headings, rows=tuple(rows), block_starts=frozenset(starts)
        )

    def text(self) -> pd.DataFrame:
        """The table as a reader sees it: headings, and every cell as text."""
        grid = self.grid()
        return pd.DataFrame(
            [[str(cell) for cell in row] for row in grid.rows], columns=[heading.text for heading in grid.headings]
        )

    def strong_rows(self) -> list[bool]:
        """For each row, whether it is emphasized."""
        if self.strong is None:
            return [False] * len(self.rows)
        return [bool(value) for value in self.rows[self.strong]]

    def html(self) -> str:
        """The table as an HTML element; all text is escaped."""
        return str(html_table(self.grid(), strong_rows=self.strong_rows()))

    def formatted(self, style: TableFormat) -> str:
        """The text of the table, without a last line break.

        Arguments:
            style: "markdown" (a pipe table), "latex" (with rules of booktabs, the title as caption) or "csv" (every
                column of the rows, machine names, full precision).
        """
        match style:
            case "csv":
                return csv_text(self.rows)
            case "markdown":
                return markdown_text(self.grid())
            case "latex":
                return latex_text(self.grid())

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from terminal_table(self.grid(), console, options)


def csv_text(rows: pd.DataFrame) -> str:
    """Rows as CSV in full precision, without a last line break; missing values are empty."""
    return str(rows.to_csv(index=False, lineterminator="\n")).rstrip("\n")


def _exact(value: Any, kind: Kind) -> str:
    if is_missing(value) or kind == "text":
        return ""
    plain = value.item() if hasattr(value, "item") else value
    return str(plain).lower() if isinstance(plain, bool) else repr(plain)
