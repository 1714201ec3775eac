"""Empirical risk minimization, and the questions that the training loop asks of every objective."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from ...datasets.samples import Dataset, Samples
from ...datasets.sources import Inputs
from ...errors import UserError
from ...networks.forward import logits
from ...networks.losses import LOSSES
from ...runs.run import Run
from ..recipes import TrainSettings


@dataclass(frozen=True, eq=False)
class Training:
    """What an objective may look at.

    Arguments:
        run: where predictions of the epochs so far are.
        config: the settings.
        data: what is trained on.
        model: the network that is trained.
    """

    run: Run
    config: TrainSettings
    data: Dataset
    model: nn.Module


class Objective:
    """Empirical risk minimization: the mean loss over all training samples, in a new order every epoch.

    The loop calls `begin` once (a resumed training calls `load_state` instead), then for every epoch `begin_epoch`,
    `samples`, and `loss` for each batch, in training mode. What it measures and stores is `deployed`.

    Draws follow from seed and epoch. What else an epoch needs of those before it is `state`: tensors, numbers or
    text, which the loop stores after every epoch.
    """

    passes_a_sample = 1
    """How often a sample passes through the network, forwards and backwards, in a step."""

    def __init__(self, training: Training) -> None:
        self.training = training

    def begin(self) -> None:
        """Look at the data and whatever else the first epoch needs.

        Raises:
            UserError: this objective can't be trained on these data, or with these settings.
        """

    def begin_epoch(self, epoch: int) -> None:
        """Get ready for an epoch; the network is as the epoch before left it."""

    def samples(self, epoch: int) -> Samples:
        """The training samples of an epoch, in order; one may come up several times."""
        return self.training.data.train.shuffled(self.training.config.seed, epoch)

    def loss(self, inputs: Inputs, y: Tensor, index: Tensor) -> Tensor:
        """The loss of a batch, a scalar.

        Arguments:
            inputs: on the network's device.
            y: labels, [samples], there too.
            index: indices of the samples in the data set, [samples].
        """
        return self.losses(inputs, y).mean()

    def losses(self, inputs: Inputs, y: Tensor) -> Tensor:
        """The loss of each sample, [samples]."""
        return LOSSES[self.training.config.loss](logits(self.training.model, inputs), y)

    def passes(self, epoch: int) -> int:
        """Sample passes of an epoch."""
        return self.passes_a_sample * len(self.samples(epoch))

    def deployed(self) -> nn.Module:
        """The network as it is measured and stored; mostly the one that is trained."""
        return self.training.model

    def pruned(self) -> nn.Module | None:
        """The pruned copy of the network, where there is one."""
        return None

    def state(self) -> dict[str, Any]:
        """What a resumed training must know."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up what `state` gave."""


def parts(data: Dataset, by: str) -> NDArray[np.int64]:
    """Class ("class") or group ("group") of each sample of a data set, [samples]."""
    return data.y if by == "class" else data.g


def part_counts(data: Dataset, by: str, objective: str) -> NDArray[np.int64]:
    """Training samples of each class or group that occurs in the data set at all; 0 for others.

    Raises:
        UserError: one that occurs has no training sample.
    """
    part = parts(data, by)
    names = data.groups.classes if by == "class" else data.groups.names
    counts = np.bincount(part[data.split == "train"], minlength=len(names))
    missing = [names[k] for k in np.unique(part) if not counts[k]]
    if missing:
        raise UserError(
            f"{by} {missing[0]!r} has no training sample, which {objective} needs: "
            "add some, or choose an objective without groups, such as erm or jtt"
        )
    return counts.astype(np.int64)
