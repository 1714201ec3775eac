"""Figures by layer: where selected units are in the network, and the ablation map."""

from __future__ import annotations

import re
from typing import Any

import altair as alt
import pandas as pd

from ...networks.units import short_name
from ...statistics.effects import tested_split
from ...studies.ablation_map import stored_map
from ...studies.ranking_settings import RankingSettings
from ...studies.store import FolderStore
from ..inputs import FinishedStudy, ReportInputs
from ..tables.columns import table_of
from ..wording import group_title
from .accuracy import ROWS, specification
from .colors import BLUE, LINE, MUTED, ORANGE, PAPER
from .figure import Figure, in_order, ranked

VERDICTS = ("critical or memorizing", "influential or selective", "selected only")

LONGEST_NAME = 30
"""Letters of a layer's name that are shown."""

N_LARGEST = 30
"""Units with the largest effect on a group that have a point of their own."""


def layers(inputs: ReportInputs) -> Figure | None:
    """The number of units of each selected set in each layer, and the best verdict on the set.

    None if no study lists its units.
    """
    frames = [_rows(study) for study in inputs.studies]
    rows = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    if rows.empty:
        return None
    rows = ranked(rows, "criterion", "size")
    order = _in_order([name for study in inputs.studies for name in layer_names(study)], set(rows["layer"]))
    base = alt.Chart(ROWS).encode(
        y=alt.Y(
            "layer:N",
            title=None,
            scale=alt.Scale(domain=order),
            axis=_layer_names(grid=True),
        ),
        x=alt.X(
            "criterion:N",
            title=None,
            sort=in_order("criterion"),
            axis=alt.Axis(orient="top", labelAngle=-30, labelAlign="left", labelLimit=270, labelOverlap=False),
        ),
        xOffset=alt.XOffset("size:N", sort=in_order("size")),
    )
    color = alt.Color(
        "verdict:N",
        title="verdict on the set",
        scale=alt.Scale(domain=list(VERDICTS), range=[ORANGE, BLUE, MUTED]),
        legend=alt.Legend(orient="bottom", columns=1, symbolOpacity=1),
    )
    shape = alt.Shape(
        "verdict:N",
        title="verdict on the set",
        scale=alt.Scale(domain=list(VERDICTS), range=["diamond", "square", "circle"]),
    )
    points = base.mark_point(filled=True, opacity=1).encode(
        color=color,
        shape=shape,
        size=alt.Size("n_in_layer:Q", scale=alt.Scale(type="linear", domainMin=0, range=[60, 420]), legend=None),
        tooltip=[
            alt.Tooltip("criterion:N", title="selected by"),
            alt.Tooltip("size:N"),
            alt.Tooltip("layer:N"),
            alt.Tooltip("n_in_layer:Q", title="units here"),
            alt.Tooltip("units:N"),
            alt.Tooltip("best:N", title="verdict"),
        ],
    )
    counts = base.mark_text(fontSize=10, fontWeight="bold", color=PAPER).encode(text="n_in_layer:Q")
    chart = alt.layer(points, counts).properties(width=420, height=max(120, 17 * len(order)))
    return Figure(
        name="layers",
        alt="A map with one row per layer, from input to output, and one column per criterion. It shows the number of "
        "selected units in each layer, and the verdict on their set.",
        chart=specification(chart),
        rows=rows,
        table=table_of(
            rows[["run", "study", "edit", "criterion", "size", "layer", "n_in_layer", "units", "best"]],
            "Where the selected units are",
            "Each number counts the units of the set in the layer. Color and shape show the best verdict on the whole "
            "set for any minority group in training.",
        ),
        choosers=("run", "study", "edit", "criterion", "size"),
    )


def ablation(inputs: ReportInputs) -> Figure | None:
    """The effect of zeroing each unit alone on each group's mean margin, by layer; None if no map was measured."""
    frames = []
    for run in inputs.runs:
        store = FolderStore(run.path)
        maps = [store.below(f"ablations/{folder.name}") for folder in sorted((run.path / "ablations").glob("*"))]
        frames += [_map(one).assign(run=run.place) for one in maps if one.has_frame("map")]
    if not frames:
        return None
    rows = pd.concat(frames, ignore_index=True)
    minority = {name for run in inputs.runs for name in run.record.data.minority}
    rows["panel"] = [group_title(group, group in minority) for group in rows["group"]]
    rows = ranked(rows, "panel", "layer")
    base = alt.Chart(ROWS).encode(y=alt.Y("layer:N", title=None, sort=in_order("layer"), axis=_layer_names()))
    place = alt.X("margin_change:Q", title="change of the mean margin")
    summary = base.transform_filter(alt.datum.kind == "layer")
    wide = summary.mark_rule(color=LINE, strokeWidth=2).encode(
        x=alt.X("least:Q", title="change of the mean margin"), x2="most:Q"
    )
    narrow = summary.mark_rule(color=MUTED, strokeWidth=5).encode(x="lower:Q", x2="upper:Q")
    largest = (
        base.transform_filter(alt.datum.kind == "unit")
        .mark_point(filled=True, color=ORANGE, shape="diamond", size=40, opacity=0.85)
        .encode(
            x=place,
            tooltip=[
                alt.Tooltip("unit:N"),
                alt.Tooltip("group:N"),
                alt.Tooltip("margin_change:Q", format="+.3f"),
                alt.Tooltip("accuracy_change:Q", title="accuracy change", format="+.2%"),
            ],
        )
    )
    zero = alt.Chart(ROWS).mark_rule(color=LINE, strokeDash=[3, 3]).encode(x=alt.datum(0))
    chart = alt.layer(zero, wide, narrow, largest).properties(width=300, height=max(100, 15 * rows["layer"].nunique()))
    chart = chart.facet(facet=alt.Facet("panel:N", sort=in_order("panel"), title=None), columns=2)
    table = rows[rows["kind"] == "layer"]
    return Figure(
        name="ablation",
        alt="Range charts, one panel per group and one row per layer, of the change of the group's mean margin when "
        f"one unit is zeroed. Points show the {N_LARGEST} units with the largest effect.",
        chart=specification(chart),
        rows=rows,
        table=table_of(
            table[["run", "map", "group", "layer", "n_in_layer", "least", "lower", "middle", "upper", "most"]],
            "The ablation map: the effect of zeroing each unit alone",
            "Thin lines span all changes of the mean margin in a layer, thick lines the middle 90 % of its units. "
            f"Points are the {N_LARGEST} units with the largest effect on the group.",
        ),
        choosers=("run", "map", "group"),
        panels="panel",
    )


def _layer_names(**options: Any) -> alt.Axis:
    """An axis of layers. Of a long name the end is shown, in which layers differ."""
    shown = f"length(datum.label) > {LONGEST_NAME + 2} ? '…' + slice(datum.label, -{LONGEST_NAME}) : datum.label"
    return alt.Axis(labelExpr=shown, labelLimit=210, labelFontSize=11, **options)


def layer_names(study: FinishedStudy) -> list[str]:
    """Every layer with units, in the network's order, from the study's first ranking; empty if that is not stored."""
    rankings = study.study.record["rankings"]
    if not rankings:
        return []
    scores = FolderStore(study.run.path).scores(RankingSettings.model_validate(rankings[0]).name)
    return [] if scores is None else [short_name(name) for name in scores]


def _rows(study: FinishedStudy) -> pd.DataFrame:
    effects = study.effects()
    split = tested_split(effects)
    tests = effects[(effects["split"] == split) & effects["minority"]]
    about = effects.drop_duplicates("selected_set").set_index("selected_set")
    found = []
    for one in study.study.selected_sets():
        chosen = one.about
        if not isinstance(chosen["units"], str):
            continue
        verdicts = tests.loc[tests["selected_set"] == one.number, "verdict"]
        best = next((v for v in ("memorizing", "critical", "influential", "selective") if v in set(verdicts)), None)
        by_layer: dict[str, list[str]] = {}
        for unit in chosen["units"].split(","):
            by_layer.setdefault(unit.rpartition(":")[0], []).append(unit)
        first = about.loc[one.number]
        found += [
            {
                **study.place,
                "edit": first["edit"],
                "criterion": first["criterion"],
                "size": chosen["size"],
                "layer": layer,
                "n_in_layer": len(units),
                "units": ", ".join(units),
                "best": best or next(iter(verdicts), "not tested"),
                "verdict": VERDICTS[0] if best in ("memorizing", "critical") else VERDICTS[1] if best else VERDICTS[2],
            }
            for layer, units in by_layer.items()
        ]
    return pd.DataFrame(found)


def _in_order(known: list[str], used: set[str]) -> list[str]:
    """All layers in the network's order; then those that no ranking knows, in the order of their numbers."""
    others = sorted(
        used - set(known), key=lambda name: [int(p) if p.isdecimal() else p for p in re.split(r"(\d+)", name)]
    )
    return [*dict.fromkeys(known), *others]


def _map(store: FolderStore) -> pd.DataFrame:
    """The range of effects in each layer, and the units with the largest effects, for each group.

    Arguments:
        store: of one ablation map.
    """
    effects, settings = stored_map(store)
    label = f"{settings.select.unit}s, epoch {settings.epoch}, {settings.split}, {settings.precision}"
    effects["layer"] = effects["tensor"].map(short_name)
    by_layer = effects.groupby(["group", "layer"], sort=False)["margin_change"]
    quantiles = by_layer.quantile([0, 0.05, 0.5, 0.95, 1]).unstack()
    quantiles.columns = ["least", "lower", "middle", "upper", "most"]
    ranges = quantiles.assign(n_in_layer=by_layer.size()).reset_index().assign(kind="layer")
    order = effects["margin_change"].abs().sort_values(ascending=False).index
    largest = effects.loc[order].groupby("group", sort=False).head(N_LARGEST).assign(kind="unit")
    largest["unit"] = [f"{layer}:{index}" for layer, index in zip(largest["layer"], largest["index"], strict=True)]
    units = largest[["group", "layer", "unit", "margin_change", "accuracy_change", "kind"]]
    return pd.concat([ranges, units], ignore_index=True).assign(map=label)
