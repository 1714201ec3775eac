"""ERM continued from another run: what pruned-contrast must beat."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from ...datasets.sources import Inputs
from ..objective import Objective
from ..objective_settings import ObjectiveSettings


class ErmContinueSettings(ObjectiveSettings):
    """Options of erm-continue.

    Arguments:
        cross_entropy_weight: weight of the mean loss, as in pruned-contrast.
    """

    continues: ClassVar[bool] = True

    name: Literal["erm-continue"] = "erm-continue"
    cross_entropy_weight: float = Field(0.2, gt=0)


class ErmContinue(Objective[ErmContinueSettings]):
    """ERM continued from another run: the control of pruned-contrast.

    The loss is that of pruned-contrast without the contrast, with the same weight. A step passes each sample once
    instead of twice.
    """

    def loss(self, inputs: Inputs, y: Tensor, index: Tensor) -> Tensor:
        return self.settings.cross_entropy_weight * super().loss(inputs, y, index)
