"""Tables of a data set: samples of each group in each split."""

from __future__ import annotations

import pandas as pd

from .table import Column, Table

LIFT_NOTE = (
    "lift: the training count divided by the count expected if label and attribute were independent. "
    "A group with a lift under 0.5 is a minority, over 1 a majority, unless the data set names its own."
)


def group_counts_table(counts: pd.DataFrame, title: str) -> Table:
    """Samples of each group in each split, with each group's lift and role.

    Arguments:
        counts: one row per group: group, one column per split, lift, role.
        title: of the table.
    """
    splits = [name for name in counts if name not in ("group", "lift", "role")]
    return Table(
        title=title,
        rows=counts,
        columns=(
            Column(name="group", heading="group"),
            *(Column(name=split, heading=split, kind="count") for split in splits),
            Column(name="lift", heading="lift", kind="decimal"),
            Column(name="role", heading="role"),
        ),
        caption=LIFT_NOTE,
    )
