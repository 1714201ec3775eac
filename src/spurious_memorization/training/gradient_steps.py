"""One epoch of gradient steps."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..console import progress
from ..datasets.samples import Samples
from ..datasets.sources import Batch, Images, Inputs, sample_name
from ..engine.cpu.kernels import reused_memory
from ..errors import UserError
from ..networks.activations import check_pass_fits
from ..networks.forward import autocast, moved
from ..seeds import derived_seed
from ..together import average_gradients, this_share
from .optimizers import Schedule
from .settings import TrainExecution, TrainSettings

MAX_READERS = 4
"""Maximum number of processes that read images for a GPU. A CPU that trains has no core left for them."""

BatchLoss = Callable[[Inputs, Tensor, Tensor], Tensor]
"""(inputs, labels, indices of the samples) -> the loss of a batch, a scalar. Of several processes, each gives only the
inputs of its own part; labels, indices and loss are those of the whole batch."""


@dataclass(frozen=True, eq=False, kw_only=True)
class GradientSteps:
    """What gradient steps need.

    Arguments:
        config: the settings of the training.
        model: the network that is trained, on the device.
        optimizer: over its parameters.
        schedule: of the learning rate; stepped once per epoch.
        device: where the network is.
        execution: number of workers.
    """

    config: TrainSettings
    model: nn.Module
    optimizer: Optimizer
    schedule: Schedule
    device: torch.device
    execution: TrainExecution

    def run(self, epoch: int, samples: Samples, batch_loss: BatchLoss) -> float:
        """One pass over the samples, with one gradient step per batch.

        Returns:
            The mean loss of a sample.

        Raises:
            UserError: the loss is no longer a number.
        """
        self.model.train()
        torch.manual_seed(self._seed(epoch))
        total = 0.0
        with reused_memory():
            for batch in self._batches(epoch, samples):
                total += self.step(batch, batch_loss) * len(batch.y)
                if not math.isfinite(total):
                    first = sample_name(int(batch.index[0]), samples.dataset.source)
                    raise UserError(
                        f"the loss is no longer a number in epoch {epoch}, in the batch that begins with {first}: "
                        "train again with a lower --lr"
                    )
        mean = total / len(samples)
        self.schedule.step(mean)
        return mean

    def step(self, batch: Batch, batch_loss: BatchLoss) -> float:
        """One gradient step, and the loss of the batch before it."""
        inputs, y = moved(batch.inputs, self.device), batch.y.to(self.device)
        check_pass_fits(self.model, batch.inputs, remedy="use a smaller --batch-size or --image-size")
        with autocast(self.device, self.config.known_precision):
            loss = batch_loss(inputs, y, batch.index)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        average_gradients(self.model)
        self.optimizer.step()
        return float(loss.detach())

    def _seed(self, epoch: int) -> int:
        """Seed of dropout and the like. Each process has its own, since it computes other samples."""
        seed, number = self.config.seed * 1_000_003 + epoch, this_share().number
        return derived_seed(seed, "process", number) if number else seed

    def _batches(self, epoch: int, samples: Samples) -> Iterator[Batch]:
        config, size, workers = self.config, self.config.batch_size, self._workers(samples)
        if config.augment:
            batches = samples.augmented_batches(size, config.seed, epoch, workers, this_share())
        else:
            batches = samples.batches(size, workers, this_share())
        return progress(batches, math.ceil(len(samples) / size), f"epoch {epoch}/{config.epochs}")

    def _workers(self, samples: Samples) -> int:
        if self.execution.workers is not None:
            return self.execution.workers
        are_files = isinstance(samples.dataset.source, Images)
        return 0 if self.device.type == "cpu" or not are_files else min(MAX_READERS, (os.cpu_count() or 1) - 1)
