"""Memorization scores: how many samples of each group have which score."""

from __future__ import annotations

import altair as alt
import numpy as np
import pandas as pd

from ..inputs import ReportInputs
from ..tables.memorization_tables import memorization_table
from ..tables.number_formats import format_value
from ..wording import group_title
from .accuracy import ROWS, specification
from .colors import BLUE, MUTED
from .figure import Figure, in_order, ranked

EDGES = np.linspace(-1.05, 1.05, 22)
"""Edges of the bins of scores. A score of 0 is in the middle of one."""


def memorization(inputs: ReportInputs) -> Figure | None:
    """The distribution of memorization scores, one panel per group; None if no scores are given."""
    if inputs.memorization is None:
        return None
    scores, groups = inputs.memorization.scores().dropna(subset="score"), inputs.memorization.groups()
    rows = ranked(_bins(scores), "panel")
    base = alt.Chart(ROWS)
    bars = base.mark_bar(color=BLUE).encode(
        x=alt.X(
            "low:Q",
            bin="binned",
            title="memorization score",
            scale=alt.Scale(domain=[EDGES[0], EDGES[-1]]),
            axis=alt.Axis(values=[-1, -0.5, 0, 0.5, 1], format=".1f", grid=False),
        ),
        x2="high:Q",
        y=alt.Y("share:Q", title="share of the group", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%")),
        tooltip=[
            alt.Tooltip("group:N"),
            alt.Tooltip("low:Q", title="score from", format=".2f"),
            alt.Tooltip("high:Q", title="to", format=".2f"),
            alt.Tooltip("n:Q", title="samples"),
            alt.Tooltip("share:Q", format=".1%"),
        ],
    )
    zero = base.mark_rule(color=MUTED).encode(x=alt.datum(0))
    panel = alt.layer(zero, bars).properties(width=260, height=130)
    chart = panel.facet(facet=alt.Facet("panel:N", sort=in_order("panel"), title=None), columns=2)
    table = memorization_table(groups.assign(group=groups["group_name"]), len(inputs.memorization.networks()))
    means = "; ".join(f"{row.group_name} {format_value(row.score, 'decimal')}" for row in groups.itertuples())
    return Figure(
        name="memorization",
        alt=f"Histograms of memorization scores, one panel per group. Mean scores: {means}.",
        chart=specification(chart),
        rows=rows,
        table=table,
        choosers=("group",),
        panels="panel",
    )


def _bins(scores: pd.DataFrame) -> pd.DataFrame:
    """The number and the share of the samples of each group in each bin."""
    found = []
    for (_, name, is_minority), here in scores.groupby(["group", "group_name", "minority"]):
        n, _ = np.histogram(here["score"], EDGES)
        of_group = {"group": name, "panel": group_title(str(name), bool(is_minority))}
        found.append(pd.DataFrame({**of_group, "low": EDGES[:-1], "high": EDGES[1:], "n": n, "share": n / len(here)}))
    rows = pd.concat(found, ignore_index=True)
    return rows[rows["n"] > 0].reset_index(drop=True)
