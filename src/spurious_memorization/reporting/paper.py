"""Tables of the paper's studies: what there is, and what was reproduced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from rich.markup import escape
from rich.table import Table

from ..paper.folders import WEIGHT_FILES
from ..paper.grids import Grid
from .tables import edit_text, selected_by


def grids_table(grids: Mapping[str, Grid]) -> Table:
    """Every study by name: the data and weights it needs, the epoch it starts from and how many edited networks it
    measures."""
    table = Table(title="The paper's studies", title_justify="left")
    table.add_column("name", no_wrap=True)
    table.add_column("data set")
    table.add_column("starting weights")
    table.add_column("epoch", justify="right")
    table.add_column("edited networks", justify="right")
    for name, grid in grids.items():
        work = "fine-tuning" if grid.fine_tuning else f"{grid.n_edited:,}"
        weights = WEIGHT_FILES[grid.training.model] if grid.starts_pretrained else "random"
        table.add_row(name, grid.dataset, weights, str(grid.epoch + 1), work)
    table.caption = (
        "The network is trained by ERM once for all studies of a data set and network; studied or fine-tuned is that "
        "after so many epochs. Weights are taken from experiments/ under these names, or fetched. An edited network is "
        "measured on one split. --scale small runs any study on generated images."
    )
    table.caption_justify = "left"
    return table


def drops_tables(rows: pd.DataFrame) -> list[Table]:
    """For each split accuracy before, and how far it drops under each edit, in points with its 95 % interval."""
    return [_drops(of_split, str(split)) for split, of_split in rows.groupby("split", sort=False)]


def _drops(rows: pd.DataFrame, split: str) -> Table:
    table = Table(
        title=f"Drop of accuracy in {split}, in points: before minus the mean over repeats after", title_justify="left"
    )
    names = _columns(table, rows)
    before = rows.drop_duplicates("group").set_index("group_name")["before"]
    table.add_row("[dim]accuracy before, %[/dim]", "", "", "", *(f"{100 * before[name]:.2f}" for name in names))
    for _, chosen in rows.groupby(["file", rows["traced_on"].fillna("")], sort=False):
        first = chosen.iloc[0]
        cells = {
            row.group_name: f"{100 * row.drop:+.2f}\n[dim]{100 * row.low:+.1f} to {100 * row.high:+.1f}[/dim]"
            for row in chosen.itertuples()
        }
        table.add_row(*_about(first), str(first["repeats"]), *(cells.get(name, "-") for name in names))
    table.caption = "* minority group. Beneath each drop its paired 95 % interval: sampling error alone."
    table.caption_justify = "left"
    return table


def mixed_table(mixed: pd.DataFrame) -> Table:
    """What comes of subtracting accuracy after on test from accuracy before on train."""
    table = Table(
        title="WRONG: accuracy before on train minus accuracy after on test, in points, and what it is made of",
        title_justify="left",
    )
    for name in ("selected by", "edit"):
        table.add_column(name)
    table.add_column("size", justify="right")
    table.add_column("group")
    for name in ("across splits", "of it there before any edit", "drop in train", "drop in test"):
        table.add_column(name, justify="right")
    for row in mixed.to_dict(orient="records"):
        within = (row[f"{split}_before"] - row[f"{split}_after"] for split in ("train", "test"))
        values = (f"{100 * value:+.2f}" for value in (row["drop"], row["gap"], *within))
        table.add_row(*_about(row), _marked(row), *values)
    table.caption = (
        "* minority group. The difference across splits is the gap between the splits plus the drop in test: a group "
        "that generalizes badly seems to be hurt by an edit that does nothing. Only a split beside itself tells what "
        "an edit does."
    )
    table.caption_justify = "left"
    return table


def _columns(table: Table, rows: pd.DataFrame) -> list[str]:
    for name in ("selected by", "edit"):
        table.add_column(name)
    table.add_column("size", justify="right")
    table.add_column("repeats", justify="right")
    groups = rows.drop_duplicates("group").sort_values("group")
    for row in groups.to_dict(orient="records"):
        table.add_column(_marked(row), justify="right")
    return list(groups["group_name"])


def _about(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return escape(selected_by(row)), escape(edit_text(row)), str(row["size"])


def _marked(row: Mapping[str, Any]) -> str:
    return escape(f"{row['group_name']} *" if row["minority"] else str(row["group_name"]))
