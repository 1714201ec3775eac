"""What a study found, in two plain sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ..wording import edit_text, selected_by
from .number_formats import format_value, interval, p_text

FOUND = ("critical", "memorizing")


def tested_split(effects: pd.DataFrame) -> str:
    """The split whose verdicts are summarized: training if it was measured, otherwise the first one."""
    return "train" if (effects["split"] == "train").any() else str(effects["split"].iloc[0])


def findings(effects: pd.DataFrame) -> list[str]:
    """Two sentences made from the verdicts: what was found, and what was not. One if there was nothing to test.

    Arguments:
        effects: of a study.
    """
    tests = effects[(effects["split"] == tested_split(effects)) & effects["minority"]]
    if tests.empty:
        return ["No minority group was measured, so there is no verdict."]
    decided = tests[tests["verdict"] != "no verdict"]
    found = decided[decided["verdict"].isin(FOUND)]
    undecided = tests[tests["verdict"] == "no verdict"]
    if found.empty:
        return [_none_found(decided), _why_none(decided, undecided)]
    return [_strongest(found), _how_many(found, decided, undecided)]


def _none_found(decided: pd.DataFrame) -> str:
    if decided.empty:
        return "No test could be decided, so nothing was found."
    if len(decided) == 1:
        return "The only test was not both influential and selective."
    return f"None of the {len(decided)} tests was both influential and selective."


def _why_none(decided: pd.DataFrame, undecided: pd.DataFrame) -> str:
    counts = decided["verdict"].value_counts()
    parts = [
        f"{counts[verdict]} {_was(counts[verdict])} {verdict} but not {other}"
        for verdict, other in (("influential", "selective"), ("selective", "influential"))
        if counts.get(verdict, 0)
    ]
    if not parts and len(decided):
        parts.append("for every group, random units of the same layers change accuracy about as much")
    return _sentence([*parts, *_undecided(undecided)])


def _strongest(found: pd.DataFrame) -> str:
    first: Mapping[str, Any] = found.loc[found["difference"].idxmax()].to_dict()
    controls = interval(first["control_low"], first["control_high"], "points").strip("()")
    return (
        f"{edit_text(first)} on {_named_units(first)}, selected by {selected_by(first)}, is critical for "
        f"{first['group_name']}: its accuracy changes by {format_value(first['tested_accuracy_change'], 'points')} "
        f"points (matched controls {controls}, {p_text(first['p_adjusted'])}), and it loses "
        f"{100 * first['difference']:.1f} points more than similar majority samples ({p_text(first['p_selective'])})."
    )


def _how_many(found: pd.DataFrame, decided: pd.DataFrame, undecided: pd.DataFrame) -> str:
    memorizing = int((found["verdict"] == "memorizing").sum())
    first = found.loc[found["difference"].idxmax()]
    spread = interval(first["contrast_low"], first["contrast_high"], "signed")
    contrast = f"{format_value(first['contrast'], 'signed')} {spread}"
    parts = [f"{len(found)} of {len(decided)} tests {_was(len(found))} critical"]
    if memorizing:
        parts.append(f"{memorizing} of them {_was(memorizing)} also memorizing")
    else:
        parts.append("memorization was not shown for any of them")
    if not pd.isna(first["contrast"]):
        parts.append(f"in the strongest one, training margins fell more than unseen ones by {contrast}")
    others = [name for name in decided["group_name"].unique() if name not in set(found["group_name"])]
    if others:
        parts.append(f"nothing was critical for {', '.join(others)}")
    return _sentence([*parts, *_undecided(undecided)])


def _undecided(undecided: pd.DataFrame) -> list[str]:
    if undecided.empty:
        return []
    n = len(undecided)
    return [f"{n} {'test has' if n == 1 else 'tests have'} no verdict ({undecided['reason'].iloc[0]})"]


def _named_units(row: Mapping[str, Any]) -> str:
    """ "3 channels (conv1:56,conv1:1,conv1:2)"; a large set is only counted."""
    counted = f"{row['n_units']} {row['unit']}{'s' if row['n_units'] != 1 else ''}"
    return f"{counted} ({row['units']})" if isinstance(row["units"], str) else counted


def _was(n: int) -> str:
    return "was" if n == 1 else "were"


def _sentence(parts: list[str]) -> str:
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}."
