"""Counts per group from outcomes. They are exact and can be summed over parts of the samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..datasets.samples import Samples
from ..engine.outcomes import Block
from ..errors import UserError

COUNTS = (
    "n",
    "correct_before",
    "correct_after",
    "became_wrong",
    "became_right",
    "loss_before",
    "loss_after",
    "margin_before",
    "margin_after",
    "margin_change_squares",
)


WHOLE_COUNTS = ("n", "correct_before", "correct_after", "became_wrong", "became_right")


def count(before: Block, after: Block, samples: Samples) -> pd.DataFrame:
    """Exact counts and sums for each edit and group, on the samples given.

    Arguments:
        before: outcomes of the network before any edit: one row.
        after: outcomes of edited networks on the same samples.
        samples: the samples to count; outcomes must exist for all of them.

    Returns:
        One row per edit and group: edit (its position), group, and the columns of `COUNTS`. Losses, margins and
        squared margin changes are sums.

    Raises:
        UserError: a sample is not among the outcomes' samples.
    """
    if not np.isin(samples.index, before.index).all():
        raise UserError(f"some of the samples ({samples.split}) have no outcomes: give those that were evaluated")
    where = np.searchsorted(before.index, samples.index)
    y, g, groups, edits = samples.y, samples.g, len(samples.dataset.groups), len(after.edits)
    right_before, right = before.predicted[:, where] == y, after.predicted[:, where] == y
    margin_before, margin_after = (of.margin[:, where].astype(np.float64) for of in (before, after))
    columns = {
        "n": np.ones_like(right_before),
        "correct_before": right_before,
        "correct_after": right,
        "became_wrong": right_before & ~right,
        "became_right": ~right_before & right,
        "loss_before": before.loss[:, where],
        "loss_after": after.loss[:, where],
        "margin_before": margin_before,
        "margin_after": margin_after,
        "margin_change_squares": np.square(margin_after - margin_before),
    }
    cell = np.arange(edits)[:, None] * groups + g

    def sums(values: NDArray[Any]) -> NDArray[np.float64]:
        """Sum of each edit and group, [edits * groups]. A single row is the same for every edit."""
        if len(values) == 1:
            return np.tile(np.bincount(g, weights=values[0], minlength=groups), edits)
        return np.asarray(np.bincount(cell.ravel(), weights=values.ravel(), minlength=edits * groups), np.float64)

    frame = pd.DataFrame(
        {
            "edit": np.repeat(after.edits, groups),
            "group": np.tile(np.arange(groups), edits),
            **{name: sums(values) for name, values in columns.items()},
        }
    )
    return frame.astype(dict.fromkeys(WHOLE_COUNTS, np.int64))
