"""Reweighting by class or by group."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ...datasets.sources import Inputs
from ..balance import membership, training_counts
from ..names import Balance
from ..objective import Objective, Training
from ..objective_settings import ObjectiveSettings


class ReweightingSettings(ObjectiveSettings):
    """Options of reweighting.

    Arguments:
        by: balance the classes or the groups.
    """

    name: Literal["reweighting"] = "reweighting"
    by: Balance = "group"

    @property
    def balances(self) -> Balance:
        return self.by


class Reweighting(Objective[ReweightingSettings]):
    """Every class, or every group, has the same total weight in the loss.

    Idrissi et al. (2022), Simple data balancing achieves competitive worst-group-accuracy, reach the same expectation
    (RWY, RWG) by drawing samples. Here the losses carry the weights, as in the older literature that they cite. The
    weight of a sample is N / (K n), with N training samples, K classes or groups, and n samples in its own one. The
    mean of the weights over an epoch is 1.
    """

    def __init__(self, settings: ReweightingSettings, training: Training) -> None:
        super().__init__(settings, training)
        self.weights = torch.zeros(0)

    def begin(self) -> None:
        data, by = self.training.data, self.settings.by
        counts = training_counts(data, by, self.settings.name)
        with np.errstate(divide="ignore"):
            weights = counts.sum() / ((counts > 0).sum() * counts)  # [classes or groups]
        self.weights = torch.from_numpy(weights[membership(data, by)]).float()  # [samples of the data set]

    def load_state(self, state: dict[str, object]) -> None:
        self.begin()

    def loss(self, inputs: Inputs, y: Tensor, index: Tensor) -> Tensor:
        return (self.weights[index].to(y.device) * self.losses(inputs, y)).mean()
