"""How much the choice of an epoch costs: rules that choose by val, held against the best epoch on test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import pandas as pd

from ..runs.epochs import EQUAL, best_epoch, class_accuracies

SelectionRule = Literal[
    "worst_group_accuracy", "worst_group_bound", "worst_class_accuracy", "average", "held_out_memorization"
]

RULES: tuple[SelectionRule, ...] = (
    "worst_group_accuracy",
    "worst_group_bound",
    "worst_class_accuracy",
    "average",
    "held_out_memorization",
)
"""The rules that are compared. The first two need the groups of the val samples, the others don't."""

ALL_METHODS = "all methods"


def chosen_epochs(measured: pd.DataFrame, among: list[int], label_of: Callable[[int], int]) -> dict[SelectionRule, int]:
    """The epoch that each of `RULES` chooses: `least_memorizing_epoch` for "held_out_memorization", otherwise
    `best_epoch`.

    Arguments:
        measured: history of a run, whose rows of val are those of the samples that select.
        among: epochs to choose from.
        label_of: gives the class of a group.
    """
    return {
        rule: least_memorizing_epoch(measured, among, label_of)
        if rule == "held_out_memorization"
        else best_epoch(measured, rule, among, label_of).epoch
        for rule in RULES
    }


def least_memorizing_epoch(measured: pd.DataFrame, among: list[int], label_of: Callable[[int], int]) -> int:
    """The epoch that memorizes least among those that are good on average. No groups are needed.

    Good epochs are those whose average accuracy on val is within one standard error of the best (the one-standard-error
    rule of Breiman et al. 1984). Among them, the class that is worst on val decides: the epoch with the smallest
    training accuracy minus val accuracy of this class is taken, the earliest of equals. Of classes that are equally bad
    on val the one with the larger difference counts. Combining the two is our own choice; no paper is known to us that
    tested it.

    Arguments:
        measured: history of a run, whose rows of val are those of the samples that select.
        among: epochs to choose from.
        label_of: gives the class of a group.
    """
    rows = measured[measured["epoch"].isin(among) & (measured["n"] > 0)]
    on_val, on_train = (rows[rows["split"] == split] for split in ("val", "train"))
    sums = on_val.groupby("epoch")[["n", "correct"]].sum()
    average = sums["correct"] / sums["n"]
    best = average.idxmax()
    error = np.sqrt(average[best] * (1 - average[best]) / sums["n"][best])
    good = average.index[average >= average[best] - error - EQUAL]
    val, train = (class_accuracies(part, label_of).reindex(good) for part in (on_val, on_train))
    is_worst = val.le(val.min(axis=1) + EQUAL, axis=0)
    gap = (train - val).where(is_worst).max(axis=1).fillna(np.inf)
    return int(gap.index[gap <= gap.min() + EQUAL].min())


def regrets(chosen: Mapping[SelectionRule, int], measured: pd.DataFrame, among: list[int]) -> pd.DataFrame:
    """What each rule loses on test: the regret of choosing by val, as with the oracle selection of Gulrajani and
    Lopez-Paz (2021).

    Arguments:
        chosen: {rule: epoch}.
        measured: history of a run.
        among: the epochs that could have been chosen.

    Returns:
        One row per rule: rule, epoch, worst_group_accuracy (on test, in this epoch), oracle_epoch (the earliest with
        the best worst-group accuracy on test), oracle (its worst-group accuracy), regret (oracle less chosen, at least
        0).
    """
    rows = measured[(measured["split"] == "test") & measured["epoch"].isin(among) & (measured["n"] > 0)]
    worst = (rows["correct"] / rows["n"]).groupby(rows["epoch"]).min()
    oracle = int(worst.idxmax())
    return pd.DataFrame(
        [
            {
                "rule": rule,
                "epoch": epoch,
                "worst_group_accuracy": worst[epoch],
                "oracle_epoch": oracle,
                "oracle": worst[oracle],
                "regret": worst[oracle] - worst[epoch],
            }
            for rule, epoch in chosen.items()
        ]
    )


def mean_regrets(selections: pd.DataFrame) -> pd.DataFrame:
    """Means and standard deviations (of the sample) of `regrets` over the seeds of each method, and over all runs.

    Arguments:
        selections: one row per run and rule: method, and the columns of `regrets`.

    Returns:
        One row per method (at last "all methods") and rule: method, rule, n_runs, epochs (of each run, in order), and
        mean and std of worst_group_accuracy, oracle and regret (such as `regret` and `regret_std`).
    """
    several = (
        [selections, selections.assign(method=ALL_METHODS)] if selections["method"].nunique() > 1 else [selections]
    )
    grouped = pd.concat(several).groupby(["method", "rule"], sort=False)
    values = ["worst_group_accuracy", "oracle", "regret"]
    means = grouped[values].mean().join(grouped[values].std().add_suffix("_std"))
    counts = grouped["epoch"].agg(n_runs="count", epochs=lambda epochs: ", ".join(map(str, epochs)))
    return counts.join(means).reset_index()
