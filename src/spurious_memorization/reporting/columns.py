"""The columns of the report's tables: their headings, and how their numbers are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pandas as pd


class Column(NamedTuple):
    """A heading, and how a value is written."""

    heading: str
    written: Callable[[Any], str]


def _whole(value: float) -> str:
    return f"{value:.0f}"


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def points(value: float) -> str:
    return f"{round(100 * value, 1) + 0.0:+.1f}"


def _plain_points(value: float) -> str:
    return f"{round(100 * value, 1) + 0.0:.1f}"


def _two(value: float) -> str:
    return f"{round(value, 2) + 0.0:+.2f}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _yes(value: object) -> str:
    return "yes" if value else "no"


COLUMNS: Mapping[str, Column] = {
    "criterion": Column("selected by", str),
    "n": Column("n", _whole),
    "correct": Column("correct", _whole),
    "accuracy": Column("accuracy", percent),
    "low": Column("95 % from", percent),
    "high": Column("to", percent),
    "train": Column("train", percent),
    "val": Column("val", percent),
    "test": Column("test", percent),
    "n_train": Column("n train", _whole),
    "n_val": Column("n val", _whole),
    "n_test": Column("n test", _whole),
    "gap": Column("train - test", points),
    "lift": Column("lift", lambda value: f"{value:.2f}"),
    "accuracy_before": Column("before", percent),
    "accuracy_after": Column("after", percent),
    "accuracy_change": Column("accuracy_change", points),
    "accuracy_change_low": Column("95 % from", points),
    "accuracy_change_high": Column("to", points),
    "margin_change": Column("margin change", _two),
    "tested_accuracy_change": Column("accuracy change beside controls", points),
    "control_low": Column("controls from", points),
    "control_median": Column("median", points),
    "control_high": Column("to", points),
    "n_controls": Column("controls", _whole),
    "n_controls_as_large": Column("that drop as far", _whole),
    "norm_ratio": Column("norm ratio", lambda value: f"{value:.2f}"),
    "drop": Column("drop", _plain_points),
    "p_adjusted": Column("adjusted p", _p),
    "influential": Column("influential", _yes),
    "difference": Column("drop beyond majority", _plain_points),
    "p_selective": Column("p of that", _p),
    "selective": Column("selective", _yes),
    "contrast": Column("margin: training - unseen", _two),
    "contrast_low": Column("95 % from", _two),
    "contrast_high": Column("to", _two),
    "memorizing": Column("memorizing", _yes),
    "n_in_layer": Column("channels", _whole),
    "least": Column("least", _two),
    "lower": Column("5 %", _two),
    "middle": Column("median", _two),
    "upper": Column("95 %", _two),
    "most": Column("most", _two),
    "before": Column("answer before", str),
    "after": Column("after", str),
}


def heading(name: str) -> str:
    """What stands above a column."""
    return COLUMNS[name].heading if name in COLUMNS else name.replace("_", " ")


def written(name: str, value: Any) -> str:
    """A value of a column as text; "-" where there is none."""
    if value is None or (pd.api.types.is_scalar(value) and pd.isna(value)):
        return "-"
    return COLUMNS[name].written(value) if name in COLUMNS else str(value)


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """A table as it is read: headings, and every value as text."""
    cells = {position: [written(name, value) for value in table[name]] for position, name in enumerate(table)}
    frame = pd.DataFrame(cells)
    frame.columns = [heading(name) for name in table]
    return frame
