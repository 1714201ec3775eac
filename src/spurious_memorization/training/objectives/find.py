"""Objectives by their settings."""

from __future__ import annotations

from typing import Any

from .balancing import BalancedSampling, Reweighting, Subsampling
from .dfr import Dfr
from .group_dro import GroupDro
from .jtt import Jtt
from .objective import Objective, Training
from .pruned_contrast import ErmContinue, PrunedContrast
from .tied_dropout import ExampleTiedDropout

_CLASSES: dict[str, Any] = {
    "erm-continue": ErmContinue,
    "pruned-contrast": PrunedContrast,
    "reweighting": Reweighting,
    "balanced-sampling": BalancedSampling,
    "subsampling": Subsampling,
    "group-dro": GroupDro,
    "jtt": Jtt,
    "example-tied-dropout": ExampleTiedDropout,
    "dfr": Dfr,
}


def objective_for(training: Training) -> Objective:
    """The objective that a training's settings name, which hasn't begun."""
    settings = training.config.objective
    if settings.name == "erm":
        return Objective(training)
    objective: Objective = _CLASSES[settings.name](settings, training)
    return objective
