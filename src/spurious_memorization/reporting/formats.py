"""Tables as text for notes, papers and spreadsheets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import pandas as pd

Format = Literal["markdown", "latex", "csv"]

_LATEX = str.maketrans(
    {sign: f"\\{sign}" for sign in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)
_MARKDOWN = str.maketrans({"|": r"\|", "\n": " "})


def formatted(frame: pd.DataFrame, style: Format, title: str = "") -> str:
    """A frame as the text of a table; its index is left out.

    Arguments:
        frame: one row a line of the table.
        style: "markdown" (a pipe table), "latex" (with rules of booktabs) or "csv".
        title: above the table, in LaTeX its caption; a CSV has no place for one.

    Returns:
        The text, without a last line break. Numbers stand in full in a CSV and with three decimals elsewhere; what is
        missing is empty in a CSV and "-" elsewhere.

    Example:
        ```python
        print(formatted(sm.study(run).effects(), "latex"))
        ```
    """
    if style == "csv":
        return str(frame.to_csv(index=False, lineterminator="\n")).rstrip("\n")
    numeric = [pd.api.types.is_numeric_dtype(values) for _, values in frame.items()]
    names, rows = map(str, frame.columns), ([_cell(value) for value in row] for row in frame.itertuples(index=False))
    if style == "markdown":
        lines = [_piped(names), _piped("---:" if right else "---" for right in numeric), *map(_piped, rows)]
        return "\n".join([f"**{title}**", "", *lines] if title else lines)
    escaped = pd.DataFrame(
        [[cell.translate(_LATEX) for cell in row] for row in rows], columns=[name.translate(_LATEX) for name in names]
    )
    aligned = "".join("r" if right else "l" for right in numeric)
    caption = title.translate(_LATEX) or None
    return str(escaped.to_latex(index=False, escape=False, column_format=aligned, caption=caption)).rstrip("\n")


def _piped(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.translate(_MARKDOWN) for cell in cells)} |"


def _cell(value: object) -> str:
    if value is None or (pd.api.types.is_scalar(value) and pd.isna(value)):
        return "-"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.1e}" if 0 < abs(value) < 0.0005 else f"{round(value, 3) + 0.0:.3f}"
