"""Tables of the groups by several attributes: those of one attribute, and intersections of two or three."""

from __future__ import annotations

import pandas as pd

from ...statistics.intersections import LEVEL
from .number_formats import format_value
from .table import Column, Row, Table

LIFT_NOTE = "lift: the training count divided by the count expected if label and attribute values were independent"


def intersection_tables(groups: pd.DataFrame, split: str, show: int) -> list[Table]:
    """The first ranked groups of one attribute, and the first ranked intersections.

    Arguments:
        groups: as `intersections` returns them.
        split: whose samples were counted.
        show: rows of a table, at most.
    """
    ranked = groups[groups["ranked"]]
    parts = {
        "Groups by one attribute": ranked[ranked["n_combined"] == 1],
        "Groups by two or three attributes (intersections)": ranked[ranked["n_combined"] > 1],
    }
    return [_table(title, rows, split, show) for title, rows in parts.items() if len(rows)]


def intersection_notes(groups: pd.DataFrame, split: str, min_group_size: int) -> list[str]:
    """Sentences about the lift, the groups that are not ranked, and the intervals."""
    n_ranked, n_small = int(groups["ranked"].sum()), int((~groups["ranked"]).sum())
    notes = [LIFT_NOTE]
    if n_small:
        empty = int((groups["n"] == 0).sum())
        without = f"without any sample there: {empty}; " if empty else ""
        notes.append(
            f"{n_small:,} of {len(groups):,} groups have fewer than {min_group_size} samples in {split} and are not "
            f"ranked ({without}--json and --format csv list them)"
        )
    if "correct" in groups and n_ranked:
        each = 1 - (1 - LEVEL) / n_ranked
        notes.append(
            f"intervals: Wilson's, of level {100 * each:.6g} %, so that those of all {n_ranked:,} ranked groups hold "
            f"together with {100 * LEVEL:.0f} % (Bonferroni)"
        )
    return notes


def _table(title: str, rows: pd.DataFrame, split: str, show: int) -> Table:
    is_measured = "correct" in rows
    order = "lowest accuracy" if is_measured else "lowest lift"
    first = f"the {show} of {len(rows):,} with the {order}" if len(rows) > show else f"{order} first"
    columns = [Column(name="group", heading="group")]
    if is_measured:
        columns.append(Column(name="accuracy", heading=f"accuracy in {split}", kind="percent", detail=_interval))
    columns += [
        Column(name="n", heading=f"n in {split}", kind="count"),
        Column(name="lift", heading="lift", kind="decimal"),
    ]
    if split != "train":
        columns.insert(-1, Column(name="n_train", heading="n in train", kind="count"))
    return Table(title=f"{title}: {first}", rows=rows.head(show), columns=tuple(columns))


def _interval(row: Row) -> str:
    return f"({format_value(row['low'], 'percent_number')}-{format_value(row['high'], 'percent_number')})"
