"""Accuracy changes of selected sets compared with their controls, and the verdicts on them."""

from __future__ import annotations

import altair as alt
import numpy as np
import pandas as pd

from ..inputs import FinishedStudy, ReportInputs
from ..tables.columns import table_of
from ..tables.findings import FOUND
from ..wording import group_title
from .accuracy import ROWS, specification
from .colors import BLUE, LINE, MUTED, ORANGE, PAPER
from .figure import Figure, in_order, ranked

SELECTED = "selected set, on its controls' samples"
WHOLE = "selected set, on all samples, 95 % interval"
CONTROL = "matched controls (area: how many)"

CHOOSERS = ("run", "study", "split", "edit", "criterion", "size", "group")
KEYS = list(CHOOSERS)


def accuracy_changes(inputs: ReportInputs) -> Figure | None:
    """Accuracy change of each selected set and of its controls, one panel per group; None without a study."""
    if not inputs.studies:
        return None
    rows = pd.concat([_rows(study) for study in inputs.studies], ignore_index=True)
    rows = ranked(rows.sort_values("number", kind="stable"), "panel").sort_index()
    rows = ranked(rows, "set")
    kinds = [SELECTED, WHOLE, CONTROL]
    base = alt.Chart(ROWS).encode(
        y=alt.Y("set:N", axis=None, sort=in_order("set")),
        color=alt.Color(
            "kind:N",
            title=None,
            scale=alt.Scale(domain=kinds, range=[ORANGE, BLUE, MUTED]),
            legend=alt.Legend(orient="top", columns=1, symbolOpacity=1),
        ),
    )
    shape = alt.Shape("kind:N", title=None, scale=alt.Scale(domain=kinds, range=["diamond", "square", "circle"]))
    place = alt.X("accuracy_change:Q", title="accuracy change", axis=alt.Axis(format="+.0%", tickCount=5))
    tooltip = [
        alt.Tooltip("set:N"),
        alt.Tooltip("group:N"),
        alt.Tooltip("accuracy_change:Q", title="accuracy change", format="+.2%"),
        alt.Tooltip("low:Q", format="+.2%"),
        alt.Tooltip("high:Q", format="+.2%"),
        alt.Tooltip("count:Q", title="controls"),
    ]
    of = {kind: base.transform_filter(alt.datum.kind == kind) for kind in kinds}
    zero = alt.Chart(ROWS).mark_rule(color=LINE, strokeWidth=1.5).encode(x=alt.datum(0))
    controls = (
        of[CONTROL]
        .mark_point(filled=True, opacity=0.5)
        .encode(
            x=place,
            size=alt.Size("count:Q", scale=alt.Scale(range=[14, 260]), legend=None),
            shape=shape,
            tooltip=tooltip,
        )
    )
    interval = of[WHOLE].mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title="accuracy change"), x2="high:Q")
    whole = of[WHOLE].mark_point(filled=True, size=36, opacity=1).encode(x=place, shape=shape, tooltip=tooltip)
    chosen = (
        of[SELECTED]
        .mark_point(filled=True, size=120, opacity=1, stroke=PAPER, strokeWidth=1.5)
        .encode(x=place, shape=shape, tooltip=tooltip)
    )
    names = (
        of[WHOLE]
        .mark_text(align="left", baseline="bottom", dy=-8, limit=400)
        .encode(x=alt.value(0), text="set:N", color=alt.value("var(--ink)"))
    )
    chart = alt.layer(zero, interval, controls, whole, chosen, names).properties(width=260, height=alt.Step(42))
    chart = chart.facet(facet=alt.Facet("panel:N", sort=in_order("panel"), title=None), columns=2)
    return Figure(
        name="accuracy_changes",
        alt="Dot plots, one panel per group and one row per selected set. Each row shows the set's accuracy change on "
        "all samples with its interval, its change on the controls' samples, and the changes of matched random sets.",
        chart=specification(chart),
        rows=rows,
        table=table_of(
            _numbers(inputs),
            "Accuracy changes of selected sets and of matched controls",
            "A set deserves attention if its diamond lies to the left of its controls. The interval describes "
            "sampling error only. The verdict compares the set with its controls, on samples that did not select the "
            "units.",
        ),
        choosers=CHOOSERS,
        panels="panel",
    )


def verdicts(inputs: ReportInputs) -> Figure | None:
    """A table of the three answers about each selected set and minority group; None without a study of one."""
    if not inputs.studies:
        return None
    effects = inputs.effects()
    tests = effects[effects["minority"] & ((effects["n_controls"] > 0) | (effects["split"] == "train"))]
    if tests.empty:
        return None
    tests = tests.assign(found=tests["verdict"].isin(FOUND))
    for name in ("influential", "selective", "memorizing"):
        tests[name] = [None if pd.isna(value) else bool(value) for value in tests[name]]
    columns = [
        "verdict",
        "tested_accuracy_change",
        "p_adjusted",
        "influential",
        "difference",
        "p_selective",
        "selective",
    ]
    columns += ["contrast", "contrast_low", "contrast_high", "memorizing", "reason", "found"]
    return Figure(
        name="verdicts",
        alt="A table of the three answers about each selected set and minority group.",
        chart=None,
        rows=tests[KEYS],
        table=table_of(
            tests[[*KEYS, *columns]],
            "Verdicts on minority groups",
            "Influential: the group loses more accuracy than with matched random sets. Selective: it loses more than "
            "majority samples of the same label and margin. Memorizing: its training samples lose more margin than "
            "its unseen samples. A set that is influential and selective is critical. Accuracy changes are in points. "
            "The level of the tests is 5 %.",
            strong="found",
        ),
        choosers=CHOOSERS,
    )


def _rows(study: FinishedStudy) -> pd.DataFrame:
    """What is drawn: each set on all samples, each set on its controls' samples, and counts of equal controls."""
    effects = study.effects()
    effects["set"] = [f"{c}, size {s}" for c, s in zip(effects["criterion"], effects["size"], strict=True)]
    effects["panel"] = [group_title(g, m) for g, m in zip(effects["group"], effects["minority"], strict=True)]
    about = [*KEYS, "number", "set", "panel"]
    whole = effects[[*about, "accuracy_change", "low", "high"]].assign(kind=WHOLE)
    tested = effects.loc[effects["n_controls"] > 0, [*about, "tested_accuracy_change"]].assign(kind=SELECTED)
    tested = tested.rename(columns={"tested_accuracy_change": "accuracy_change"})
    controls = study.study.control_changes()
    controls["accuracy_change"] = controls["accuracy_change"].astype(float).round(12)
    counted = controls.groupby(["selected_set", "split", "group", "accuracy_change"], as_index=False).size()
    counted = counted.rename(columns={"size": "count", "group": "number"})
    named = effects[["selected_set", *about]].merge(counted, on=["selected_set", "split", "number"])
    rows = pd.concat([whole, tested, named.drop(columns="selected_set").assign(kind=CONTROL)], ignore_index=True)
    return rows.replace({np.nan: None}) if rows.empty else rows


def _numbers(inputs: ReportInputs) -> pd.DataFrame:
    effects = inputs.effects()
    effects = effects.rename(columns={"low": "accuracy_change_low", "high": "accuracy_change_high"})
    columns = ["units", "n", "accuracy_before", "accuracy_after"]
    columns += ["accuracy_change", "accuracy_change_low", "accuracy_change_high", "margin_change"]
    columns += ["tested_accuracy_change", "control_low", "control_median", "control_high"]
    columns += ["n_controls", "n_controls_as_large"]
    return effects[[*KEYS, *columns, "norm_ratio"]]
