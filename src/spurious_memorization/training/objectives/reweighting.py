"""Reweighting by class or by group."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from pydantic import Field
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
        power: the weight of a sample falls with the size of its class or group to this power. 1 balances them, 0.5 is
            square-root reweighting, 0 is ERM.
    """

    name: Literal["reweighting"] = "reweighting"
    by: Balance = "group"
    power: float = Field(1.0, ge=0, le=2)

    @property
    def balances(self) -> Balance:
        return self.by


class Reweighting(Objective[ReweightingSettings]):
    """Small classes or groups weigh more in the loss. With power 1, all have the same total weight.

    Idrissi et al. (2022), Simple data balancing achieves competitive worst-group-accuracy, reach the same expectation
    (RWY, RWG) by drawing samples. Here the losses carry the weights, as in the older literature that they cite. The
    weight of a sample is n^-power, with n samples in its class or group, divided by the mean over the training samples.
    With power 1 this is N / (K n), with N training samples and K classes or groups. Power 0.5 is the square-root rule
    for long-tailed classes of Mahajan et al. (2018), Exploring the Limits of Weakly Supervised Pretraining.
    """

    def __init__(self, settings: ReweightingSettings, training: Training) -> None:
        super().__init__(settings, training)
        self.weights = torch.zeros(0)

    def begin(self) -> None:
        data, by = self.training.data, self.settings.by
        counts = training_counts(data, by, self.settings.name)
        powers = np.where(counts > 0, counts.clip(1) ** -self.settings.power, 0)  # [classes or groups]
        weights = powers * counts.sum() / (powers @ counts)
        self.weights = torch.from_numpy(weights[membership(data, by)]).float()  # [samples of the data set]

    def load_state(self, state: dict[str, object]) -> None:
        self.begin()

    def loss(self, inputs: Inputs, y: Tensor, index: Tensor) -> Tensor:
        return (self.weights[index].to(y.device) * self.losses(inputs, y)).mean()
