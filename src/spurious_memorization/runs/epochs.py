"""Which epoch of a run is meant. This module imports no torch and no pandas: command-line settings use it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..errors import UserError

if TYPE_CHECKING:
    import pandas as pd

BestRule = Literal[
    "worst_group_accuracy", "worst_group_bound", "worst_class_accuracy", "average", "average_group_balanced", "loss"
]
"""Rules that choose the best epoch by what was measured on the val split."""


EQUAL = 1e-12
"""Values closer than this are equal: averages differ by rounding."""


@dataclass(frozen=True, kw_only=True)
class BestEpoch:
    """The epoch that a rule chooses.

    Arguments:
        rule: the rule.
        value: its best value: an accuracy or its bound, or for "loss" the mean loss.
        tied: every epoch with this value, in order.
    """

    rule: BestRule
    value: float
    tied: tuple[int, ...]

    @property
    def epoch(self) -> int:
        """The epoch that is chosen: the earliest one with the best value."""
        return self.tied[0]

    @property
    def tie(self) -> str | None:
        """A sentence about the epochs that are equally good. None if there is only one."""
        if len(self.tied) == 1:
            return None
        value = f"{self.value:.4f}" if self.rule == "loss" else f"{self.value:.1%}"
        listed = ", ".join(map(str, self.tied))
        return f"epochs {listed} tie at {value} by {self.rule.replace('_', ' ')} on val: the earliest is taken"


def best_epoch(
    history: pd.DataFrame, rule: BestRule, among: list[int], label_of: Callable[[int], int] | None = None
) -> BestEpoch:
    """The epoch with the best validation value. The earliest one is taken if several are equal.

    Arguments:
        history: as `Run.history` returns it.
        rule: "worst_group_accuracy", "average" or "average_group_balanced" take the highest accuracy, "loss" takes the
            lowest mean loss. "worst_group_bound" takes the highest of the groups' least lower bounds (of Wilson's 95 %
            interval, 1927): a small group is trusted less. "worst_class_accuracy" takes the highest least accuracy of
            a class, which needs no groups (Yang et al. 2023, Change is Hard).
        among: epochs to choose from.
        label_of: gives the class of a group, as `Groups.label_of` does; needed for "worst_class_accuracy".

    Raises:
        UserError: nothing was measured on the val split.
    """
    rows = history[(history["split"] == "val") & history["epoch"].isin(among) & (history["n"] > 0)]
    if rows.empty:
        raise UserError("no epoch was measured on the val split: choose an epoch by number, or last")
    accuracy = (rows["correct"] / rows["n"]).groupby(rows["epoch"])
    sums = rows.groupby("epoch")[["n", "correct", "loss"]].sum()
    match rule:
        case "worst_group_accuracy":
            values = accuracy.min()
        case "worst_group_bound":
            from ..intervals import wilson_interval

            lower, _ = wilson_interval(rows["correct"], rows["n"])
            values = rows.assign(lower=lower).groupby("epoch")["lower"].min()
        case "worst_class_accuracy":
            values = class_accuracies(rows, label_of).min(axis=1)
        case "average_group_balanced":
            values = accuracy.mean()
        case "average":
            values = sums["correct"] / sums["n"]
        case "loss":
            values = -sums["loss"] / sums["n"]
    best = float(values.max())
    tied = sorted(int(epoch) for epoch in values.index[values >= best - EQUAL])
    return BestEpoch(rule=rule, value=abs(best), tied=tuple(tied))


def class_accuracies(rows: pd.DataFrame, label_of: Callable[[int], int] | None) -> pd.DataFrame:
    """Accuracy of each class in each epoch: one row per epoch, one column per class with samples.

    Arguments:
        rows: of a history, of one split.
        label_of: gives the class of a group.
    """
    assert label_of is not None, "classes are known from the groups only"
    sums = rows.groupby(["epoch", rows["group"].map(label_of).rename("label")])[["n", "correct"]].sum()
    return (sums["correct"] / sums["n"]).unstack("label")


def run_and_epoch(start: str) -> tuple[Path, str]:
    """Split RUN or RUN@EPOCH, as `--from` takes it, into the run's folder and the epoch. The epoch of RUN is "last"."""
    match = re.fullmatch(r"(.+)@(\d+|best|last)", start)
    return (Path(match[1]), match[2]) if match else (Path(start), "last")
