"""The base of every objective: the questions that the training loop asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from torch import Tensor, nn

from ..datasets.samples import Dataset, Samples
from ..datasets.sources import Inputs
from ..errors import UserError
from ..networks.losses import LOSSES
from ..runs.run import Run
from .balance import training_counts
from .find_objective import class_in_file
from .gradient_steps import GradientSteps
from .objective_settings import ObjectiveSettings
from .settings import TrainExecution, TrainSettings
from .shared_passes import logits_of_all

S = TypeVar("S", bound=ObjectiveSettings)


class NotApplicableError(UserError):
    """A method has nothing to work on in this network. Another network may have it."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Training:
    """What an objective may look at.

    Arguments:
        run: holds the predictions of the epochs up to now.
        config: the settings, expanded.
        data: the data set, without the samples that are left out.
        measured: the data set on which the network is measured.
        model: the network that is trained.
        execution: device, workers, batch size of evaluation.
    """

    run: Run
    config: TrainSettings
    data: Dataset
    measured: Dataset
    model: nn.Module
    execution: TrainExecution


class Objective(Generic[S]):
    """What a training minimizes. A method changes the answers in which it differs from plain training.

    The loop calls `begin` once. A resumed training calls `load_state` instead. For every epoch the loop then calls
    `begin_epoch` and `run_epoch`. By default `run_epoch` takes gradient steps, with `samples` once and `loss` for each
    batch, in training mode. The loop measures and stores the network that `deployed` returns.

    Of several processes (`together`), each runs the same objective on the same batches, but holds only the inputs of
    its own part. `logits_of_all` gives the logits of the whole batch.

    Random draws depend only on seed and epoch. If an epoch needs anything else from earlier epochs, `state` returns it
    as tensors, numbers or text. The loop stores it after every epoch.

    Arguments:
        settings: the options of the method.
        training: what the objective may look at.
    """

    def __init__(self, settings: S, training: Training) -> None:
        self.settings = settings
        self.training = training

    @classmethod
    def check_data(cls, settings: S, data: Dataset) -> None:
        """Check, before any training starts, that the data have what the method needs.

        Raises:
            UserError: they do not.
        """
        if settings.balances is not None:
            training_counts(data, settings.balances, settings.name)

    def begin(self) -> None:
        """Prepare the first epoch.

        Raises:
            UserError: the method cannot be trained on these data, or with these settings.
        """
        self.check_data(self.settings, self.training.data)

    def begin_epoch(self, epoch: int) -> None:
        """Prepare an epoch. The network is as the previous epoch left it."""

    def run_epoch(self, epoch: int, steps: GradientSteps) -> float | None:
        """Train the network for one epoch.

        Arguments:
            epoch: its number, from 1.
            steps: takes gradient steps.

        Returns:
            The mean loss of a sample, None for a method without one.
        """
        return steps.run(epoch, self.samples(epoch), self.loss)

    def samples(self, epoch: int) -> Samples:
        """The training samples of an epoch, in order. A sample may occur several times."""
        return self.training.data.train.shuffled(self.training.config.seed, epoch)

    def loss(self, inputs: Inputs, y: Tensor, index: Tensor) -> Tensor:
        """The loss of a batch, a scalar. By default the mean over its samples.

        Arguments:
            inputs: on the network's device; of several processes, this one's part of the batch.
            y: labels, [samples], of the whole batch, on the same device.
            index: indices of the samples in the data set, [samples].
        """
        return self.losses(inputs, y).mean()

    def losses(self, inputs: Inputs, y: Tensor) -> Tensor:
        """The loss of each sample, [samples]."""
        return LOSSES[self.training.config.loss](logits_of_all(self.training.model, inputs, len(y)), y)

    def passes(self, epoch: int) -> int:
        """Sample passes of an epoch."""
        return self.settings.passes_per_sample * len(self.samples(epoch))

    def deployed(self) -> nn.Module:
        """The network that is measured and stored. By default the one that is trained."""
        return self.training.model

    def pruned(self) -> nn.Module | None:
        """The pruned copy of the network. None where there is none."""
        return None

    def state(self) -> dict[str, Any]:
        """What a resumed training must know."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""


def objective_class(settings: ObjectiveSettings) -> type[Objective[Any]]:
    """The objective that these settings belong to."""
    return class_in_file(settings.name, Objective)


def build_objective(training: Training) -> Objective[Any]:
    """The objective of a training, before it has begun."""
    settings = training.config.objective
    return objective_class(settings)(settings, training)
