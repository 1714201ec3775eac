"""Figures: Vega-Altair charts of what a run stores, written as PNG or SVG."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import altair as alt
import pandas as pd
from PIL import Image

from ..atomic import whole_file
from ..data.groups import Groups
from ..data.samples import Dataset
from ..data.sources import Pictures
from ..errors import UserError
from ..study.statistics import wilson_interval
from .tables import edit_text, selected_by

_WIDTH, _HEIGHT = 260, 220

Figure = alt.LayerChart | alt.FacetChart


def accuracy_over_epochs(history: pd.DataFrame, groups: Groups, minority: Sequence[str]) -> Figure:
    """Accuracy of each group over the epochs, one panel a split, with 95 % Wilson bands."""
    rows = history[history["n"] > 0].copy()
    low, high = wilson_interval(rows["correct"], rows["n"])
    rows["accuracy"], rows["low"], rows["high"] = rows["correct"] / rows["n"], low, high
    names = [f"{name} (minority)" if name in minority else name for name in groups.names]
    rows["name"] = [names[g] for g in rows["group"]]
    rows = rows[["epoch", "split", "name", "accuracy", "low", "high"]]
    base = alt.Chart(rows).encode(
        x=alt.X("epoch:Q", title="epoch", axis=alt.Axis(tickMinStep=1, format="d")),
        color=alt.Color(
            "name:N",
            title="group",
            sort=names,
            scale=alt.Scale(scheme="tableau10"),
            legend=alt.Legend(symbolOpacity=1, labelLimit=260),
        ),
    )
    accuracy = alt.Y("accuracy:Q", title="accuracy", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%"))
    panel = (
        base.mark_area(opacity=0.15).encode(y=alt.Y("low:Q", title="accuracy"), y2="high:Q")
        + base.mark_line(strokeWidth=2).encode(y=accuracy)
        + base.mark_point(size=18, filled=True).encode(y=accuracy)
    ).properties(width=_WIDTH, height=_HEIGHT)
    splits = [split for split in ("train", "val", "test") if (rows["split"] == split).any()]
    chart: Figure = panel.facet(column=alt.Column("split:N", sort=splits, title=None)).properties(
        title="Accuracy of each group over the epochs"
    )
    return chart


def shifts_against_controls(effects: pd.DataFrame, control_shifts: pd.DataFrame, split: str) -> Figure:
    """Shift of every selected set (a diamond with its 95 % interval) beside those of its matched controls (ticks).

    Arguments:
        effects: of a study.
        control_shifts: one row a control, selected set, split and group, as `study.selected_sets.control_shifts` gives.
        split: the one to show.
    """
    shown = effects[effects["split"] == split].copy()
    shown["set"] = [f"{selected_by(row)}, {edit_text(row)}, size {row['size']}" for _, row in shown.iterrows()]
    titles = {
        row.group: f"{row.group_name} (minority)" if row.minority else row.group_name for row in shown.itertuples()
    }
    order = list(dict.fromkeys(shown["set"]))
    panels = [titles[group] for group in sorted(titles)]
    shown["panel"] = shown["group"].map(titles)
    names = shown.drop_duplicates("selected_set").set_index("selected_set")["set"]
    controls = control_shifts[control_shifts["split"] == split].copy()
    controls = controls[controls["group"].isin(titles.keys())]
    controls["panel"], controls["set"] = controls["group"].map(titles), controls["selected_set"].map(names)
    kinds = ["selected set, 95 % interval", "matched control"]
    data = pd.concat(
        [
            shown[["panel", "set", "shift", "low", "high"]].assign(kind=kinds[0]),
            controls[["panel", "set", "shift"]].assign(kind=kinds[1]),
        ],
        ignore_index=True,
    )
    color = alt.Color(
        "kind:N",
        title=None,
        sort=kinds,
        scale=alt.Scale(domain=kinds, range=["#d62728", "#7f7f7f"]),
        legend=alt.Legend(orient="top", symbolOpacity=1, labelLimit=260),
    )
    position = alt.X("shift:Q", title="shift of accuracy", axis=alt.Axis(format="+.0%"))
    row = alt.Y("set:N", sort=order, title=None, axis=alt.Axis(labelLimit=320))
    base = alt.Chart(data).encode(y=row, color=color)
    zero = alt.Chart(data).mark_rule(strokeDash=[3, 3], color="#bbbbbb").encode(x=alt.datum(0))
    ticks = base.transform_filter(alt.datum.kind == kinds[1]).mark_tick(thickness=1.5, opacity=0.6).encode(x=position)
    chosen = base.transform_filter(alt.datum.kind == kinds[0])
    bars = chosen.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title="shift of accuracy"), x2="high:Q")
    points = chosen.mark_point(shape="diamond", size=70, filled=True, opacity=1).encode(x=position)
    panel = (zero + ticks + bars + points).properties(width=_WIDTH, height=alt.Step(18))
    chart: Figure = panel.facet(facet=alt.Facet("panel:N", sort=panels, title=None), columns=2).properties(
        title=f"Shift of accuracy in {split}, selected sets against matched controls"
    )
    return chart


def changed_pictures(
    data: Dataset, index: Sequence[int], before: Sequence[int], after: Sequence[int], title: str, columns: int = 8
) -> Figure:
    """Pictures whose predicted class changes, each with its group and both answers.

    Arguments:
        index: samples in the data set.
        before, after: predicted class of each, without and with the edit.

    Raises:
        UserError: the data are tensors without pictures.
    """
    if not isinstance(data.source, Pictures):
        raise UserError("there are no pictures to show: the data are tensors")
    classes, names = data.groups.classes, data.groups.names
    rows = [
        {
            "column": position % columns,
            "row": position // columns,
            "picture": _inline(data.source.open(int(i))),
            "group": names[data.g[i]],
            "answers": f"{classes[b]} → {classes[a]}",
        }
        for position, (i, b, a) in enumerate(zip(index, before, after, strict=True))
    ]
    n_rows = max(1, -(-len(rows) // columns))
    frame = pd.DataFrame(rows, columns=["column", "row", "picture", "group", "answers"])
    base = alt.Chart(frame).encode(
        x=alt.X("column:Q", axis=None, scale=alt.Scale(domain=[-0.5, columns - 0.5], nice=False)),
        y=alt.Y("row:Q", axis=None, scale=alt.Scale(domain=[n_rows - 0.5, -0.5], nice=False)),
    )
    cell = 112
    chart: Figure = (
        (
            base.mark_image(width=80, height=80).encode(url="picture:N")
            + base.mark_text(dy=-48, fontSize=9).encode(text="group:N")
            + base.mark_text(dy=50, fontSize=10, fontWeight="bold").encode(text="answers:N")
        )
        .properties(width=cell * columns, height=(cell + 18) * n_rows, title=title)
        .configure_view(strokeWidth=0)
    )
    return chart


def save_figure(chart: Figure, file: Path) -> None:
    """Write a chart as PNG or SVG, by the file's ending, whole or not at all.

    Raises:
        UserError: another ending.
    """
    kind = file.suffix.removeprefix(".")
    if kind not in ("png", "svg"):
        raise UserError(f"figure {file.name}: use a name that ends in .png or .svg")
    with whole_file(file) as temporary:
        if kind == "png":
            chart.save(str(temporary), format="png", scale_factor=2)
        else:
            chart.save(str(temporary), format="svg")


def _inline(picture: Image.Image) -> str:
    small = picture.copy()
    small.thumbnail((160, 160))
    buffer = io.BytesIO()
    small.save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
