"""Subsampling by class or by group."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...datasets.samples import Samples
from ..balance import membership, training_counts
from ..names import Balance
from ..objective import Objective
from ..objective_settings import ObjectiveSettings


class SubsamplingSettings(ObjectiveSettings):
    """Options of subsampling.

    Arguments:
        by: balance the classes or the groups.
    """

    name: Literal["subsampling"] = "subsampling"
    by: Balance = "group"

    @property
    def balances(self) -> Balance:
        return self.by


class Subsampling(Objective[SubsamplingSettings]):
    """Every class, or every group, keeps only as many training samples as the smallest one has. They are drawn once.

    Idrissi et al. (2022), SUBY and SUBG. The epochs of all objectives must cost the same, so an epoch passes as many
    samples as the training split has. It passes the kept samples several times, each time in a new order and with new
    augmentation.
    """

    def kept_samples(self) -> NDArray[np.int64]:
        """Indices of the samples that are kept, in order."""
        data, seed, by = self.training.data, self.training.config.seed, self.settings.by
        counts = training_counts(data, by, self.settings.name)
        rng = np.random.default_rng([seed, 0x5AB5])
        index, member = data.train.index, membership(data, by)
        chosen = [
            rng.permutation(index[member[index] == k])[: counts[counts > 0].min()] for k in np.flatnonzero(counts)
        ]
        return np.sort(np.concatenate(chosen))

    def samples(self, epoch: int) -> Samples:
        train, kept = self.training.data.train, self.kept_samples()
        rng = np.random.default_rng([self.training.config.seed, epoch])
        rounds = [rng.permutation(kept) for _ in range(-(-len(train) // len(kept)))]
        return train.at(np.concatenate(rounds)[: len(train)])
