"""Tables of the paper's studies: the list of studies, and reproduced numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pandas as pd

from ...paper.folders import WEIGHT_FILES
from ...paper.grids import Grid
from ..wording import with_names
from .number_formats import format_value, interval
from .run_tables import star
from .table import Column, Row, Table


def grids_table(grids: Mapping[str, Grid]) -> Table:
    """Every study by name: its data and weights, the epoch it starts from, and its number of edited networks."""
    lines = [
        {
            "name": name,
            "dataset": grid.dataset,
            "weights": WEIGHT_FILES[grid.training.model] if grid.starts_pretrained else "random",
            "epoch": grid.epoch + 1,
            "work": "fine-tuning" if grid.fine_tuning else format_value(grid.n_edited, "count"),
        }
        for name, grid in grids.items()
    ]
    return Table(
        title="The paper's studies",
        rows=pd.DataFrame(lines),
        columns=(
            Column(name="name", heading="name"),
            Column(name="dataset", heading="data set"),
            Column(name="weights", heading="starting weights"),
            Column(name="epoch", heading="epoch", kind="count"),
            Column(name="work", heading="edited networks"),
        ),
        caption=(
            "All studies of a data set and network share one ERM training. A study edits or fine-tunes the network "
            "after the given number of epochs. Weights are taken from experiments/ under these names, or downloaded. "
            "Each edited network is measured on one split. --scale small runs any study on generated images."
        ),
    )


def drops_tables(rows: pd.DataFrame) -> list[Table]:
    """For each split, the drop of accuracy of every group under each edit, in points with its 95 % interval."""
    return [_drops_table(of_split, str(split)) for split, of_split in rows.groupby("split", sort=False)]


def _drops_table(rows: pd.DataFrame, split: str) -> Table:
    groups = rows.drop_duplicates("group").sort_values("group")
    names = list(groups["group_name"])
    lines = []
    for _, of_set in rows.groupby(["file", rows["traced_on"].fillna("")], sort=False):
        first = with_names(of_set.head(1)).iloc[0]
        by_group = of_set.set_index("group_name")[["drop", "low", "high"]].to_dict(orient="index")
        lines.append(
            {
                **{name: first[name] for name in ("selected_by", "edit", "size", "repeats")},
                **{
                    f"{name}: {key}": by_group.get(name, {}).get(key)
                    for name in names
                    for key in ("drop", "low", "high")
                },
            }
        )
    before = rows.drop_duplicates("group").set_index("group_name")["before"]
    about = ", ".join(f"{name} {format_value(before[name], 'percent')}" for name in names)
    return Table(
        title=f"Drop of accuracy in {split}, in points: before minus the mean over repeats after",
        rows=pd.DataFrame(lines),
        columns=(
            Column(name="selected_by", heading="selected by"),
            Column(name="edit", heading="edit"),
            Column(name="size", heading="size"),
            Column(name="repeats", heading="repeats", kind="count"),
            *(
                Column(
                    name=f"{row['group_name']}: drop",
                    heading=f"{row['group_name']} {star(row)}".rstrip(),
                    kind="points_2",
                    detail=_drop_interval(str(row["group_name"])),
                    is_detail_below=True,
                )
                for row in groups.to_dict(orient="records")
            ),
        ),
        caption=(
            f"* minority group. Accuracy before: {about}. Below each drop is its paired 95 % interval, which describes "
            "sampling error only."
        ),
    )


def _drop_interval(name: str) -> Callable[[Row], str]:
    return lambda row: interval(row[f"{name}: low"], row[f"{name}: high"], "points")


def mixed_table(mixed: pd.DataFrame) -> Table:
    """What results from subtracting accuracy after on test from accuracy before on train."""
    rows = with_names(mixed)
    for split in ("train", "test"):
        rows[f"{split}_drop"] = rows[f"{split}_before"] - rows[f"{split}_after"]
    return Table(
        title="WRONG: accuracy before on train minus accuracy after on test, in points, and its parts",
        rows=rows,
        columns=(
            Column(name="selected_by", heading="selected by"),
            Column(name="edit", heading="edit"),
            Column(name="size", heading="size"),
            Column(name="group_name", heading="group", detail=star),
            Column(name="drop", heading="across splits", kind="points_2"),
            Column(name="gap", heading="part that exists before any edit", kind="points_2"),
            Column(name="train_drop", heading="drop in train", kind="points_2"),
            Column(name="test_drop", heading="drop in test", kind="points_2"),
        ),
        caption=(
            "* minority group. The difference across splits is the gap between the splits plus the drop in test. "
            "A group that generalizes badly therefore seems to be hurt by an edit that does nothing. "
            "Only a comparison within one split shows the effect of an edit."
        ),
    )
