"""A table as text: what every output format is written from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell.

    Arguments:
        text: the value as text.
        detail: what belongs to the value, such as its interval; shown after it in weaker type.
        is_strong: the cell is emphasized.
        exact: the stored value of a number or a truth value, in full precision; "" for text.
    """

    text: str
    detail: str = ""
    is_strong: bool = False
    exact: str = ""

    def __str__(self) -> str:
        return f"{self.text} {self.detail}" if self.detail else self.text


@dataclass(frozen=True, kw_only=True)
class Heading:
    """The head of a column.

    Arguments:
        name: machine name of the column.
        text: what a reader sees.
        is_right: numbers are aligned to the right.
        is_detail_below: a terminal shows details on a line of their own.
        is_narrow: a wide terminal breaks the column's text between words.
        is_long: the column holds sentences.
    """

    name: str
    text: str
    is_right: bool = False
    is_detail_below: bool = False
    is_narrow: bool = False
    is_long: bool = False


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Headings and cells of a whole table.

    Arguments:
        title: above the table.
        caption: below the table.
        headings: one per column.
        rows: one tuple of cells per row.
        block_starts: positions of the rows that begin a new block; empty for a table without blocks.
    """

    title: str
    caption: str
    headings: tuple[Heading, ...]
    rows: tuple[tuple[Cell, ...], ...]
    block_starts: frozenset[int] = frozenset()
