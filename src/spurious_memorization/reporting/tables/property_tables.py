"""Tables of the properties of samples: which go with the label, and how right a network is along them."""

from __future__ import annotations

import pandas as pd

from .number_formats import interval
from .table import Column, Row, Table

SHOWN = 40
"""Properties in a table. Images have fewer; texts may have a thousand words."""


def associations_table(associations: pd.DataFrame, permutations: int) -> Table:
    """Which properties go with the label.

    Arguments:
        associations: as `property_associations` returns them.
        permutations: of the labels.
    """
    rows = associations.assign(
        name=associations["property"].str.replace("_", " "),
        shown=associations["difference"].where(associations["goes_with_label"]),
    )
    more = len(rows) > SHOWN
    return Table(
        title="Properties and the label, on the training split",
        rows=rows.head(SHOWN),
        columns=(
            Column(name="name", heading="property", strong="goes_with_label", strong_sign="*"),
            Column(name="nmi", heading="mutual information", kind="decimal"),
            Column(name="p", heading="p", kind="p"),
            Column(name="p_adjusted", heading="adjusted p", kind="p"),
            Column(name="verdict", heading="verdict"),
            Column(name="shown", heading="difference of training samples", is_long=True),
        ),
        caption=(
            f"mutual information: normalized, from 0 to 1. p: from {permutations:,} permutations of the labels; "
            "adjusted for the number of properties by the maximum statistic. *: goes with the label, at level 0.05. "
            "Numbers are cut into low, mid and high."
            + (f" The first {SHOWN} of {len(rows)} properties; --json and --format csv give all." if more else "")
        ),
    )


def worst_values_table(accuracies: pd.DataFrame, split: str) -> Table:
    """For each property, the value and class where a network is worst; the worst of all comes first.

    Properties with one value are left out.

    Arguments:
        accuracies: as `property_accuracies` returns them.
        split: of the samples.
    """
    varies = accuracies.groupby("property")["value"].transform("nunique") > 1
    rows = accuracies[accuracies["worst"] & varies].sort_values("high", kind="stable", ignore_index=True)
    rows = rows.assign(name=rows["property"].str.replace("_", " "))
    return Table(
        title=f"Where the network is worst along each property, on {split}",
        rows=rows,
        columns=(
            Column(name="name", heading="property"),
            Column(name="value", heading="value", detail=_range),
            Column(name="label", heading="class"),
            Column(name="n", heading="n", kind="count"),
            Column(name="accuracy", heading="accuracy (95 % interval)", kind="percent", detail=_interval),
            Column(name="rest_accuracy", heading="rest of the class", kind="percent"),
        ),
        caption=(
            "The value and class whose interval (Wilson) ends lowest. It is the worst of several, so it looks a little "
            "worse than it is. --json and --format csv give all values."
        ),
    )


def _range(row: Row) -> str:
    return f"({row['range']})" if row["range"] else ""


def _interval(row: Row) -> str:
    return interval(row["low"], row["high"], "percent")
