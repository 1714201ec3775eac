"""A figure: one chart, the rows that it draws, the same in words and as a table, and the command that makes it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import altair as alt
import pandas as pd
import vl_convert

from ..atomic import atomic_write, write_text
from ..errors import UserError
from .colors import CONFIG, printed
from .columns import shown
from .formats import formatted

ONE_AT_A_TIME = ("run", "study", "split", "edit", "map")
"""Of these a figure shows one value, the first if none is chosen."""

CHOOSERS = (*ONE_AT_A_TIME, "criterion", "size", "group")

FigureFormat = Literal["svg", "png", "pdf", "latex", "markdown", "csv"]

ENDINGS = {"latex": "tex", "markdown": "md"}


@dataclass(frozen=True, eq=False)
class Figure:
    """A figure of the report, whole: a reader's choice takes rows out of it.

    Arguments:
        name: as `spurmem figure` takes it.
        title: above it.
        alt: what there is to see, for those who don't.
        chart: Vega-Lite, with the data left out; None where there is a table alone.
        rows: what the chart draws.
        table: the numbers, one row a line.
        choosers: columns of rows and table by which a reader chooses.
        panels: column of which each value has a panel of its own.
        note: how to read it.
    """

    name: str
    title: str
    alt: str
    chart: Mapping[str, Any] | None
    rows: pd.DataFrame
    table: pd.DataFrame
    choosers: tuple[str, ...] = ()
    panels: str | None = None
    note: str = ""

    def options(self, chooser: str) -> list[str]:
        """The values that a reader can choose."""
        if chooser not in self.choosers:
            return []
        return list(dict.fromkeys(map(str, self.table[chooser])))

    def chosen(self, choice: Mapping[str, str | None]) -> Figure:
        """The figure of a choice: of what shows one value at a time the first that is left where none is chosen, of
        what can be shown together all.

        Raises:
            UserError: there is nothing with a chosen value.
        """
        rows, table = self.rows, self.table
        for name in self.choosers:
            there = list(dict.fromkeys(map(str, table[name])))
            wanted = choice.get(name)
            if wanted is None and name in ONE_AT_A_TIME:
                wanted = there[0] if there else None
            if wanted is None:
                continue
            values = [value for value in there if value == wanted or value.startswith(f"{wanted} (")]
            if not values:
                raise UserError(f"{self.name} has no {name} {wanted!r}: choose among {', '.join(map(repr, there))}")
            rows, table = (frame[frame[name].astype(str).isin(values)] for frame in (rows, table))
        return replace(self, rows=rows, table=table)

    def spec(self) -> dict[str, Any]:
        """The whole chart as Vega-Lite, in the colors of paper."""
        if self.chart is None:
            raise UserError(f"{self.name} is a table: write it with --format latex, markdown or csv")
        spec = {**self.chart, "config": CONFIG, "title": self.title, "datasets": {"rows": records(self.rows)}}
        return printed({**spec, "background": "white"})

    def save(self, file: Path, style: FigureFormat) -> None:
        """Write the chart as SVG, PNG or PDF, or its numbers as LaTeX, Markdown or CSV, whole or not at all.

        Raises:
            UserError: the place can't be written, or there is no chart to draw.
        """
        match style:
            case "svg":
                write_text(file, vl_convert.vegalite_to_svg(self.spec()))
            case "png" | "pdf":
                spec = self.spec()
                drawn = (
                    vl_convert.vegalite_to_png(spec, scale=2) if style == "png" else vl_convert.vegalite_to_pdf(spec)
                )
                with atomic_write(file) as temporary:
                    temporary.write_bytes(drawn)
            case "csv":
                write_text(file, formatted(self.table, "csv") + "\n")
            case _:
                write_text(file, formatted(shown(self.table), style, self.title) + "\n")


def ranked(rows: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """The rows with the place of each value of some columns, in the order in which they first occur.

    Charts sort by such numbers: a list of names would come into Vega's expressions, which take not every name.
    """
    return rows.assign(**{f"{name}_place": pd.factorize(rows[name])[0] for name in columns})


def in_order(column: str) -> alt.EncodingSortField:
    """The order of `ranked`."""
    return alt.EncodingSortField(f"{column}_place", op="min")


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain JSON; what is no number is null."""
    rows: list[dict[str, Any]] = json.loads(frame.to_json(orient="records", double_precision=15))
    return rows


def command(name: str, runs: Iterable[object], choice: Mapping[str, str | None]) -> str:
    """The command that makes a figure."""
    flags = [word for flag, value in choice.items() if value is not None for word in (f"--{flag}", value)]
    return shlex.join(["spurmem", "figure", name, *map(str, runs), *flags])
