"""Balanced sampling by class or by group."""

from __future__ import annotations

from typing import Literal

from ...datasets.samples import Samples
from ..balance import balanced_draw
from ..names import Balance
from ..objective import Objective
from ..objective_settings import ObjectiveSettings


class BalancedSamplingSettings(ObjectiveSettings):
    """Options of balanced-sampling.

    Arguments:
        by: balance the classes or the groups.
    """

    name: Literal["balanced-sampling"] = "balanced-sampling"
    by: Balance = "group"

    @property
    def balances(self) -> Balance:
        return self.by


class BalancedSampling(Objective[BalancedSamplingSettings]):
    """Samples are drawn with replacement, so that every class, or every group, is equally likely.

    Idrissi et al. (2022), RWY and RWG; Sagawa et al. (2020), upweighting of groups. An epoch draws as many samples as
    the training split has. The draw depends on seed and epoch.
    """

    def samples(self, epoch: int) -> Samples:
        return balanced_draw(self.training.data, self.settings.by, self.training.config.seed, epoch)
