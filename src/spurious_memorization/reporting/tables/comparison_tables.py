"""Tables of a comparison of runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from ...comparison.compare import Comparison
from ...comparison.epochs import CHOSEN_BY
from ...comparison.measures import GAP, OVERALL
from .measure_tables import beyond_accuracy
from .over_seeds import METHOD, METHOD_BLOCK, METHOD_BLOCK_COLUMNS, difference_column, mean_column
from .selection_tables import epoch_choices
from .table import Column, Table

_HEADINGS = dict(zip(OVERALL, ("average", "train weighted", "group balanced", "worst group"), strict=True))
_RULES = {
    "worst_group_accuracy": "worst-group accuracy on half of val (needs its groups)",
    "average": "average accuracy on half of val (needs no groups)",
}
_SPLITS = ("train", "val", "test", GAP)

MAX_GROUP_COLUMNS = 6
"""If a data set has more groups, only the minority groups have a column."""


def comparison_tables(found: Comparison) -> list[Table]:
    """Accuracies and paired differences for each rule that chooses epochs, then other measures, rules, and costs."""
    tables = []
    for rule in CHOSEN_BY:
        tables.append(method_accuracies(found, rule))
        if found.baseline is not None and len(found.methods) > 1:
            tables.append(method_differences(found, rule))
    return [*tables, beyond_accuracy(found), epoch_choices(found), method_costs(found)]


def method_overview(found: Comparison) -> Table:
    """One row per method: its accuracy on test, by both rules that choose epochs."""
    summary = found.summary[(found.summary["split"] == "test") & (found.summary["group"] < 0)]
    cells = {(row["method"], row["chosen_by"], row["measure"]): row for row in summary.to_dict(orient="records")}
    values = ("mean", "std", "difference", "low", "high")
    measures = ("worst_group_accuracy", "average")
    lines = [
        {
            "method": method,
            **{
                f"{rule} {measure} {value}": cells[method, rule, measure][value]
                for rule in CHOSEN_BY
                for measure in measures
                for value in values
            },
        }
        for method in found.methods
    ]
    columns = [METHOD]
    for rule, mark in zip(CHOSEN_BY, "wa", strict=True):
        worst, average = (f"{rule} {measure}" for measure in measures)
        columns.append(mean_column(worst, f"({mark}) worst group"))
        if found.baseline is not None:
            columns.append(difference_column(worst, f"({mark}) worst group minus {found.baseline}"))
        columns.append(mean_column(average, f"({mark}) average"))
    caption = (
        f"Epochs chosen by (w) {_RULES[CHOSEN_BY[0]]}, (a) {_RULES[CHOSEN_BY[1]]}. Mean ± standard deviation over "
        "seeds. Differences are paired by seed, in points, with 95 % intervals by the t distribution."
    )
    return Table(title="Accuracy on test in %", rows=pd.DataFrame(lines), columns=tuple(columns), caption=caption)


def method_accuracies(found: Comparison, chosen_by: str) -> Table:
    """Every measure of every method on train, val and test, and the gap: mean and standard deviation over seeds."""
    summary = found.summary[found.summary["chosen_by"] == chosen_by]
    lines = []
    for method in found.methods:
        own = summary[summary["method"] == method]
        n_seeds = own["n_seeds"].max()
        lines += [
            {"method": method, "seeds": n_seeds, "split": split, **_values(found, of_split, ("mean", "std"))}
            for split in _SPLITS
            if len(of_split := own[own["split"] == split])
        ]
    caption = "Mean ± standard deviation over seeds. gap: train - test. val: the half that chooses the epoch."
    if found.data.minority:
        caption += " * minority group."
    return Table(
        title=f"Accuracy in %, epochs chosen by {_RULES[chosen_by]}",
        rows=pd.DataFrame(lines),
        columns=(
            *METHOD_BLOCK_COLUMNS,
            Column(name="split", heading="split"),
            *(mean_column(name, heading) for name, heading in _measures(found)),
        ),
        caption=caption,
        blocks=METHOD_BLOCK,
    )


def method_differences(found: Comparison, chosen_by: str) -> Table:
    """Every method's accuracy on test minus the baseline's, paired by seed."""
    summary = found.summary[
        (found.summary["chosen_by"] == chosen_by)
        & (found.summary["split"] == "test")
        & (found.summary["method"] != found.baseline)
    ]
    lines = [
        {"method": method, "n_paired": rows["n_paired"].max(), **_values(found, rows, ("difference", "low", "high"))}
        for method, rows in summary.groupby("method", sort=False)
    ]
    return Table(
        title=f"Test accuracy minus that of {found.baseline}, in points, epochs chosen by {_RULES[chosen_by]}",
        rows=pd.DataFrame(lines),
        columns=(
            METHOD,
            Column(name="n_paired", heading="seeds in common", kind="count"),
            *(difference_column(name, heading) for name, heading in _measures(found)),
        ),
        caption="Mean of the differences by seed, with 95 % intervals by the t distribution for two or more seeds.",
    )


def method_costs(found: Comparison) -> Table:
    """The training cost of each method, and the epochs that the rules chose, seed by seed."""
    lines = []
    for method in found.methods:
        runs = found.runs[found.runs["method"] == method]
        lines.append(
            {
                "method": method,
                "seeds": ", ".join(map(str, runs["seed"])),
                "seconds": _mean(runs["total_seconds"]),
                "sample_passes": _mean(runs["total_sample_passes"]),
                **{f"epochs_by_{rule}": ", ".join(map(str, runs[f"epoch_by_{rule}"])) for rule in CHOSEN_BY},
            }
        )
    return Table(
        title="Cost, and the epochs chosen",
        rows=pd.DataFrame(lines),
        columns=(
            METHOD,
            Column(name="seeds", heading="seeds"),
            Column(name="seconds", heading="seconds", kind="count"),
            Column(name="sample_passes", heading="sample passes", kind="count"),
            *(Column(name=f"epochs_by_{rule}", heading=f"epochs by {_HEADINGS[rule]}") for rule in CHOSEN_BY),
        ),
        caption=(
            "Means over seeds. They include the training that a method started from. "
            "Epochs are in the order of the seeds."
        ),
    )


def _measures(found: Comparison) -> list[tuple[str, str]]:
    """Machine name and heading of every measure that has a column."""
    names, minority = found.data.groups.names, found.data.minority
    groups = range(len(names)) if len(names) <= MAX_GROUP_COLUMNS or not minority else minority
    return [
        *_HEADINGS.items(),
        *((f"group {g}", f"{names[g]}{' *' if g in minority else ''}") for g in groups),
    ]


def _values(found: Comparison, rows: pd.DataFrame, values: Sequence[str]) -> dict[str, Any]:
    """Values of each measure as columns, such as "average mean"; None where a measure was not taken."""
    by_measure = {
        row["measure"] if row["group"] < 0 else f"group {row['group']}": row
        for row in rows.to_dict(orient="records")
        if row["group"] < 0 or row["measure"] == "group_accuracy"
    }
    return {f"{name} {value}": by_measure.get(name, {}).get(value) for name, _ in _measures(found) for value in values}


def _mean(values: pd.Series) -> float | None:
    return None if values.isna().any() else float(values.mean())
