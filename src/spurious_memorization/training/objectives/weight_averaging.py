"""Averaging of the weights over epochs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from ...datasets.sources import Inputs
from ...networks.forward import autocast, choose_device, moved
from ...settings import MAX_EPOCHS
from ...together import this_share
from ..gradient_steps import GradientSteps
from ..objective import Objective, Training
from ..objective_settings import ObjectiveSettings
from ..shared_passes import batch_norm_of_all


class WeightAveragingSettings(ObjectiveSettings):
    """Options of weight-averaging.

    Arguments:
        first: the first epoch whose weights count.
        decay: of an exponential moving average over epochs. None means that all epochs count equally.
    """

    name: Literal["weight-averaging"] = "weight-averaging"
    first: int = Field(1, ge=1, le=MAX_EPOCHS)
    decay: float | None = Field(None, gt=0, lt=1)


class WeightAveraging(Objective[WeightAveragingSettings]):
    """ERM whose network has the mean of the weights at the ends of the epochs: Izmailov et al. (2018), Averaging
    Weights Leads to Wider Optima and Better Generalization (SWA).

    Training itself is not changed. Its learning rate is the training's own, where the paper has a cyclical or high
    constant one. As in the paper, the running statistics of batch norm are measured anew for the averaged network, on
    the training samples without augmentation. With `decay`, later epochs count more. Before the first epoch that
    counts, the network is the trained one.
    """

    def __init__(self, settings: WeightAveragingSettings, training: Training) -> None:
        super().__init__(settings, training)
        average = None if settings.decay is None else get_ema_multi_avg_fn(settings.decay)  # type: ignore[no-untyped-call]
        self.averaged = AveragedModel(training.model, multi_avg_fn=average)

    def run_epoch(self, epoch: int, steps: GradientSteps) -> float | None:
        loss = super().run_epoch(epoch, steps)
        if epoch >= self.settings.first:
            self.averaged.to(next(self.training.model.parameters()).device)
            self.averaged.update_parameters(self.training.model)
            self._measure_statistics()
        return loss

    def _measure_statistics(self) -> None:
        """Measure the running statistics of the averaged network anew. It has none without batch norm."""
        training = self.training
        device, size = choose_device(training.execution.device), training.config.batch_size

        def batches() -> Iterator[Inputs]:
            for batch in training.data.train.batches(size, share=this_share()):
                with batch_norm_of_all(len(batch.y)):  # lasts while `update_bn` passes the batch
                    yield moved(batch.inputs, device)

        with autocast(device, training.config.known_precision):
            update_bn(batches(), self.averaged)

    def deployed(self) -> nn.Module:
        return self.averaged.module if int(self.averaged.n_averaged) else self.training.model

    def state(self) -> dict[str, Any]:
        return {name: value.detach().cpu().clone() for name, value in self.averaged.state_dict().items()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.averaged.load_state_dict(state)
