"""The small figures of the report's first screen. Each has a fixed scale, so that small effects look small."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from ...calibration.known_answers import KnownAnswer
from ...runs.run import Run
from ..inputs import ReportInputs
from ..tables.columns import table_of
from .accuracy import ROWS, after_last_epoch, specification
from .colors import BLUE, INK, MUTED, ORANGE
from .figure import Figure, in_order, ranked

SMALL = 180
"""Width of a figure in pixels, where the page does not give another one."""

SET_TRAIN, SET_UNSEEN, NULLS = "set, training", "set, unseen", "null sets, training"


def positive_control(inputs: ReportInputs) -> Figure | None:
    """What the set that was found does in the positive control; None without controls."""
    return None if inputs.controls is None else _of_control("positive_control", inputs.controls.positive)


def negative_control(inputs: ReportInputs) -> Figure | None:
    """What the strongest set does in the negative control; None without controls."""
    return None if inputs.controls is None else _of_control("negative_control", inputs.controls.negative)


def gap(inputs: ReportInputs) -> Figure:
    """Accuracy of each group after the first run's last epoch, in training and in test. A star: a minority group."""
    run = inputs.runs[0]
    rows, minority = after_last_epoch(run), run.record.data.minority
    rows = rows.assign(group=[f"{name} *" if name in minority else name for name in rows["group"]])
    rows = ranked(rows[rows["split"].isin(("train", "test"))], "group")
    base = alt.Chart(ROWS).encode(y=alt.Y("group:N", title=None, sort=in_order("group"), axis=_names()))
    place = alt.X("accuracy:Q", title="accuracy (* minority)", scale=alt.Scale(domain=[0, 1]), axis=_percents())
    splits = ["train", "test"]
    points = base.mark_point(size=60, filled=True, opacity=1).encode(
        x=place,
        color=alt.Color(
            "split:N",
            title=None,
            scale=alt.Scale(domain=splits, range=[BLUE, ORANGE]),
            legend=alt.Legend(orient="top", symbolOpacity=1),
        ),
        shape=alt.Shape("split:N", title=None, scale=alt.Scale(domain=splits, range=["circle", "triangle-up"])),
        tooltip=[alt.Tooltip("group:N"), alt.Tooltip("split:N"), alt.Tooltip("accuracy:Q", format=".1%")],
    )
    line = base.mark_line(color=MUTED, strokeWidth=2).encode(x=place, detail="group:N")
    chart = alt.layer(line, points).properties(width=SMALL, height=alt.Step(20))
    table = rows[["group", "split", "n", "correct", "accuracy"]]
    return Figure(
        name="gap",
        alt="Dot plot: accuracy of each group in training and in test, from 0 to 100 %.",
        chart=specification(chart),
        rows=rows[["group", "group_place", "split", "accuracy"]],
        table=table_of(table, "Accuracy of each group in training and in test", "*: minority group."),
    )


def repair(inputs: ReportInputs) -> Figure | None:
    """Worst-group accuracy in test of each run, with its interval; None unless several runs were measured in test."""
    rows = inputs.by_run(_worst)
    if rows["run"].nunique() < len(inputs.runs) or len(rows) < 2:
        return None
    short = [run.path.name for run in inputs.runs]
    rows = ranked(rows.assign(name=short if len(set(short)) == len(short) else rows["run"]), "run")
    base = alt.Chart(ROWS).encode(y=alt.Y("name:N", title=None, sort=in_order("run"), axis=_names()))
    place = alt.X("accuracy:Q", title="worst-group accuracy in test", scale=alt.Scale(domain=[0, 1]), axis=_percents())
    bars = base.mark_bar(color=BLUE, height=12).encode(
        x=place,
        tooltip=[alt.Tooltip("run:N"), alt.Tooltip("group:N"), alt.Tooltip("accuracy:Q", format=".1%")],
    )
    interval = base.mark_rule(color=INK, strokeWidth=1.5).encode(x=alt.X("low:Q"), x2="high:Q")
    chart = alt.layer(bars, interval).properties(width=SMALL, height=alt.Step(24))
    return Figure(
        name="repair",
        alt="Bars: worst-group accuracy in test of each run, from 0 to 100 %, with 95 % intervals.",
        chart=specification(chart),
        rows=rows[["run", "name", "run_place", "group", "accuracy", "low", "high"]],
        table=table_of(
            rows[["run", "group", "n", "correct", "accuracy", "low", "high"]],
            "Worst-group accuracy in test",
            "After the last epoch, with 95 % intervals (Wilson).",
        ),
    )


def _of_control(name: str, answer: KnownAnswer) -> Figure:
    """Accuracy changes of the strongest set, in training and on unseen samples, and those of its null sets."""
    changes = [(SET_TRAIN, answer.train_change), (SET_UNSEEN, answer.unseen_change)]
    changes += [(NULLS, change) for change in answer.null_changes]
    rows = ranked(pd.DataFrame(changes, columns=["what", "accuracy_change"]), "what")
    kinds = [SET_TRAIN, SET_UNSEEN, NULLS]
    base = alt.Chart(ROWS).encode(y=alt.Y("what:N", title=None, sort=in_order("what"), axis=_names()))
    place = alt.X(
        "accuracy_change:Q", title="accuracy change", scale=alt.Scale(domain=[-1, 0.2]), axis=_percents("+.0%")
    )
    zero = alt.Chart(ROWS).mark_rule(color=MUTED).encode(x=alt.datum(0))
    points = base.mark_point(size=60, filled=True, opacity=0.7).encode(
        x=place,
        color=alt.Color("what:N", scale=alt.Scale(domain=kinds, range=[ORANGE, BLUE, MUTED]), legend=None),
        shape=alt.Shape(
            "what:N", scale=alt.Scale(domain=kinds, range=["diamond", "triangle-up", "circle"]), legend=None
        ),
        tooltip=[alt.Tooltip("what:N"), alt.Tooltip("accuracy_change:Q", format="+.1%")],
    )
    chart = alt.layer(zero, points).properties(width=SMALL, height=alt.Step(20))
    return Figure(
        name=name,
        alt="Dot plot: accuracy changes of the strongest set in training and on unseen samples, and of its null sets, "
        "from -100 % to +20 %.",
        chart=specification(chart),
        rows=rows,
        table=table_of(
            rows[["what", "accuracy_change"]],
            f"{answer.control.capitalize()} control: accuracy changes of {answer.group}",
            f"The set is {', '.join(answer.units)}; its null sets are random units of the same layers.",
        ),
    )


def _worst(run: Run) -> pd.DataFrame:
    """The worst group of a run in test, one row; no row without a test split."""
    in_test = after_last_epoch(run).query("split == 'test'")
    return in_test[in_test["accuracy"] == in_test["accuracy"].min()].head(1)


def _names() -> alt.Axis:
    return alt.Axis(labelLimit=210, ticks=False, domain=False)


def _percents(form: str = ".0%") -> Any:
    return alt.Axis(format=form, tickCount=4)


IN_SHORT = {
    "positive_control": positive_control,
    "negative_control": negative_control,
    "gap": gap,
    "repair": repair,
}
"""The figures of the first screen by name, in their order."""
