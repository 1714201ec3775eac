"""GroupDRO."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...datasets.samples import Samples
from ...datasets.sources import Inputs
from .balancing import balanced_draw
from .objective import Objective, Training, part_counts
from .settings import GroupDroSettings


class GroupDro(Objective):
    """Group distributionally robust optimization: Sagawa et al. (2020), Distributionally Robust Neural Networks, their
    online algorithm.

    In each step the weight q of every group in the batch is multiplied by exp(step x its mean loss), all weights are
    divided by their sum, and the weighted sum of the groups' mean losses is minimized. A group that is absent from
    the batch keeps its weight before that division, and adds nothing. Weights start equal. As in their training,
    samples are drawn with every group equally likely (`balanced`); the strong weight decay that they combine it with is
    the training's own `--weight-decay`; their generalization adjustment is `adjustment` (0: none).
    """

    def __init__(self, settings: GroupDroSettings, training: Training) -> None:
        super().__init__(training)
        self.settings = settings
        self.weights = torch.zeros(0)
        self.margins = torch.zeros(0)

    def begin(self) -> None:
        counts = part_counts(self.training.data, "group", self.settings.name)
        self.weights = torch.from_numpy((counts > 0) / (counts > 0).sum()).float()  # [groups]
        self.margins = torch.from_numpy(self.settings.adjustment / np.sqrt(counts.clip(1))).float()  # [groups]

    def samples(self, epoch: int) -> Samples:
        if not self.settings.balanced:
            return super().samples(epoch)
        return balanced_draw(self.training.data, "group", self.training.config.seed, epoch)

    def loss(self, inputs: Inputs, y: Tensor, index: Tensor) -> Tensor:
        losses = self.losses(inputs, y)  # [samples]
        group = torch.from_numpy(self.training.data.g)[index].to(losses.device)
        self.weights, self.margins = self.weights.to(losses.device), self.margins.to(losses.device)
        per_group, there = group_means(losses, group, len(self.weights))
        self.weights = stepped(self.weights, (per_group + self.margins).detach(), there, self.settings.step)
        return self.weights @ torch.where(there, per_group + self.margins, 0)

    def state(self) -> dict[str, Any]:
        return {"weights": self.weights.cpu()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.begin()
        self.weights = state["weights"]


def group_means(losses: Tensor, group: Tensor, n_groups: int) -> tuple[Tensor, Tensor]:
    """Mean loss of each group, [groups] (0 where it is absent), and whether it is there, [groups]."""
    counts = torch.bincount(group, minlength=n_groups)
    sums = torch.zeros(n_groups, device=losses.device).index_add(0, group, losses)
    return sums / counts.clamp(min=1), counts > 0


def stepped(weights: Tensor, losses: Tensor, there: Tensor, step: float) -> Tensor:
    """The groups' weights after one step, [groups].

    Arguments:
        weights: before, [groups], with the sum 1.
        losses: mean loss of each group, [groups].
        there: whether the group is in the batch, [groups].
        step: of the exponentiated ascent.
    """
    risen = torch.where(there, weights * torch.exp(step * losses), weights)
    return risen / risen.sum()
