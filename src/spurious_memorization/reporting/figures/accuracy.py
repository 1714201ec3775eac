"""Figures of accuracy: each group over the epochs, and several runs after their last epoch."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from ...intervals import wilson_interval
from ...runs.run import Run
from ..inputs import ReportInputs
from ..tables.columns import table_of
from ..tables.number_formats import format_value
from ..wording import group_title
from .colors import BLUE, GREEN, LINE, ORANGE
from .figure import Figure, in_order, ranked

SPLITS = ("train", "val", "test")
SPLIT_COLORS = (BLUE, GREEN, ORANGE)
SPLIT_SHAPES = ("circle", "square", "triangle-up")
SPLIT_DASHES = ([1, 0], [2, 2], [6, 3])

ROWS = alt.NamedData("rows")


def accuracy(inputs: ReportInputs) -> Figure:
    """Accuracy over the epochs on train, val and test, one panel per group, with 95 % Wilson bands."""
    rows = ranked(inputs.by_run(measured), "panel")
    base = alt.Chart(ROWS).encode(
        x=alt.X("epoch:Q", title="epoch", axis=alt.Axis(tickMinStep=1, format="d", grid=False)),
        color=alt.Color("split:N", title=None, scale=_splits(SPLIT_COLORS), legend=_legend()),
        tooltip=[
            alt.Tooltip("group:N"),
            alt.Tooltip("split:N"),
            alt.Tooltip("epoch:Q"),
            alt.Tooltip("accuracy:Q", format=".1%"),
            alt.Tooltip("correct:Q"),
            alt.Tooltip("n:Q"),
        ],
    )
    height = alt.Y("accuracy:Q", title="accuracy", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%"))
    shape = alt.Shape("split:N", title=None, scale=_splits(SPLIT_SHAPES))
    dash = alt.StrokeDash("split:N", title=None, scale=_splits(SPLIT_DASHES))
    panel = alt.layer(
        base.mark_area(opacity=0.13).encode(y=alt.Y("low:Q", title="accuracy"), y2="high:Q"),
        base.mark_line(strokeWidth=2).encode(y=height, strokeDash=dash),
        base.mark_point(size=34, filled=True, opacity=1).encode(y=height, shape=shape),
    ).properties(width=260, height=170)
    chart = panel.facet(facet=alt.Facet("panel:N", sort=in_order("panel"), title=None), columns=2)
    table = rows[["run", "group", "epoch", "split", "n", "correct", "accuracy", "low", "high"]]
    return Figure(
        name="accuracy",
        alt=f"Line charts of accuracy over the epochs in train, val and test, one panel per group. {_in_words(rows)}",
        chart=specification(chart),
        rows=rows[
            ["run", "group", "panel", "panel_place", "split", "epoch", "accuracy", "low", "high", "correct", "n"]
        ],
        table=table_of(
            table,
            "Accuracy of each group over the epochs",
            "Bands are 95 % intervals (Wilson). A minority group is memorized if it is right in training and wrong in "
            "test.",
        ),
        choosers=("run", "group"),
        panels="panel",
    )


def comparison(inputs: ReportInputs) -> Figure:
    """Accuracy of each group after each run's last epoch, in training and in test."""
    last = inputs.by_run(after_last_epoch)
    rows = ranked(last[last["split"] != "val"], "panel", "run")
    base = alt.Chart(ROWS).encode(y=alt.Y("run:N", axis=None, sort=in_order("run")))
    place = alt.X("accuracy:Q", title="accuracy", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%"))
    points = base.mark_point(size=80, filled=True, opacity=1).encode(
        x=place,
        color=alt.Color(
            "split:N", title=None, scale=_splits(SPLIT_COLORS, ("train", "test")), legend=alt.Legend(orient="top")
        ),
        shape=alt.Shape("split:N", title=None, scale=_splits(SPLIT_SHAPES, ("train", "test"))),
        tooltip=[
            alt.Tooltip("run:N"),
            alt.Tooltip("group:N"),
            alt.Tooltip("split:N"),
            alt.Tooltip("accuracy:Q", format=".1%"),
            alt.Tooltip("correct:Q"),
            alt.Tooltip("n:Q"),
        ],
    )
    names = (
        base.transform_filter(alt.datum.split == "train")
        .mark_text(align="left", baseline="bottom", dy=-8, limit=300)
        .encode(x=alt.value(0), text="run:N")
    )
    chart = alt.layer(base.mark_line(color=LINE, strokeWidth=3).encode(x=place, detail="run:N"), points, names)
    chart = chart.properties(width=260, height=alt.Step(38)).facet(
        facet=alt.Facet("panel:N", sort=in_order("panel"), title=None), columns=2
    )
    worst = last[last["split"] == "test"].groupby("run", sort=False)["accuracy"].min()
    return Figure(
        name="comparison",
        alt="Dot plots of accuracy in training and test, one panel per group and one row per run. Worst-group accuracy "
        "in test: " + "; ".join(f"{run} {format_value(value, 'percent')}" for run, value in worst.items()),
        chart=specification(chart),
        rows=rows[["run", "run_place", "group", "panel", "panel_place", "split", "accuracy", "correct", "n"]],
        table=table_of(
            _by_run_and_group(last),
            "Comparison of runs: accuracy of each group after the last epoch",
            "A longer line between the two marks of a run means that the run memorizes more of the group.",
        ),
        choosers=("group",),
        panels="panel",
    )


def measured(run: Run) -> pd.DataFrame:
    """The run's history with accuracies, their 95 % Wilson intervals, and names of groups."""
    record = run.record.data
    rows = run.history()
    rows = rows[rows["n"] > 0].copy()
    names = record.groups.names
    rows["low"], rows["high"] = wilson_interval(rows["correct"], rows["n"])
    rows["accuracy"] = rows["correct"] / rows["n"]
    panels = [group_title(name, name in record.minority) for name in names]
    rows = rows.sort_values(["group", "epoch"], kind="stable")
    return rows.assign(group=[names[g] for g in rows["group"]], panel=[panels[g] for g in rows["group"]])


def specification(chart: Any) -> dict[str, Any]:
    """A chart as Vega-Lite, without its settings and data."""
    spec: dict[str, Any] = chart.to_dict()
    spec.pop("config", None)
    return spec


def after_last_epoch(run: Run) -> pd.DataFrame:
    """The rows of `measured` after the last epoch."""
    rows = measured(run)
    return rows[rows["epoch"] == run.choose_epoch("last")] if len(rows) else rows


def _by_run_and_group(last: pd.DataFrame) -> pd.DataFrame:
    """One row per run and group: accuracy on each split, and the gap."""
    keys = ["run", "epoch", "group"]
    wide = last.pivot_table(index=keys, columns="split", values=["accuracy", "n"], sort=False)
    there = [split for split in SPLITS if split in set(last["split"])]
    columns = {split: wide["accuracy"][split] for split in there} | {f"n_{split}": wide["n"][split] for split in there}
    table = pd.DataFrame(columns).reset_index()
    if {"train", "test"} <= set(there):
        table["gap"] = table["train"] - table["test"]
    return table


def _in_words(rows: pd.DataFrame) -> str:
    """Accuracies after the last epoch of the first run."""
    first = rows[rows["run"] == rows["run"].iloc[0]] if len(rows) else rows
    last = first[first["epoch"] == first["epoch"].max()]
    lines = []
    for panel, here in last.groupby("panel", sort=False):
        values = here.set_index("split")["accuracy"]
        lines.append(
            f"{panel}: " + ", ".join(f"{s} {format_value(values[s], 'percent')}" for s in SPLITS if s in values)
        )
    return f"After the last epoch: {'; '.join(lines)}." if lines else ""


def _legend() -> alt.Legend:
    return alt.Legend(orient="top", symbolOpacity=1)


def _splits(values: Any, splits: tuple[str, ...] = SPLITS) -> alt.Scale:
    return alt.Scale(domain=list(splits), range=[values[SPLITS.index(split)] for split in splits])
