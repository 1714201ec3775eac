"""How values are written: one format per kind of column, the same in every table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import pandas as pd

Kind = Literal[
    "text",
    "yes_no",
    "count",
    "amount",
    "percent",
    "percent_number",
    "points",
    "points_2",
    "decimal",
    "signed",
    "score",
    "p",
]
"""What a column holds:

- `text`, `yes_no`
- `count`: a whole number; `amount`: a mean of counts, one decimal
- `percent`: a share, written in percent; `percent_number` leaves the sign out where the title names the unit
- `points`: a difference of shares, written in percentage points with its sign; `points_2` has two decimals
- `decimal`: two decimals; `signed`: two decimals with a sign
- `score`: four significant digits
- `p`: a p-value, three decimals or "< 0.001"
"""

MISSING = "-"


def _rounded(value: float, digits: int, form: str) -> str:
    """Zero has no minus sign."""
    return format(round(value, digits) + 0.0, form)


_FORMATS: Mapping[Kind, Callable[[Any], str]] = {
    "text": str,
    "yes_no": lambda value: "yes" if value else "no",
    "count": lambda value: f"{value:,.0f}",
    "amount": lambda value: _rounded(value, 1, ",.1f"),
    "percent": lambda value: f"{100 * value:.1f} %",
    "percent_number": lambda value: _rounded(100 * value, 1, ".1f"),
    "points": lambda value: _rounded(100 * value, 1, "+.1f"),
    "points_2": lambda value: _rounded(100 * value, 2, "+.2f"),
    "decimal": lambda value: _rounded(value, 2, ".2f"),
    "signed": lambda value: _rounded(value, 2, "+.2f"),
    "score": lambda value: f"{value:.4g}",
    "p": lambda value: "< 0.001" if value < 0.001 else f"{value:.3f}",
}


def is_missing(value: Any) -> bool:
    """Whether there is no value."""
    return value is None or bool(pd.api.types.is_scalar(value) and pd.isna(value))


def format_value(value: Any, kind: Kind) -> str:
    """A value as text; "-" if there is none."""
    return MISSING if is_missing(value) else _FORMATS[kind](value)


def interval(low: Any, high: Any, kind: Kind) -> str:
    """A range as text, in brackets; "" if there is none.

    Example:
        ```python
        interval(-0.1, 0.02, "points")  # "(-10.0 to +2.0)"
        ```
    """
    if is_missing(low) or is_missing(high):
        return ""
    return f"({format_value(low, kind)} to {format_value(high, kind)})"


def p_text(p: float) -> str:
    """A p-value within a sentence: "p < 0.001", "p = 0.120", "no p"."""
    if is_missing(p):
        return "no p"
    text = format_value(p, "p")
    return f"p {text}" if text.startswith("<") else f"p = {text}"
