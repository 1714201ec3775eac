"""Reweighting, balanced sampling and subsampling, by class or by group (the baselines of Idrissi et al. 2022)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...datasets.samples import Dataset, Samples
from ...datasets.sources import Inputs
from .objective import Objective, Training, part_counts, parts
from .settings import BalancedSamplingSettings, By, ReweightingSettings, SubsamplingSettings


class Reweighting(Objective):
    """Every class, or every group, has the same total weight in the loss.

    Idrissi et al. (2022), Simple data balancing achieves competitive worst-group-accuracy, reach the same expectation
    (RWY, RWG) by drawing samples; here, as in the older literature that they cite, the losses carry the weights. A
    sample's weight is N / (K n): N training samples, K classes or groups, n in its own. Its mean over an epoch is 1.
    """

    def __init__(self, settings: ReweightingSettings, training: Training) -> None:
        super().__init__(training)
        self.settings = settings
        self.weights = torch.zeros(0)

    def begin(self) -> None:
        data, by = self.training.data, self.settings.by
        counts = part_counts(data, by, self.settings.name)
        with np.errstate(divide="ignore"):
            per_part = counts.sum() / ((counts > 0).sum() * counts)
        self.weights = torch.from_numpy(per_part[parts(data, by)]).float()  # [samples of the data set]

    def load_state(self, state: dict[str, object]) -> None:
        self.begin()

    def loss(self, inputs: Inputs, y: Tensor, index: Tensor) -> Tensor:
        return (self.weights[index].to(y.device) * self.losses(inputs, y)).mean()


class BalancedSampling(Objective):
    """Samples are drawn with replacement so that every class, or every group, is equally likely.

    Idrissi et al. (2022), RWY and RWG; Sagawa et al. (2020), upweighting of groups. An epoch draws as many samples as
    the training split has, anew from seed and epoch.
    """

    def __init__(self, settings: BalancedSamplingSettings, training: Training) -> None:
        super().__init__(training)
        self.settings = settings

    def begin(self) -> None:
        part_counts(self.training.data, self.settings.by, self.settings.name)

    def samples(self, epoch: int) -> Samples:
        return balanced_draw(self.training.data, self.settings.by, self.training.config.seed, epoch)


class Subsampling(Objective):
    """Every class, or every group, keeps only as many training samples as the smallest one has, drawn once.

    Idrissi et al. (2022), SUBY and SUBG. So that epochs of all objectives cost the same, one passes as many samples as
    the training split has: the kept ones several times over, each time in a new order and newly augmented.
    """

    def __init__(self, settings: SubsamplingSettings, training: Training) -> None:
        super().__init__(training)
        self.settings = settings

    def begin(self) -> None:
        part_counts(self.training.data, self.settings.by, self.settings.name)

    def kept(self) -> NDArray[np.int64]:
        """Indices of the samples that are kept, in order."""
        data, seed = self.training.data, self.training.config.seed
        counts = part_counts(data, self.settings.by, self.settings.name)
        rng = np.random.default_rng([seed, 0x5AB5])
        index, part = data.train.index, parts(data, self.settings.by)
        chosen = [rng.permutation(index[part[index] == k])[: counts[counts > 0].min()] for k in np.flatnonzero(counts)]
        return np.sort(np.concatenate(chosen))

    def samples(self, epoch: int) -> Samples:
        train, kept = self.training.data.train, self.kept()
        rng = np.random.default_rng([self.training.config.seed, epoch])
        rounds = [rng.permutation(kept) for _ in range(-(-len(train) // len(kept)))]
        return train.at(np.concatenate(rounds)[: len(train)])


def balanced_draw(data: Dataset, by: By, seed: int, epoch: int) -> Samples:
    """As many training samples as there are, drawn with replacement; every class or group is equally likely."""
    train, part = data.train, parts(data, by)[data.train.index]
    counts = np.bincount(part)
    likely = 1 / ((counts > 0).sum() * counts[part])
    rng = np.random.default_rng([seed, epoch, 0xBA1A])
    return train.at(rng.choice(train.index, len(train), p=likely))
