"""How tables, figures and sentences name selected sets, edits and groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd


def selected_by(row: Mapping[str, Any]) -> str:
    """How a selected set was chosen: "gradient (waterbird on land)"."""
    return f"{row['criterion']} ({row['traced_on']})" if isinstance(row["traced_on"], str) else str(row["criterion"])


def edit_text(row: Mapping[str, Any]) -> str:
    """The edit of a row of effects: "zero", "random_noise std=0.02"."""
    parameters = str(row["parameters"]).strip("{}").replace('"', "").replace(": ", "=")
    return f"{row['kind']} {parameters}".strip()


def with_names(effects: pd.DataFrame) -> pd.DataFrame:
    """Rows of effects with two columns more: `selected_by` and `edit`, in words."""
    rows = effects.to_dict(orient="records")
    return effects.assign(selected_by=[selected_by(row) for row in rows], edit=[edit_text(row) for row in rows])


def group_title(name: str, is_minority: bool) -> str:
    """The name of a group above its panel."""
    return f"{name} (minority)" if is_minority else name
