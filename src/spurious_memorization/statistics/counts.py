"""Counts per group from outcomes. They are exact and can be summed over parts of the samples."""

from __future__ import annotations

import numpy as np
import pandas as pd

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
    y, g, groups = samples.y, samples.g, len(samples.dataset.groups)
    right_before, margin_before = before.predicted[0, where] == y, before.margin[0, where].astype(np.float64)
    frames = []
    for row, edit in enumerate(after.edits):
        right = after.predicted[row, where] == y
        columns = {
            "n": np.ones(len(y)),
            "correct_before": right_before,
            "correct_after": right,
            "became_wrong": right_before & ~right,
            "became_right": ~right_before & right,
            "loss_before": before.loss[0, where],
            "loss_after": after.loss[row, where],
            "margin_before": margin_before,
            "margin_after": after.margin[row, where],
            "margin_change_squares": np.square(after.margin[row, where].astype(np.float64) - margin_before),
        }
        sums = {name: np.bincount(g, weights=values, minlength=groups) for name, values in columns.items()}
        frames.append(pd.DataFrame({"edit": edit, "group": np.arange(groups), **sums}))
    whole = [name for name in COUNTS if not name.startswith(("loss", "margin"))]
    return pd.concat(frames, ignore_index=True).astype(dict.fromkeys(whole, np.int64))
