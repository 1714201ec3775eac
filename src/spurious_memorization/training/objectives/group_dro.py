"""GroupDRO: group distributionally robust optimization."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ...datasets.samples import Samples
from ...datasets.sources import Inputs
from ..balance import balanced_draw, training_counts
from ..names import Balance
from ..objective import Objective, Training
from ..objective_settings import ObjectiveSettings


class GroupDroSettings(ObjectiveSettings):
    """Options of group-dro.

    Arguments:
        step: step size of the group weights.
        adjustment: added to the loss of a group, divided by the square root of its size.
        balanced: draw the samples so that every group is equally likely.
        absent: whether the adjustment of a group that is absent from a batch moves its weight ("move"), or it keeps its
            weight ("keep"). Without an adjustment both are the same.
    """

    name: Literal["group-dro"] = "group-dro"
    step: float = Field(0.01, gt=0, le=100)
    adjustment: float = Field(0.0, ge=0)
    balanced: bool = True
    absent: Literal["move", "keep"] = "move"

    @property
    def balances(self) -> Balance:
        return "group"


class GroupDro(Objective[GroupDroSettings]):
    """Group distributionally robust optimization: the online algorithm of Sagawa et al. (2020), Distributionally Robust
    Neural Networks.

    Each step multiplies the weight q of every group by exp(step x its mean loss). It then divides all weights by their
    sum, and minimizes the weighted sum of the groups' mean losses. The mean loss of a group that is absent from the
    batch is 0. The weights start equal.

    The generalization adjustment adds a constant to the mean loss of each group. In the authors' code this also holds
    for absent groups, whose weights then move, and it is the default here. With `absent=keep` they don't.

    As in their training, samples are drawn with every group equally likely (`balanced`). The strong weight decay that
    they use is the training's own `--weight-decay`. Their generalization adjustment is `adjustment` (0: none).
    """

    def __init__(self, settings: GroupDroSettings, training: Training) -> None:
        super().__init__(settings, training)
        self.weights = torch.zeros(0)
        self.adjustments = torch.zeros(0)

    def begin(self) -> None:
        counts = training_counts(self.training.data, "group", self.settings.name)
        self.weights = torch.from_numpy((counts > 0) / (counts > 0).sum()).float()  # [groups]
        self.adjustments = torch.from_numpy(self.settings.adjustment / np.sqrt(counts.clip(1))).float()  # [groups]

    def samples(self, epoch: int) -> Samples:
        if not self.settings.balanced:
            return super().samples(epoch)
        return balanced_draw(self.training.data, "group", self.training.config.seed, epoch)

    def loss(self, inputs: Inputs, y: Tensor, index: Tensor) -> Tensor:
        losses = self.losses(inputs, y)  # [samples]
        group = torch.from_numpy(self.training.data.g)[index].to(losses.device)
        self.weights, self.adjustments = self.weights.to(losses.device), self.adjustments.to(losses.device)
        means, present = group_means(losses, group, len(self.weights))
        adjusted = means + self.adjustments
        counting = present if self.settings.absent == "keep" else torch.ones_like(present)
        self.weights = stepped(self.weights, adjusted.detach(), counting, self.settings.step)
        return self.weights @ torch.where(counting, adjusted, 0)

    def state(self) -> dict[str, Any]:
        return {"weights": self.weights.cpu()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.begin()
        self.weights = state["weights"]


def group_means(losses: Tensor, group: Tensor, n_groups: int) -> tuple[Tensor, Tensor]:
    """Mean loss of each group (0 where it is absent), [groups], and whether it is present, [groups].

    Arguments:
        losses: of each sample, [samples].
        group: of each sample, [samples].
        n_groups: number of groups.
    """
    counts = torch.bincount(group, minlength=n_groups)
    sums = torch.zeros(n_groups, device=losses.device).index_add(0, group, losses)
    return sums / counts.clamp(min=1), counts > 0


def stepped(weights: Tensor, losses: Tensor, present: Tensor, step: float) -> Tensor:
    """The group weights after one step, [groups].

    Arguments:
        weights: before the step, [groups], with sum 1.
        losses: mean loss of each group, [groups].
        present: whether the group's weight moves, [groups].
        step: step size of the exponentiated ascent.
    """
    risen = torch.where(present, weights * torch.exp(step * losses), weights)
    return risen / risen.sum()
