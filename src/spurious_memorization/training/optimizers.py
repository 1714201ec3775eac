"""Optimizers and learning-rate schedules by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau

from .settings import TrainSettings


def build_optimizer(config: TrainSettings, model: nn.Module) -> Optimizer:
    """The optimizer that the settings name, over all parameters. Adam and AdamW run as one kernel per parameter."""
    parameters = list(model.parameters())
    match config.optimizer:
        case "sgd":
            return SGD(parameters, lr=config.lr, weight_decay=config.weight_decay, momentum=config.momentum)
        case "adamw":
            return AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True)
        case "adam":
            return Adam(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True)


@dataclass(frozen=True)
class Schedule:
    """A learning-rate schedule, stepped once per epoch with the mean training loss. The rate is constant if `inner` is
    None."""

    inner: ReduceLROnPlateau | CosineAnnealingLR | None

    def step(self, loss: float) -> None:
        if isinstance(self.inner, ReduceLROnPlateau):
            self.inner.step(loss)
        elif self.inner is not None:
            self.inner.step()

    def state(self) -> dict[str, Any]:
        return self.inner.state_dict() if self.inner is not None else {}

    def load_state(self, state: dict[str, Any]) -> None:
        if self.inner is not None:
            self.inner.load_state_dict(state)


def build_schedule(config: TrainSettings, optimizer: Optimizer) -> Schedule:
    """The schedule that the settings name. Plateau halves the rate; cosine brings it to 0 in the last epoch."""
    match config.schedule:
        case "plateau":
            return Schedule(ReduceLROnPlateau(optimizer, factor=0.5, patience=config.plateau_patience))
        case "cosine":
            return Schedule(CosineAnnealingLR(optimizer, T_max=max(config.epochs, 1)))
        case "constant":
            return Schedule(None)
