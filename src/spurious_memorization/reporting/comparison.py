"""Tables of a comparison of runs: frames of words, for the terminal, for `--format` and for the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.table import Table

from ..comparison.compare import Comparison
from ..comparison.epochs import CHOSEN_BY
from ..comparison.measures import GAP, OVERALL
from .columns import points

_HEADINGS = dict(zip(OVERALL, ("average", "train weighted", "group balanced", "worst group"), strict=True))
_RULES = {
    "worst_group_accuracy": "worst-group accuracy on half of val (needs its groups)",
    "average": "average accuracy on half of val (needs no groups)",
}
_SPLITS = ("train", "val", "test", GAP)

GROUPS_SHOWN = 6
"""Of more groups, only the minority ones have a column."""

WIDE = 130
"""In terminals of so many columns names of methods are cut within long words alone."""

LONGEST_WORD = 24
"""Letters of a long word."""


@dataclass(frozen=True, eq=False)
class Shown:
    """A table that is ready to be shown; rich renders it.

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

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield _terminal_table(self, options.max_width)


def comparison_tables(found: Comparison) -> list[Shown]:
    """Accuracies and paired differences for each rule that chooses epochs, then costs."""
    shown = []
    for rule in CHOSEN_BY:
        shown.append(method_accuracies(found, rule))
        if found.baseline is not None and len(found.methods) > 1:
            shown.append(method_differences(found, rule))
    return [*shown, method_costs(found)]


def method_overview(found: Comparison) -> Shown:
    """One line a method: how it does on test, by both rules that choose epochs."""
    shown: dict[str, Callable[[Any], str]] = {"": lambda row: _with_spread(row.mean, row.std)}
    if found.baseline is not None:
        shown[f" less {found.baseline}"] = lambda row: _with_interval(row.difference, row.low, row.high)
    rows = found.summary[(found.summary["split"] == "test") & (found.summary["group"] < 0)]
    cells = {(row.method, row.chosen_by, row.measure): row for row in rows.itertuples()}
    lines = []
    for method in found.methods:
        line = {"method": method}
        for rule, mark in zip(CHOSEN_BY, "wa", strict=True):
            worst, average = (cells[method, rule, measure] for measure in ("worst_group_accuracy", "average"))
            line |= {f"({mark}) worst group{what}": text(worst) for what, text in shown.items()}
            line[f"({mark}) average"] = shown[""](average)
        lines.append(line)
    caption = (
        f"Epochs chosen by (w) {_RULES[CHOSEN_BY[0]]}, (a) {_RULES[CHOSEN_BY[1]]}. Mean ± standard deviation over "
    )
    caption += "seeds; differences paired by seed, in points, with 95 % intervals by the t distribution."
    return Shown("Accuracy on test in %", pd.DataFrame(lines), caption, 1)


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


def _terminal_table(shown: Shown, width: int) -> Table:
    """The table for a terminal of so many columns; in a narrow one names break anywhere, so that no figure is lost."""
    table = Table(title=escape(shown.title), caption=escape(shown.caption), title_justify="left")
    table.caption_justify = "left"
    longest = max(6, *(len(word) for name in shown.frame.iloc[:, 0] for word in name.split()))
    for place, name in enumerate(shown.frame.columns):
        table.add_column(
            escape(name),
            justify="left" if place < shown.about else "right",
            overflow="fold",
            width=min(longest, LONGEST_WORD) if place == 0 and width >= WIDE else None,
        )
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
    spread = "" if pd.isna(std) else f" ±{100 * std:.1f}"
    return "-" if pd.isna(mean) else f"{round(100 * mean, 1) + 0.0:.1f}{spread}"


def _with_interval(difference: float, low: float, high: float) -> str:
    if pd.isna(difference):
        return "-"
    interval = "" if pd.isna(low) else f"\n({points(low)}, {points(high)})"
    return f"{points(difference)}{interval}"


def _amount(values: pd.Series) -> str:
    return "-" if values.isna().any() else f"{values.mean():,.0f}"
