"""Which groups are memorized, accuracy changes of selected sets compared with their null sets, and verdicts."""

from __future__ import annotations

from dataclasses import replace

import altair as alt
import numpy as np
import pandas as pd

from ..inputs import FinishedStudy, ReportInputs
from ..tables.columns import table_of
from ..tables.findings import FOUND
from ..wording import group_title, null_sets_text
from .accuracy import ROWS, specification
from .colors import BLUE, LINE, MUTED, ORANGE, PAPER
from .figure import Figure, in_order, ranked

SELECTED = "selected set, on its null sets' samples"
WHOLE = "selected set, on all samples, 95 % interval"
NULL_SETS = "null sets (area: how many)"

WIDTH = (-0.5, 0.1)
"""Accuracy changes that the figure shows in any case."""

CHOOSERS = ("run", "study", "split", "edit", "criterion", "size", "group")
KEYS = list(CHOOSERS)


def accuracy_changes(inputs: ReportInputs) -> Figure | None:
    """Accuracy change of each selected set and of its null sets, one panel per group; None without a study."""
    if not inputs.studies:
        return None
    rows = pd.concat([_rows(study) for study in inputs.studies], ignore_index=True)
    rows = ranked(rows.sort_values("number", kind="stable"), "panel").sort_index()
    rows = ranked(rows, "set")
    kinds = [SELECTED, WHOLE, NULL_SETS]
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
    place = alt.X(
        "accuracy_change:Q",
        title="accuracy change",
        axis=alt.Axis(format="+.0%", tickCount=5),
        scale=alt.Scale(domain=_domain(rows)),
    )
    tooltip = [
        alt.Tooltip("set:N"),
        alt.Tooltip("group:N"),
        alt.Tooltip("accuracy_change:Q", title="accuracy change", format="+.2%"),
        alt.Tooltip("low:Q", format="+.2%"),
        alt.Tooltip("high:Q", format="+.2%"),
        alt.Tooltip("count:Q", title="null sets"),
    ]
    of = {kind: base.transform_filter(alt.datum.kind == kind) for kind in kinds}
    zero = alt.Chart(ROWS).mark_rule(color=LINE, strokeWidth=1.5).encode(x=alt.datum(0))
    nulls = (
        of[NULL_SETS]
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
    chart = alt.layer(zero, interval, nulls, whole, chosen, names).properties(width=260, height=alt.Step(42))
    chart = chart.facet(facet=alt.Facet("panel:N", sort=in_order("panel"), title=None), columns=2)
    return Figure(
        name="accuracy_changes",
        alt="Dot plots, one panel per group and one row per selected set. Each row shows the set's accuracy change on "
        "all samples with its interval, its change on the null sets' samples, and the changes of the null sets.",
        chart=specification(chart),
        rows=rows,
        table=table_of(
            _numbers(inputs),
            "Accuracy changes of selected sets and of null sets",
            "A set deserves attention if its diamond lies to the left of its null sets. The interval describes "
            f"sampling error only. The verdict compares the set with its null sets, {_sources(inputs)}, on samples "
            "that did not select the units.",
        ),
        choosers=CHOOSERS,
        panels="panel",
    )


def groups(inputs: ReportInputs) -> Figure | None:
    """A table of accuracies in training and on unseen samples; None without a study that measured both."""
    frames = [study.study.groups().assign(**study.place) for study in inputs.studies]
    rows = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    if rows.empty:
        return None
    rows["group"] = [group_title(g, m) for g, m in zip(rows["group_name"], rows["minority"], strict=True)]
    rows = rows.rename(columns={"low": "difference_low", "high": "difference_high"})
    columns = ["run", "study", "group", "n_train", "train_accuracy", "n_unseen", "unseen_accuracy"]
    columns += ["difference", "difference_low", "difference_high", "memorized"]
    found = [not pd.isna(value) and bool(value) for value in rows["memorized"]]
    table = table_of(
        rows[columns].assign(found=found),
        "Which groups are memorized",
        "Accuracy before any edit, in training and on the unseen samples that the study measured. A group is memorized "
        "if the 95 % interval of the difference is above 0.",
        strong="found",
    )
    headings = {"difference": "difference", "difference_low": "95 % from", "difference_high": "to"}
    shown = tuple(
        replace(column, heading=headings[column.name], kind="points") if column.name in headings else column
        for column in table.columns
    )
    return Figure(
        name="groups",
        alt="A table of each group's accuracy in training and on unseen samples.",
        chart=None,
        rows=rows[["run", "study", "group"]],
        table=replace(table, columns=shown),
        choosers=("run", "study", "group"),
    )


def verdicts(inputs: ReportInputs) -> Figure | None:
    """A table of the answers about each selected set and minority group; None without a study of one."""
    if not inputs.studies:
        return None
    effects = inputs.effects()
    tests = effects[effects["minority"] & ((effects["n_controls"] > 0) | (effects["split"] == "train"))]
    if tests.empty:
        return None
    tests = tests.assign(found=tests["verdict"].isin(FOUND))
    for name in ("influential", "selective", "localized", "memorizing"):
        tests[name] = [None if pd.isna(value) else bool(value) for value in tests[name]]
    columns = ["verdict", "tested_accuracy_change", "p_adjusted", "p_beyond_norm", "influential"]
    columns += ["difference", "p_selective", "selective", "p_selective_margin", "majority_change", "overlap"]
    columns += ["damage", "n_damage_matched", "matched_from", "damage_ratio", "matched_drop"]
    columns += ["p_localized", "localized", "contrast", "matched_contrast", "p_memorizing", "p_contrast"]
    columns += ["memorizing", "drawn_from", "reason", "found"]
    return Figure(
        name="verdicts",
        alt="A table of the answers about each selected set and minority group.",
        chart=None,
        rows=tests[KEYS],
        table=table_of(
            tests[[*KEYS, *columns]],
            "Verdicts on minority groups",
            f"Influential: the group loses more accuracy than with null sets, {_sources(inputs)}, also beyond what "
            "their norm explains. Selective: it loses more than majority samples of the same label and margin. "
            "Localized: it loses more than with damage-matched sets, random sets that disturb the network as much. "
            "Memorizing: the contrast, how much further the margins of its training samples fall than those of its "
            "unseen samples, is larger than with damage-matched sets. Critical: influential, selective and localized. "
            "The level of each test is 5 %.",
            strong="found",
        ),
        choosers=CHOOSERS,
    )


def _domain(rows: pd.DataFrame) -> list[float]:
    """The scale of accuracy changes. It is wide, so that small effects look small."""
    drawn = rows[["accuracy_change", "low", "high"]].astype(float)
    low, high = WIDTH
    return [min(low, float(np.nanmin(drawn))), max(high, float(np.nanmax(drawn)))]


def _sources(inputs: ReportInputs) -> str:
    """What the null sets of all studies are, in words."""
    kinds = [source for study in inputs.studies for source in study.study.effects()["drawn_from"].unique()]
    return " or ".join(dict.fromkeys(map(null_sets_text, kinds)))


def _rows(study: FinishedStudy) -> pd.DataFrame:
    """What is drawn: each set on all samples, each set on its null sets' samples, and counts of equal null sets."""
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
    rows = pd.concat([whole, tested, named.drop(columns="selected_set").assign(kind=NULL_SETS)], ignore_index=True)
    return rows.replace({np.nan: None}) if rows.empty else rows


def _numbers(inputs: ReportInputs) -> pd.DataFrame:
    effects = inputs.effects()
    effects = effects.rename(columns={"low": "accuracy_change_low", "high": "accuracy_change_high"})
    columns = ["units", "n", "accuracy_before", "accuracy_after"]
    columns += ["accuracy_change", "accuracy_change_low", "accuracy_change_high", "margin_change"]
    columns += ["tested_accuracy_change", "control_low", "control_median", "control_high"]
    columns += ["n_controls", "n_controls_as_large"]
    return effects[[*KEYS, *columns, "norm_ratio", "drawn_from"]]
