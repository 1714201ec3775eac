"""Tables of one run: accuracies, rankings, and effects of single units."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from ...criteria.scores import Scores
from ...datasets.groups import Groups
from ...intervals import wilson_interval
from ...networks.units import Units, short_name
from .number_formats import format_value
from .table import Column, Row, Table

SPLITS = ("train", "val", "test")


def star(row: Row) -> str:
    """The mark of a minority group."""
    return "*" if row["minority"] else ""


def accuracy_table(history: pd.DataFrame, epoch: int, groups: Groups, minority: Sequence[str]) -> Table:
    """Accuracy of every group on every split after one epoch, with 95 % Wilson intervals.

    Arguments:
        history: of a run.
        epoch: which epoch.
        groups, minority: of the data set.
    """
    measured = history[(history["epoch"] == epoch) & (history["n"] > 0)]
    splits = [split for split in SPLITS if (measured["split"] == split).any()]
    rows = pd.DataFrame({"group": groups.names, "minority": [name in minority for name in groups.names]})
    for split in splits:
        counts = measured[measured["split"] == split].groupby("group")[["correct", "n"]].sum()
        counts = counts.reindex(range(len(groups)))
        rows[f"{split}_n"] = counts["n"].fillna(0).astype(int)
        rows[f"{split}_accuracy"] = counts["correct"] / counts["n"]
        rows[f"{split}_low"], rows[f"{split}_high"] = wilson_interval(counts["correct"], counts["n"])
    columns = [Column(name="group", heading="group", detail=star)]
    columns += [
        Column(name=f"{split}_accuracy", heading=split, kind="percent", detail=_accuracy_detail(split))
        for split in splits
    ]
    return Table(
        title=f"Accuracy after epoch {epoch}, with 95 % intervals",
        rows=rows,
        columns=tuple(columns),
        caption="* minority group",
    )


def _accuracy_detail(split: str) -> Callable[[Row], str]:
    def detail(row: Row) -> str:
        n, low, high = (row[f"{split}_{name}"] for name in ("n", "low", "high"))
        return f"({100 * low:.0f}-{100 * high:.0f}, n={n})" if n else ""

    return detail


def ranking_table(scores: Scores, units: Units, label: str) -> Table:
    """The first units of a ranking with their scores.

    Arguments:
        scores: of all units.
        units: the ones that are shown.
        label: name of the ranking.
    """
    rows = pd.DataFrame(
        [
            {"rank": rank, "unit": f"{short_name(name)}:{index}", "score": float(scores[name].flatten()[index])}
            for rank, (name, index) in enumerate(units, 1)
        ],
        columns=["rank", "unit", "score"],
    )
    return Table(
        title=f"{scores.kind}s ranked by {label}: the first {len(units)} of {scores.n}",
        rows=rows,
        columns=(
            Column(name="rank", heading="rank", kind="count"),
            Column(name="unit", heading=scores.kind),
            Column(name="score", heading="score", kind="score"),
        ),
    )


def ablation_table(effects: pd.DataFrame, units: Units, label: str) -> Table:
    """The first units of an ablation map: the effect of zeroing each unit alone, on every group.

    Arguments:
        effects: one row per unit and group, with `accuracy_change` and `margin_change`.
        units: the ones that are shown.
        label: name of the ranking.
    """
    n = len(effects.drop_duplicates(["tensor", "index"]))
    names = list(dict.fromkeys(effects["group"]))
    measured = effects.set_index(["tensor", "index", "group"])[["accuracy_change", "margin_change"]]
    changes = measured.to_dict(orient="index")
    rows = pd.DataFrame(
        [
            {
                "rank": rank,
                "unit": f"{short_name(tensor)}:{index}",
                **{f"{name}: {key}": value for name in names for key, value in changes[tensor, index, name].items()},
            }
            for rank, (tensor, index) in enumerate(units, 1)
        ]
    )
    return Table(
        title=f"{units.kind}s ranked by {label}: the first {len(units)} of {n} measured",
        rows=rows,
        columns=(
            Column(name="rank", heading="rank", kind="count"),
            Column(name="unit", heading=units.kind),
            *(
                Column(name=f"{name}: accuracy_change", heading=name, kind="points", detail=_margin_detail(name))
                for name in names
            ),
        ),
        caption="Accuracy change in points when the unit is zeroed alone; in brackets the change of the mean margin.",
    )


def _margin_detail(group: str) -> Callable[[Row], str]:
    return lambda row: f"({format_value(row[f'{group}: margin_change'], 'signed')})"
