"""Tables of a comparison of runs: frames of words, for the terminal, for `--format` and for the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
from rich.markup import escape
from rich.table import Table

from ..comparison.compare import Comparison
from ..comparison.epochs import CHOSEN_BY
from ..comparison.measures import GAP, OVERALL

_HEADINGS = dict(zip(OVERALL, ("average", "train weighted", "group balanced", "worst group"), strict=True))
_RULES = {
    "worst_group_accuracy": "worst-group accuracy on half of val (needs its groups)",
    "average": "average accuracy on half of val (needs no groups)",
}
_SPLITS = ("train", "val", "test", GAP)

GROUPS_SHOWN = 6
"""Of more groups, only the minority ones have a column."""


@dataclass(frozen=True, eq=False)
class Shown:
    """A table that is ready to be shown.

    Arguments:
        title: above it.
        frame: its cells, as text.
        caption: beneath it.
        about: how many of the first columns say what a row is about; they are left-aligned.
    """

    title: str
    frame: pd.DataFrame
    caption: str
    about: int


def comparison_tables(found: Comparison) -> list[Shown]:
    """Accuracies and paired differences for each rule that chooses epochs, then costs."""
    shown = []
    for rule in CHOSEN_BY:
        shown.append(method_accuracies(found, rule))
        if found.baseline is not None and len(found.methods) > 1:
            shown.append(method_differences(found, rule))
    return [*shown, method_costs(found)]


def method_accuracies(found: Comparison, chosen_by: str) -> Shown:
    """Every measure of every method on train, val and test, and the gap: mean and standard deviation over seeds."""
    rows = found.summary[found.summary["chosen_by"] == chosen_by]
    lines = []
    for method in found.methods:
        own = rows[rows["method"] == method]
        about = {"method": method, "seeds": str(own["n_seeds"].max())}
        for split in (split for split in _SPLITS if (own["split"] == split).any()):
            cells = _cells(found, own[own["split"] == split], lambda row: _with_spread(row.mean, row.std))
            lines.append({**about, "on": split, **cells})
            about = dict.fromkeys(about, "")
    title = f"Accuracy in %, epochs chosen by {_RULES[chosen_by]}"
    caption = "Mean ± standard deviation over seeds. gap: train - test. val: the half that chooses."
    if found.data.minority:
        caption += " * minority group."
    return Shown(title, pd.DataFrame(lines), caption, 3)


def method_differences(found: Comparison, chosen_by: str) -> Shown:
    """Every method's accuracy on test less the baseline's, paired by seed."""
    rows = found.summary[
        (found.summary["chosen_by"] == chosen_by)
        & (found.summary["split"] == "test")
        & (found.summary["method"] != found.baseline)
    ]
    lines = []
    for method, here in rows.groupby("method", sort=False):
        n = int(here["n_paired"].max())
        cells = _cells(found, here, lambda row: _with_interval(row.difference, row.low, row.high))
        lines.append({"method": method, "paired seeds": str(n) if n else "none in common", **cells})
    title = f"Test accuracy less that of {found.baseline}, in points, epochs chosen by {_RULES[chosen_by]}"
    caption = "Mean of the differences by seed, with 95 % intervals by the t distribution where there are two or more."
    return Shown(title, pd.DataFrame(lines), caption, 2)


def method_costs(found: Comparison) -> Shown:
    """What each method cost, and the epochs that the rules chose for it, seed by seed."""
    lines = []
    for method in found.methods:
        runs = found.runs[found.runs["method"] == method]
        lines.append(
            {
                "method": method,
                "seeds": ", ".join(map(str, runs["seed"])),
                "seconds": _amount(runs["total_seconds"]),
                "sample passes": _amount(runs["total_sample_passes"]),
                **{f"epochs by {_HEADINGS[rule]}": ", ".join(map(str, runs[f"epoch_by_{rule}"])) for rule in CHOSEN_BY},
            }
        )
    caption = "Means over seeds, with the training that a method started from. Epochs in the order of the seeds."
    return Shown("Cost, and the epochs chosen", pd.DataFrame(lines), caption, 2)


def terminal_table(shown: Shown) -> Table:
    """The table for the terminal."""
    table = Table(title=escape(shown.title), caption=escape(shown.caption), title_justify="left")
    table.caption_justify = "left"
    for place, name in enumerate(shown.frame.columns):
        table.add_column(escape(name), justify="left" if place < shown.about else "right", overflow="fold")
    in_blocks = (shown.frame.iloc[:, 0] == "").any()
    for row in shown.frame.itertuples(index=False):
        if in_blocks and row[0]:
            table.add_section()
        table.add_row(*map(escape, row))
    return table


def _cells(found: Comparison, rows: pd.DataFrame, text: Callable[[Any], str]) -> dict[str, str]:
    """A cell for each measure, under its heading, in the order of the columns."""
    measured = {(row.measure, row.group): text(row) for row in rows.itertuples()}
    names, minority = found.data.groups.names, found.data.minority
    groups = range(len(names)) if len(names) <= GROUPS_SHOWN or not minority else minority
    columns = {heading: (measure, -1) for measure, heading in _HEADINGS.items()}
    columns |= {f"{names[g]}{' *' if g in minority else ''}": ("group_accuracy", g) for g in groups}
    return {heading: measured.get(which, "-") for heading, which in columns.items()}


def _with_spread(mean: float, std: float) -> str:
    spread = "" if pd.isna(std) else f"±{100 * std:.1f}"
    return "-" if pd.isna(mean) else f"{round(100 * mean, 1) + 0.0:.1f}{spread}"


def _with_interval(difference: float, low: float, high: float) -> str:
    if pd.isna(difference):
        return "-"
    interval = "" if pd.isna(low) else f"\n({_points(low)}, {_points(high)})"
    return f"{_points(difference)}{interval}"


def _points(share: float) -> str:
    return f"{round(100 * share, 1) + 0.0:+.1f}"


def _amount(values: pd.Series) -> str:
    return "-" if values.isna().any() else f"{values.mean():,.0f}"
