"""Choosing among epochs and settings: by one half of the validation split, the same for every objective.

The other half is for methods that fit on held-out samples (DFR). So no network is chosen by samples that it was fitted
on.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..datasets.samples import Dataset, Samples, checked_dataset, checked_samples
from ..errors import UserError
from ..runs.epochs import BestRule, best_epoch
from ..runs.evaluate import group_sums
from ..runs.run import Run

HALVES_SEED = 0
"""The halves depend only on the data, so that runs with different seeds are chosen by the same samples."""


def val_halves(data: Dataset, seed: int = HALVES_SEED) -> tuple[Samples, Samples]:
    """Split the validation samples in two random halves, group by group.

    Of a group with an odd number of samples, the selecting half has one more.

    Arguments:
        data: with a val split.
        seed: of the split.

    Returns:
        The fitting half and the selecting half.

    Raises:
        UserError: there is no val split.

    Example:
        ```python
        fitting, selecting = sm.val_halves(data)
        ```
    """
    data = checked_dataset(data)
    if "val" not in data.splits:
        raise UserError(
            f"{data.name} has no val split, by which epochs and settings are chosen: "
            "give some samples the split val in its table"
        )
    return data.val.of_half(1, seed), data.val.of_half(0, seed)


def selecting_half(data: Dataset) -> Samples:
    """The half of the validation samples by which methods are chosen, before the test split compares them.

    Raises:
        UserError: there is no val split, or no test split.
    """
    _, selecting = val_halves(data)
    if "test" not in data.splits:
        raise UserError(
            f"{data.name} has no test split, on which methods are compared: "
            "give some samples the split test in its table"
        )
    return selecting


def selected_epoch(run: Run, samples: Samples, rule: BestRule) -> int:
    """The epoch with the best value on some validation samples by a rule; the earliest of equals.

    Epoch 0 takes part only if training started from a trained network.

    Arguments:
        run: a run with predictions of them.
        samples: usually the selecting half of val.
        rule: as for `--best-by`: "worst_group_accuracy", "worst_group_bound", "worst_class_accuracy", "average",
            "average_group_balanced" or "loss".

    Raises:
        UserError: the run has no checkpoint, or no predictions of these samples.
    """
    samples = checked_samples(samples)
    label_of = samples.dataset.groups.label_of
    return best_epoch(history_on(run, samples), rule, run.candidate_epochs(), label_of).epoch


def history_on(run: Run, samples: Samples) -> pd.DataFrame:
    """`counts_on` of every epoch with a checkpoint.

    Raises:
        UserError: as for `selected_epoch`.
    """
    epochs = run.epochs()
    if not epochs:
        raise UserError(f"{run.path} has no checkpoint yet: finish its training with --resume")
    return pd.concat([counts_on(run, epoch, samples) for epoch in epochs], ignore_index=True)


def counts_on(run: Run, epoch: int, samples: Samples) -> pd.DataFrame:
    """Counts and loss sums of some samples in one epoch, from the stored predictions. The columns are those of a
    history.

    Raises:
        UserError: the run has no predictions of these samples.
    """
    probabilities = stored_probabilities(run, epoch, samples)
    of_label = probabilities[np.arange(len(samples)), samples.y].clip(1e-12)
    sums = group_sums(samples, probabilities.argmax(1), -np.log(of_label))
    return sums.assign(epoch=epoch, split=samples.split)


def stored_probabilities(run: Run, epoch: int, samples: Samples) -> NDArray[np.float64]:
    """Class probabilities of some samples in one epoch, [samples, classes], from the stored predictions.

    Raises:
        UserError: the run has no predictions of these samples.
    """
    stored = run.predictions(epoch, samples.split)
    try:
        probabilities: NDArray[np.float64] = stored.loc[samples.index].to_numpy(np.float64)
    except KeyError as error:
        raise UserError(f"{run.path} was measured on other samples: choose a run made with these data") from error
    return probabilities
