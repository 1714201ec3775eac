"""Accuracies from counts: groups, the three averages, the worst group, and the gap from training to test."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

AVERAGES = ("average", "average_train_weighted", "average_group_balanced")
OVERALL = (*AVERAGES, "worst_group_accuracy")
GAP = "gap"
"""Stands in the place of a split: accuracy in training minus accuracy in test, of the same measure."""


def accuracies(counts: pd.DataFrame, train_counts: NDArray[np.int64]) -> pd.DataFrame:
    """Every measure of one network on one split.

    Arguments:
        counts: one row per group: group, n, correct; groups without samples are left out.
        train_counts: training samples of each group, [groups]: the weights of `average_train_weighted`.

    Returns:
        One row per measure: measure (those of `OVERALL`, then "group_accuracy"), group (-1 for all groups together),
        value. Without samples there is no row.
    """
    filled = counts[counts["n"] > 0]
    if filled.empty:
        return pd.DataFrame(columns=["measure", "group", "value"])
    accuracy = (filled["correct"] / filled["n"]).to_numpy(float)
    weights = train_counts[filled["group"]].astype(float)
    overall = (
        filled["correct"].sum() / filled["n"].sum(),
        float(weights @ accuracy / weights.sum()) if weights.any() else np.nan,
        accuracy.mean(),
        accuracy.min(),
    )
    return pd.DataFrame(
        {
            "measure": [*OVERALL, *["group_accuracy"] * len(filled)],
            "group": [*[-1] * len(OVERALL), *filled["group"]],
            "value": [*overall, *accuracy],
        }
    )


def with_gaps(values: pd.DataFrame) -> pd.DataFrame:
    """The values with rows of the split "gap" added: training minus test, where both were measured.

    Arguments:
        values: one row per split and measure (and whatever else tells rows apart), with the column `value`.
    """
    keys = [name for name in values if name not in ("split", "value")]
    train, test = (values[values["split"] == split].drop(columns="split") for split in ("train", "test"))
    both = train.merge(test, on=keys, suffixes=("_train", "_test"))
    gaps = both[keys].assign(split=GAP, value=both["value_train"] - both["value_test"])
    return pd.concat([values, gaps[values.columns]], ignore_index=True)
