"""mixup."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ...datasets.samples import Dataset
from ...datasets.sources import Inputs
from ...networks.losses import LOSSES
from ...together import own
from ..mixing import check_mixable, mixed
from ..objective import Objective
from ..objective_settings import ObjectiveSettings
from ..shared_passes import logits_of_all, rows_of_all


class MixupSettings(ObjectiveSettings):
    """Options of mixup.

    Arguments:
        alpha: of the beta distribution of the shares. The smaller it is, the nearer are mixtures to one of their
            samples.
    """

    name: Literal["mixup"] = "mixup"
    alpha: float = Field(0.2, gt=0, le=100)


class Mixup(Objective[MixupSettings]):
    """mixup: Zhang et al. (2018), mixup: Beyond Empirical Risk Minimization.

    Each sample of a batch is mixed with another one of the batch, by a random permutation. The share of the first is
    drawn from Beta(alpha, alpha), once per batch as in the authors' code. The loss is the mixture of the losses with
    both labels, which for cross-entropy is the loss with mixed labels.
    """

    @classmethod
    def check_data(cls, settings: MixupSettings, data: Dataset) -> None:
        super().check_data(settings, data)
        check_mixable(data)

    def begin_epoch(self, epoch: int) -> None:
        self.rng = np.random.default_rng([self.training.config.seed, epoch, 0x313C])

    def loss(self, inputs: Inputs, y: Tensor, index: Tensor) -> Tensor:
        share = float(self.rng.beta(self.settings.alpha, self.settings.alpha))
        other = torch.from_numpy(self.rng.permutation(len(y))).to(y.device)
        partners, shares = rows_of_all(inputs, len(y), own(other)), own(torch.full((len(y),), share))
        output = logits_of_all(self.training.model, mixed(inputs, partners, shares), len(y))
        losses = LOSSES[self.training.config.loss]
        return (share * losses(output, y) + (1 - share) * losses(output, y[other])).mean()
