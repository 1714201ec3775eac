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


def counts_where_chosen(run: Run, selecting: Samples) -> pd.DataFrame:
    """Correct answers of a run's network in the epochs that the rules choose on the selecting half of val.

    The candidates are those of `Run.candidate_epochs`: epoch 0 only if training started from a trained network. If
    several are equal, the earliest is chosen.

    Returns:
        One row per rule, split and group: chosen_by, epoch, tie, split, group, n, correct. `tie` is a sentence about
        equal epochs, or None. On val, only the selecting half is counted.

    Raises:
        UserError: no epoch is finished, or predictions on val are missing.
    """
    epochs = run.epochs()
    if not epochs or (epochs == [0] and run.record.settings.get("epochs")):
        raise UserError(f"{run.path} has no finished epoch: finish its training with --resume, or leave it out")
    history, halves = run.history(), history_on(run, selecting)
    measured = pd.concat([history[history["split"] == "train"], halves, history[history["split"] == "test"]])
    frames = []
    for rule in CHOSEN_BY:
        best = best_epoch(halves, rule, run.candidate_epochs())
        frames.append(measured[measured["epoch"] == best.epoch].assign(chosen_by=rule, tie=best.tie))
    return pd.concat(frames, ignore_index=True)[["chosen_by", "epoch", "tie", "split", "group", "n", "correct"]]
