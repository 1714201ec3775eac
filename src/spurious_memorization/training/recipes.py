"""Settings of training, and the recipes that fill in what a user leaves open."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field
from torch import nn

from ..criteria.presets import is_transformer, tracing_rules
from ..datasets.samples import Dataset
from ..datasets.settings import DataSettings
from ..networks.names import LossName, Precision, UnitKind
from ..runs.epochs import BestRule
from .objectives.settings import (
    AnyObjective,
    DfrSettings,
    ErmSettings,
    ObjectiveSettings,
    PrunedContrastSettings,
)

Recipe = Literal["standard", "paper-readme", "paper-script", "paper-pruning"]


class NetworkTraining(DataSettings):
    """What a training has whatever it minimizes.

    What a user doesn't state is filled in by the recipe; the defaults here are those of `standard` on own data.
    """

    model: str = Field("resnet18", description="a timm name, deit_tiny|small|base|large, or module:factory")
    recipe: Recipe = Field("standard", description="fills in what is not given, by data set")
    weights: str = Field("none", description="starting weights: none, timm (its download), or a file")
    epochs: int = Field(12, ge=0, description="passes over the training samples")
    batch_size: int = Field(64, ge=1, description="samples a step")
    optimizer: Literal["adam", "adamw", "sgd"] = Field("adam", description="adam, adamw or sgd")
    lr: float = Field(1e-3, gt=0, description="learning rate")
    weight_decay: float = Field(0.0, ge=0, description="weight decay")
    momentum: float = Field(0.0, ge=0, lt=1, description="momentum of sgd")
    schedule: Literal["constant", "plateau", "cosine"] = Field("constant", description="of the learning rate")
    plateau_patience: int = Field(3, ge=0, description="epochs that plateau waits before it halves the rate")
    loss: LossName = Field("cross_entropy", description="loss of a sample")
    augment: bool = Field(True, description="random crops and flips in training")
    norm_eps: float | None = Field(None, gt=0, description="epsilon of layer norms; the network's own if not given")
    precision: Precision = Field("float32", description="float32 or bf16")
    checkpoint_every: int = Field(1, ge=1, description="epochs between checkpoints; the last one is always kept")
    best_by: BestRule = Field("worst_group_accuracy", description="validation rule of --epoch best")


class TrainSettings(NetworkTraining):
    """Everything that changes the result of a training."""

    objective: ObjectiveSettings = Field(
        ErmSettings(), description="erm, pruned-contrast, ...; options as in pruned-contrast:mask=none,fraction=0.05"
    )
    start: str | None = Field(None, alias="from", description="start from another run: RUN or RUN@EPOCH")
    seed: int = Field(0, ge=0, description="of starting weights, order and augmentation")


def replaced(settings: TrainSettings, **changes: Any) -> TrainSettings:
    """The settings with these in place of theirs; what was left to the recipe stays so."""
    stated = {name: getattr(settings, name) for name in settings.model_fields_set}
    return TrainSettings(**{**stated, **changes})


_PAPER: dict[str, Any] = {
    "batch_size": 256,
    "optimizer": "adam",
    "lr": 5e-6,
    "weight_decay": 0.0,
    "momentum": 0.0,
    "schedule": "plateau",
    "loss": "cross_entropy_on_probabilities",
    "augment": True,
}
"""The released script of You et al. (2025); its README states only weights and epochs."""

_PAPER_PRUNING: dict[str, Any] = {
    **_PAPER,
    "epochs": 21,
    "batch_size": 100,
    "lr": 2e-4,
    "plateau_patience": 1,
}
_PAPER_CONTRAST: dict[str, Any] = {
    "mask": "magnitude-smallest",
    "contrast": "probabilities",
    "running_statistics": "dense-pruned-dense",
    "strictly_beyond": True,
    "order": "lowest_loss",
}
"""The released fine-tuning script of You et al. (2025)."""

_SAGAWA: dict[str, Any] = {
    "weights": "timm",
    "batch_size": 128,
    "optimizer": "sgd",
    "weight_decay": 1e-4,
    "momentum": 0.9,
    "schedule": "constant",
    "augment": True,
}
"""The ERM baseline of Sagawa et al. (2020), Distributionally Robust Neural Networks."""

_STANDARD: dict[str, dict[str, Any]] = {
    "waterbirds": {**_SAGAWA, "epochs": 300, "lr": 1e-3},
    "celeba": {**_SAGAWA, "epochs": 50, "lr": 1e-4},
}


def expanded(settings: TrainSettings, data: Dataset) -> TrainSettings:
    """The settings with everything filled in that was not stated, by the recipe and the data set's layout."""
    transformer = settings.model.startswith(("deit", "vit"))
    match settings.recipe:
        case "standard":
            filled = dict(_STANDARD.get(data.layout, {}))
        case "paper-readme":
            filled = {**_PAPER, "weights": "timm", "epochs": 20 if data.layout == "celeba" else 40}
        case "paper-script":
            filled = {**_PAPER, "weights": "timm" if transformer else "none", "epochs": 101}
        case "paper-pruning":
            filled = dict(_PAPER_PRUNING)
    if settings.recipe != "standard" and transformer:
        filled["norm_eps"] = 1e-5
    if settings.start is not None:
        filled.pop("weights", None)
    left_open = {name: value for name, value in filled.items() if name not in settings.model_fields_set}
    if isinstance(settings.objective, DfrSettings):  # fits once
        left_open |= {"epochs": 1, "checkpoint_every": 1}
    return settings.model_copy(update=left_open)


def expanded_objective(settings: TrainSettings, model: nn.Module) -> AnyObjective:
    """The objective with everything filled in that was not stated, by the recipe and the network."""
    objective = settings.objective
    if not isinstance(objective, PrunedContrastSettings):
        return objective
    paper = settings.recipe == "paper-pruning"
    filled: dict[str, Any] = dict(_PAPER_CONTRAST) if paper else {}
    mask = objective.mask if "mask" in objective.model_fields_set else filled.get("mask", objective.mask)
    unit: UnitKind = objective.unit or ("weight" if mask.startswith("magnitude") else "channel")
    filled["unit"] = unit
    if paper:
        if is_transformer(model):
            filled["unit"] = unit = "weight"
        select = tracing_rules("paper", "gradient", unit, model).select
        filled |= {"layers": select.layers, "with_bias": select.with_bias}
    else:
        filled |= {"layers": ("conv", "linear"), "with_bias": True}
    left_open = {
        name: value
        for name, value in filled.items()
        if name not in objective.model_fields_set or getattr(objective, name) is None
    }
    return objective.model_copy(update=left_open)
