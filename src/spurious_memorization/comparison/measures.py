"""Accuracies from counts: groups, classes, averages, and the gap from training to test, with intervals over samples."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..datasets.groups import Groups
from ..intervals import wilson_interval

AVERAGES = ("average", "average_train_weighted", "average_group_balanced")
OVERALL = (*AVERAGES, "worst_group_accuracy")
OF_CLASSES = ("balanced_accuracy", "worst_class_accuracy")
GAP = "gap"
"""Stands in the place of a split: accuracy in training minus accuracy in test, of the same measure."""

LEVEL = 0.95
DRAWS = 2000
"""Draws of the bootstrap."""

Floats = NDArray[np.float64]

_SEED = 0xB007


def accuracies(counts: pd.DataFrame, groups: Groups, train_counts: NDArray[np.int64]) -> pd.DataFrame:
    """Every accuracy of one network on one split, with its interval over samples.

    balanced_accuracy is the mean recall over classes (Brodersen et al. 2010), worst_class_accuracy the least recall.
    The interval of a group and of `average` is Wilson's. That of the other measures, which are made of several groups,
    is a stratified bootstrap (Efron and Tibshirani 1993): see `bootstrap_interval`.

    Arguments:
        counts: one row per group: group, n, correct; groups without samples are left out.
        groups: of the data.
        train_counts: training samples of each group, [groups]: the weights of `average_train_weighted`.

    Returns:
        One row per measure: measure (those of `OVERALL` and `OF_CLASSES`, then "group_accuracy"), group (-1 for all
        groups together), value, low, high. Without samples there is no row.
    """
    filled = counts[counts["n"] > 0]
    if filled.empty:
        return pd.DataFrame(columns=["measure", "group", "value", "low", "high"])
    group, n, correct = (filled[name].to_numpy(np.int64) for name in ("group", "n", "correct"))
    label = np.array([groups.label_of(g) for g in group])
    weights = train_counts[group].astype(float)
    of_groups = np.stack([correct / n, *wilson_interval(correct, n, LEVEL)])
    overall = np.stack(
        [overall_accuracies(correct, n, label, weights), *bootstrap_interval(correct, n, label, weights)]
    )
    overall[1:, 0] = wilson_interval(correct.sum(), n.sum(), LEVEL)
    value, low, high = np.concatenate([overall, of_groups], axis=1)
    names = (*OVERALL, *OF_CLASSES)
    return pd.DataFrame(
        {
            "measure": [*names, *["group_accuracy"] * len(filled)],
            "group": [*[-1] * len(names), *group],
            "value": value,
            "low": low,
            "high": high,
        }
    )


def overall_accuracies(
    correct: NDArray[np.int64], n: NDArray[np.int64], label: NDArray[np.int64], weights: Floats
) -> Floats:
    """The measures of `OVERALL` and `OF_CLASSES`, [..., measures].

    Arguments:
        correct: correct answers in each group, [..., groups].
        n: samples of each group, [groups], all over 0.
        label: class of each group, [groups].
        weights: training samples of each group, [groups]; if all are 0, `average_train_weighted` is nan.
    """
    accuracy = correct / n
    of_class = (label[:, None] == np.unique(label)).astype(float)  # [groups, classes]
    recall = correct @ of_class / (n @ of_class)
    weighted = accuracy @ (weights / weights.sum()) if weights.any() else np.full(accuracy.shape[:-1], np.nan)
    return np.stack(
        [
            correct.sum(-1) / n.sum(),
            weighted,
            accuracy.mean(-1),
            accuracy.min(-1),
            recall.mean(-1),
            recall.min(-1),
        ],
        axis=-1,
    )


def bootstrap_interval(
    correct: NDArray[np.int64], n: NDArray[np.int64], label: NDArray[np.int64], weights: Floats
) -> tuple[Floats, Floats]:
    """Percentile intervals of `overall_accuracies` by a bootstrap within groups (Efron and Tibshirani 1993).

    Drawing the samples of a group with replacement gives a binomial number of correct answers, so these numbers are
    drawn. A group that is all right or all wrong doesn't vary, and the least of several numbers tends to be lower in a
    draw than in the sample: intervals of a minimum lean low.

    Returns:
        Lower and upper bounds, each [measures].
    """
    rng = np.random.default_rng(_SEED)
    drawn = overall_accuracies(rng.binomial(n, correct / n, (DRAWS, len(n))), n, label, weights)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return low, high


def with_gaps(values: pd.DataFrame) -> pd.DataFrame:
    """The values with rows of the split "gap" added: training minus test, where both were measured.

    Arguments:
        values: one row per split and measure (and whatever else tells rows apart), with the columns `value`, `low` and
            `high`. A gap has no interval over samples.
    """
    keys = [name for name in values if name not in ("split", "value", "low", "high")]
    train, test = (values.loc[values["split"] == split, [*keys, "value"]] for split in ("train", "test"))
    both = train.merge(test, on=keys, suffixes=("_train", "_test"))
    gaps = both[keys].assign(split=GAP, value=both["value_train"] - both["value_test"], low=np.nan, high=np.nan)
    return pd.concat([values, gaps[values.columns]], ignore_index=True)
