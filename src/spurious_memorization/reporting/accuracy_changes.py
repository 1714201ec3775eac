"""Accuracy changes of selected sets against their controls, and the verdicts on them."""

from __future__ import annotations

import altair as alt
import numpy as np
import pandas as pd

from .accuracy import ROWS, specification
from .colors import BLUE, LINE, MUTED, ORANGE, PAPER
from .figure import Figure, in_order, ranked
from .subjects import Studied, Subjects, with_star

SELECTED = "selected set, on its controls' samples"
WHOLE = "selected set, on all samples, 95 % interval"
CONTROL = "matched controls (area: how many)"

KEYS = ["run", "study", "split", "edit", "criterion", "size", "group"]


def accuracy_changes(subjects: Subjects) -> Figure | None:
    """Accuracy change of each selected set, beside those of its matched controls, a panel a group; None without a study."""
    if not subjects.studies:
        return None
    rows = pd.concat([_rows(studied) for studied in subjects.studies], ignore_index=True)
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
    place = alt.X("accuracy change:Q", title="accuracy change", axis=alt.Axis(format="+.0%", tickCount=5))
    tooltip = [
        alt.Tooltip("set:N"),
        alt.Tooltip("group:N"),
        alt.Tooltip("accuracy change:Q", format="+.2%"),
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
        "accuracy_changes",
        "Accuracy change, selected sets against matched controls",
        "Dot plots, a panel a group and a row a selected set: the set's accuracy change, on all samples with its "
        "interval and on the samples of its controls, among the accuracy changes of matched random sets.",
        specification(chart),
        rows,
        _table(subjects),
        ("run", "study", "split", "edit", "criterion", "size", "group"),
        "panel",
        "A set is worth a look where its diamond lies left of its controls. The interval describes sampling error; "
        "what decides is the comparison with the controls, on samples that the units were not selected on.",
    )


def verdicts(subjects: Subjects) -> Figure | None:
    """The three answers about each selected set and minority group, a table; None without a study."""
    if not subjects.studies:
        return None
    effects = pd.concat([studied.effects() for studied in subjects.studies], ignore_index=True)
    asked = effects[effects["minority"] & ((effects["n_controls"] > 0) | (effects["split"] == "train"))]
    asked = asked.assign(drop=-asked["tested_accuracy_change"])
    answers = ["influential", "selective", "memorizing"]
    for name in answers:
        asked[name] = [None if pd.isna(value) else bool(value) for value in asked[name]]
    columns = ["verdict", "drop", "p_adjusted", "influential", "difference", "p_selective", "selective"]
    columns += ["contrast", "contrast_low", "contrast_high", "memorizing", "reason"]
    return Figure(
        "verdicts",
        "Verdicts on minority groups",
        "A table of the three answers about each selected set and minority group.",
        None,
        asked[KEYS],
        asked[[*KEYS, *columns]],
        ("run", "study", "split", "edit", "criterion", "size", "group"),
        note="Influential: it costs the group more than matched random sets do. Selective: more than majority "
        "samples of the same label and margin. Memorizing: its training samples lose more margin than unseen ones. "
        "Influential and selective together are critical. Drops are in points of accuracy, the level is 5 %.",
    )


def _rows(studied: Studied) -> pd.DataFrame:
    """What is drawn: each set on all samples, each beside its controls, and how many controls accuracy change how far."""
    effects = studied.effects()
    effects["set"] = [f"{c}, size {s}" for c, s in zip(effects["criterion"], effects["size"], strict=True)]
    effects["panel"] = [with_star(g, m) for g, m in zip(effects["group"], effects["minority"], strict=True)]
    about = [*KEYS, "number", "set", "panel"]
    whole = effects[[*about, "accuracy_change", "low", "high"]].assign(kind=WHOLE)
    beside = effects.loc[effects["n_controls"] > 0, [*about, "tested_accuracy_change"]].assign(kind=SELECTED)
    beside = beside.rename(columns={"tested_accuracy_change": "accuracy_change"})
    controls = studied.study.control_changes()
    controls["accuracy_change"] = controls["accuracy_change"].astype(float).round(12)
    counted = controls.groupby(["selected_set", "split", "group", "accuracy_change"], as_index=False).size()
    counted = counted.rename(columns={"size": "count", "group": "number"})
    named = effects[["selected_set", *about]].merge(counted, on=["selected_set", "split", "number"])
    rows = pd.concat([whole, beside, named.drop(columns="selected_set").assign(kind=CONTROL)], ignore_index=True)
    return rows.replace({np.nan: None}) if rows.empty else rows


def _table(subjects: Subjects) -> pd.DataFrame:
    effects = pd.concat([studied.effects() for studied in subjects.studies], ignore_index=True)
    effects = effects.rename(columns={"low": "accuracy_change_low", "high": "accuracy_change_high"})
    columns = [
        "units",
        "n",
        "accuracy_before",
        "accuracy_after",
        "accuracy_change",
        "accuracy_change_low",
        "accuracy_change_high",
        "margin_change",
    ]
    columns += [
        "tested_accuracy_change",
        "control_low",
        "control_median",
        "control_high",
        "n_controls",
        "n_controls_as_large",
    ]
    return effects[[*KEYS, *columns, "norm_ratio"]]
