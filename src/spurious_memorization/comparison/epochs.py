"""The epochs that validation rules choose for a run, and how its network answers there."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..data.samples import Dataset, Samples
from ..errors import UserError
from ..run import BestRule, Run, best_epoch

CHOSEN_BY: tuple[BestRule, ...] = ("worst_group_accuracy", "average")
"""Both rules are always shown: the first needs the groups of the validation samples, the second doesn't."""


def selecting_half(data: Dataset) -> Samples:
    """The half of val on which epochs are chosen; no method fits anything on it.

    Raises:
        UserError: the data have no val split.
    """
    if "val" not in data.splits:
        raise UserError(f"the data {data.name} have no val split, on which epochs are chosen: add one to their table")
    return data.val.of_half(0, 0)


def counts_where_chosen(run: Run, selecting: Samples) -> pd.DataFrame:
    """Correct answers of a run's network in the epochs that the rules choose on the selecting half of val.

    Candidates are the epochs with a checkpoint, epoch 0 among them; of equals the earliest is chosen.

    Returns:
        One row a rule, split and group: chosen_by, epoch, split, group, n, correct. Those of val are of the half.

    Raises:
        UserError: no epoch is finished, or predictions on val are missing.
    """
    history = run.history()
    epochs = sorted(set(run.epochs()) & set(history["epoch"]))
    if not epochs or (epochs == [0] and run.record.settings.get("epochs")):
        raise UserError(f"{run.path} has no finished epoch: finish its training with --resume, or leave it out")
    halves = pd.concat([_on_half(run, epoch, selecting) for epoch in epochs], ignore_index=True)
    measured = pd.concat([history[history["split"] == "train"], halves, history[history["split"] == "test"]])
    frames = []
    for rule in CHOSEN_BY:
        epoch = best_epoch(halves, rule, epochs)
        frames.append(measured[measured["epoch"] == epoch].assign(chosen_by=rule))
    return pd.concat(frames, ignore_index=True)[["chosen_by", "epoch", "split", "group", "n", "correct"]]


def _on_half(run: Run, epoch: int, selecting: Samples) -> pd.DataFrame:
    """Counts of an epoch on the selecting half, as rows of a history without losses."""
    predicted = run.predictions(epoch, "val").loc[selecting.index].to_numpy().argmax(1)
    n_groups = len(selecting.dataset.groups)
    return pd.DataFrame(
        {
            "epoch": epoch,
            "split": "val",
            "group": np.arange(n_groups),
            "n": np.bincount(selecting.g, minlength=n_groups),
            "correct": np.bincount(selecting.g[predicted == selecting.y], minlength=n_groups),
            "loss": 0.0,
        }
    )
