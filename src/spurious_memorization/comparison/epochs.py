"""The epochs that validation rules choose for a run, and the accuracy of its network in them."""

from __future__ import annotations

import pandas as pd

from ..datasets.samples import Samples
from ..errors import UserError
from ..runs.epochs import BestRule, best_epoch
from ..runs.run import Run
from ..training.epoch_selection import history_on

CHOSEN_BY: tuple[BestRule, ...] = ("worst_group_accuracy", "average")
"""Both rules are always shown: the first needs the groups of the validation samples, the second doesn't."""


def measured_counts(run: Run, selecting: Samples) -> pd.DataFrame:
    """A run's history, in which the split val is replaced by the selecting half of val.

    Raises:
        UserError: no epoch is finished, or predictions on val are missing.
    """
    epochs = run.epochs()
    if not epochs or (epochs == [0] and run.record.settings.get("epochs")):
        raise UserError(f"{run.path} has no finished epoch: finish its training with --resume, or leave it out")
    history, halves = run.history(), history_on(run, selecting)
    return pd.concat([history[history["split"] == "train"], halves, history[history["split"] == "test"]])


def counts_where_chosen(run: Run, measured: pd.DataFrame) -> pd.DataFrame:
    """Correct answers of a run's network in the epochs that the rules of `CHOSEN_BY` choose.

    The candidates are those of `Run.candidate_epochs`: epoch 0 only if training started from a trained network. If
    several are equal, the earliest is chosen.

    Arguments:
        run: the run.
        measured: as `measured_counts` returns it.

    Returns:
        One row per rule, split and group: chosen_by, epoch, tie, split, group, n, correct. `tie` is a sentence about
        equal epochs, or None. On val, only the selecting half is counted.
    """
    frames = []
    for rule in CHOSEN_BY:
        best = best_epoch(measured, rule, run.candidate_epochs())
        frames.append(measured[measured["epoch"] == best.epoch].assign(chosen_by=rule, tie=best.tie))
    return pd.concat(frames, ignore_index=True)[["chosen_by", "epoch", "tie", "split", "group", "n", "correct"]]
