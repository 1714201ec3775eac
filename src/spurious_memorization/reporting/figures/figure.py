"""A figure: a chart, the rows that it draws, its description, its table, and the command that makes it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import vl_convert

from ...atomic import atomic_write, write_text
from ...errors import UserError
from ..settings import FigureFormat
from ..tables.table import Table
from .colors import CONFIG, printed

ONE_AT_A_TIME = ("run", "study", "split", "edit", "map")
"""A figure shows one value of each of these: the first one if none is chosen."""

CHOOSERS = (*ONE_AT_A_TIME, "criterion", "size", "group")

ENDINGS = {"latex": "tex", "markdown": "md"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Figure:
    """A figure of the report with all its rows; a reader's choice keeps some of them.

    Arguments:
        name: as `spurmem figure` takes it.
        alt: description of the chart for readers who cannot see it.
        chart: Vega-Lite without the data; None if the figure is only a table.
        rows: what the chart draws.
        table: the numbers; its title is the figure's, its caption says how to read the figure.
        choosers: columns of rows and table by which a reader chooses.
        panels: column whose values have one panel each.
    """

    name: str
    alt: str
    chart: Mapping[str, Any] | None
    rows: pd.DataFrame
    table: Table
    choosers: tuple[str, ...] = ()
    panels: str | None = None

    @property
    def title(self) -> str:
        """The title of the figure and of its table."""
        return self.table.title

    def options(self, chooser: str) -> list[str]:
        """The values that a reader can choose."""
        if chooser not in self.choosers:
            return []
        return list(dict.fromkeys(map(str, self.table.rows[chooser])))

    def chosen(self, choice: Mapping[str, str | None]) -> Figure:
        """The figure of a choice.

        Without a choice, choosers that show one value at a time take their first value; the others keep all.

        Raises:
            UserError: no row has a chosen value.
        """
        rows, table = self.rows, self.table.rows
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
        return replace(self, rows=rows, table=replace(self.table, rows=table))

    def spec(self) -> dict[str, Any]:
        """The whole chart as Vega-Lite, in colors for paper."""
        if self.chart is None:
            raise UserError(f"{self.name} is a table: write it with --format latex, markdown or csv")
        spec = {**self.chart, "config": CONFIG, "title": self.title, "datasets": {"rows": records(self.rows)}}
        return printed({**spec, "background": "white"})

    def save(self, file: Path, style: FigureFormat) -> None:
        """Write the chart as SVG, PNG or PDF, or its table as LaTeX, Markdown or CSV, atomically.

        Raises:
            UserError: the file can't be written, or the figure has no chart.
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
            case "latex" | "markdown" | "csv":
                write_text(file, self.table.formatted(style) + "\n")


def ranked(rows: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """The rows with one more column per given column: the position at which its value first occurs.

    Charts sort by these numbers. Names themselves would enter Vega's expressions, which do not accept every name.
    """
    return rows.assign(**{f"{name}_place": pd.factorize(rows[name])[0] for name in columns})


def in_order(column: str) -> alt.EncodingSortField:
    """The order of `ranked`."""
    return alt.EncodingSortField(f"{column}_place", op="min")


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain JSON; missing values become null."""
    rows: list[dict[str, Any]] = json.loads(frame.to_json(orient="records", double_precision=15))
    return rows


def command(name: str, runs: Iterable[object], choice: Mapping[str, str | None]) -> str:
    """The command that makes a figure."""
    flags = [word for flag, value in choice.items() if value is not None for word in (f"--{flag}", value)]
    return shlex.join(["spurmem", "figure", name, *map(str, runs), *flags])
