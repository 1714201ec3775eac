"""Evaluation of a network on whole splits: counts and losses per group, and class probabilities."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from ..datasets.samples import Dataset, Samples
from ..engine.evaluate import example_inputs
from ..networks.activations import check_pass_fits
from ..networks.forward import (
    autocast,
    check_deterministic,
    choose_device,
    exact_float32,
    logits,
    moved,
    working_copy,
)
from ..networks.losses import BROKEN_NETWORK, LOSSES, check_classes, finite
from ..networks.names import LossName, Precision
from ..settings import Execution
from ..together import collected, is_first, this_share
from .run import HISTORY_COLUMNS, Run


def check_answers(model: nn.Module, data: Dataset, execution: Execution | None = None) -> None:
    """Check on a few samples that a network answers each of them alike; see `check_deterministic`.

    Raises:
        UserError: it does not.
    """
    inputs = example_inputs(data.samples(data.splits[0]))
    check_deterministic(model, inputs, choose_device((execution or Execution()).device))


def evaluate_epoch(
    run: Run,
    epoch: int,
    model: nn.Module,
    data: Dataset,
    *,
    loss: LossName,
    precision: Precision = "float32",
    execution: Execution | None = None,
) -> None:
    """Evaluate a network on every split, and store the class probabilities and the history.

    Of processes that work together, each evaluates a part of every split, and the first one stores.

    Arguments:
        run: where the results are stored.
        epoch: the epoch of the network.
        model: the network.
        data: the data set; each of its splits is evaluated.
        loss: loss of a sample.
        precision: of the forward pass.
        execution: device, workers, batch size.

    Raises:
        UserError: the network's answer to a sample is NaN or infinite. Nothing of the epoch is stored then.
    """
    named = f"the network of epoch {epoch} of {run.path}"
    measured = {}
    for split in data.splits:
        samples = data.samples(split)
        predicted = predict(
            model,
            samples.part(this_share().part(len(samples))),
            loss=loss,
            precision=precision,
            execution=execution,
            network=named,
            remedy=_remedy(run, epoch),
        )
        measured[split] = collected(predicted, len(samples))
    if not is_first():
        return
    rows = []
    for split, (probabilities, losses) in measured.items():
        samples = data.samples(split)
        run.save_predictions(epoch, split, samples.index, probabilities)
        rows.append(group_sums(samples, probabilities.argmax(1), losses).assign(epoch=epoch, split=split))
    history = run.history_so_far()
    kept = [history[history["epoch"] != epoch]] if len(history) else []
    updated = pd.concat([*kept, *rows], ignore_index=True)[list(HISTORY_COLUMNS)]
    run.save_history(updated.sort_values("epoch", kind="stable", ignore_index=True))


def predict(
    model: nn.Module,
    samples: Samples,
    *,
    loss: LossName = "cross_entropy",
    precision: Precision = "float32",
    execution: Execution | None = None,
    network: str = "the network",
    remedy: str = BROKEN_NETWORK,
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Class probabilities [samples, classes] and losses [samples] in evaluation mode. The network does not change.

    Raises:
        UserError: a logit is NaN or infinite. The message names `network` and the first such sample, and `remedy`.
    """
    execution = execution or Execution()
    device = choose_device(execution.device)
    copied = working_copy(model, device)
    probabilities, losses = [], []
    with torch.no_grad(), exact_float32(), autocast(device, precision):
        for batch in samples.batches(execution.samples_per_pass, execution.workers or 0):
            check_pass_fits(copied, batch.inputs, remedy="use a smaller --eval-batch-size or --image-size")
            output = logits(copied, moved(batch.inputs, device)).cpu()
            check_classes(output, samples.dataset)
            finite(output, batch.index, network, source=samples.dataset.source, remedy=remedy)
            probabilities.append(output.softmax(1).numpy())
            losses.append(LOSSES[loss](output, batch.y).double().numpy())
    return np.concatenate(probabilities), np.concatenate(losses)


def group_sums(samples: Samples, predicted: NDArray[np.int64], losses: NDArray[np.float64]) -> pd.DataFrame:
    """Number of samples, number of correct predictions and sum of losses per group.

    Arguments:
        samples: the samples.
        predicted: class of each sample, [samples].
        losses: loss of each sample, [samples].

    Returns:
        A frame with the columns group, n, correct and loss.
    """
    groups = len(samples.dataset.groups)
    right = predicted == samples.y
    return pd.DataFrame(
        {
            "group": np.arange(groups),
            "n": np.bincount(samples.g, minlength=groups),
            "correct": np.bincount(samples.g, weights=right, minlength=groups).astype(np.int64),
            "loss": np.bincount(samples.g, weights=losses, minlength=groups),
        }
    )


def _remedy(run: Run, epoch: int) -> str:
    """What helps against a network whose answers are not finite, depending on where it comes from."""
    match run.record.origin:
        case "train" if epoch:
            return "train again with a lower --lr"
        case "edit":
            return "choose a smaller edit, or other units"
        case _:
            return "look for NaN in the weights, or choose another file"
