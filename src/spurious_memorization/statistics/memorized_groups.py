"""Question 0, before any unit: does the network memorize a group?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ..datasets.samples import Dataset
from ..intervals import wilson_interval

Array = NDArray[np.float64]


def difference_of_accuracies(
    correct_first: ArrayLike, n_first: ArrayLike, correct_second: ArrayLike, n_second: ArrayLike
) -> tuple[Array, Array, Array]:
    """Difference of two accuracies on different samples, with its 95 % interval by Newcombe (1998, method 10).

    Arguments:
        correct_first, correct_second: numbers of correct answers.
        n_first, n_second: numbers of samples; all four arrays have the same shape.

    Returns:
        First minus second accuracy, lower and upper bound, each of this shape; nan where there are no samples.
    """
    k1, n1, k2, n2 = (np.asarray(v, float) for v in (correct_first, n_first, correct_second, n_second))
    with np.errstate(invalid="ignore", divide="ignore"):
        p1, p2 = k1 / n1, k2 / n2
    low1, high1 = wilson_interval(k1, n1)
    low2, high2 = wilson_interval(k2, n2)
    below = np.sqrt((p1 - low1) ** 2 + (high2 - p2) ** 2)
    above = np.sqrt((high1 - p1) ** 2 + (p2 - low2) ** 2)
    return p1 - p2, p1 - p2 - below, p1 - p2 + above


def memorized_groups(data: Dataset, counted: pd.DataFrame, groups: Sequence[int] | None = None) -> pd.DataFrame:
    """For each group: its accuracy in training and on unseen samples, and whether it is memorized.

    A group is memorized if its training accuracy is above its accuracy on unseen samples: if the interval of the
    difference is above 0.

    Arguments:
        data: the data set.
        counted: counts before any edit, with the columns split, group, n and correct_before. Each sample counts once.
        groups: which groups; all that have training samples if not given.

    Returns:
        One row per group: group, group_name, minority, n_train, train_accuracy, n_unseen, unseen_accuracy, difference,
        low, high (95 % interval), memorized (None where nothing unseen was measured).
    """
    is_train = counted["split"] == "train"
    sums = [rows.groupby("group")[["n", "correct_before"]].sum() for rows in (counted[is_train], counted[~is_train])]
    chosen = sorted(sums[0].index) if groups is None else list(groups)
    train, unseen = (of.reindex(chosen, fill_value=0) for of in sums)
    value, low, high = difference_of_accuracies(
        train["correct_before"], train["n"], unseen["correct_before"], unseen["n"]
    )
    is_known = (train["n"] > 0).to_numpy() & (unseen["n"] > 0).to_numpy()
    with np.errstate(invalid="ignore", divide="ignore"):
        accuracies = [(of["correct_before"] / of["n"]).to_numpy() for of in (train, unseen)]
    return pd.DataFrame(
        {
            "group": np.array(chosen, np.int64),
            "group_name": pd.Series([data.groups.names[g] for g in chosen], dtype=object),
            "minority": np.array([g in data.minority for g in chosen], bool),
            "n_train": train["n"].to_numpy(np.int64),
            "train_accuracy": accuracies[0],
            "n_unseen": unseen["n"].to_numpy(np.int64),
            "unseen_accuracy": accuracies[1],
            "difference": value,
            "low": low,
            "high": high,
            "memorized": pd.Series(
                [bool(is_above) if known else None for is_above, known in zip(low > 0, is_known, strict=True)],
                dtype=object,
            ),
        }
    )
