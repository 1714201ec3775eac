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


def null_sets_text(drawn_from: object) -> str:
    """What null sets are: "random units of the same layers", or of what else, with the flag that says so.

    Arguments:
        drawn_from: as in effects: "random, of the same layers"; None without null sets.
    """
    if is_usual_source(drawn_from):
        return "random units of the same layers"
    place = str(drawn_from).removeprefix("random, of the same ")
    return f"random units of the same {place} ({source_flag(drawn_from)})"


def damage_matched_text(matched_from: object) -> str:
    """What damage-matched sets are: "sets of the same damage", or also from the whole network.

    Arguments:
        matched_from: as in effects; None without damage-matched sets.
    """
    is_wide = isinstance(matched_from, str) and matched_from.endswith("the whole network")
    return "sets of the same damage (of the whole network)" if is_wide else "sets of the same damage"


def source_flag(drawn_from: object) -> str:
    """The flag of a study whose null sets are not drawn from the same layers; "" for other studies."""
    if is_usual_source(drawn_from):
        return ""
    return f"--controls-from {str(drawn_from).removeprefix('random, of the same ').removesuffix('s')}"


def is_usual_source(drawn_from: object) -> bool:
    """Whether null sets are drawn from the same layers, as they are if nothing else is asked for."""
    return not isinstance(drawn_from, str) or drawn_from.endswith("the same layers")
