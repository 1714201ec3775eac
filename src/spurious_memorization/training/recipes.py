"""The recipes: they fill in the settings of training that a user leaves open."""

from __future__ import annotations

from typing import Any

from ..datasets.samples import Dataset
from ..datasets.synthbirds.make import SYNTHBIRDS
from ..datasets.texts import Texts
from ..errors import UserError
from ..networks import birds_resnet18, hugging_face, image_towers
from .settings import TrainSettings

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
"""The released script of You et al. (2025). Its README gives only weights and epochs."""

_PAPER_PRUNING: dict[str, Any] = {
    **_PAPER,
    "epochs": 21,
    "batch_size": 100,
    "lr": 2e-4,
    "plateau_patience": 1,
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

_BIRDS: dict[str, Any] = {
    "weights": "package",
    "epochs": 20,
    "batch_size": 32,
    "optimizer": "sgd",
    "lr": 2e-3,
    "momentum": 0.9,
    "augment": False,
}
"""Training of `birds_resnet18` from the weights of this package. It was chosen on ERM on synthbirds alone."""

_FINE_TUNING: dict[str, Any] = {
    "epochs": 4,
    "batch_size": 32,
    "optimizer": "adamw",
    "lr": 2e-5,
    "weight_decay": 0.01,
}
"""Devlin et al. (2019), BERT, appendix A.3: among the settings with which a network of text is fine-tuned."""

_STANDARD: dict[str, dict[str, Any]] = {
    "waterbirds": {**_SAGAWA, "epochs": 300, "lr": 1e-3},
    "celeba": {**_SAGAWA, "epochs": 50, "lr": 1e-4},
    "multinli": {**_FINE_TUNING, "epochs": 20, "weight_decay": 0.0},
    "civilcomments": {**_FINE_TUNING, "epochs": 5, "batch_size": 16, "lr": 1e-5},
}
"""By layout. MultiNLI is as in Sagawa et al. (2020), CivilComments as in Koh et al. (2021), but at a constant rate."""

_HEAD_ALONE: dict[str, Any] = {
    "augment": False,
    "optimizer": "adam",
    "lr": 1e-3,
    "batch_size": 64,
    "epochs": 20,
    "weight_decay": 0.0,
    "momentum": 0.0,
    "schedule": "constant",
}
"""A linear layer on fixed features. Rates that are made for fine-tuning whole networks would be too small."""


def expanded(settings: TrainSettings, data: Dataset) -> TrainSettings:
    """The settings with every value filled in that the user left open.

    The values depend on the recipe, the data set, the network and the objective. On synthbirds, the network is
    `birds_resnet18` unless the settings name one. The objective's own settings also depend on the network:
    `ObjectiveSettings.expanded` fills them in.

    Raises:
        UserError: settings contradict each other.
    """
    if settings.recipe == "standard" and data.name == SYNTHBIRDS and "model" not in settings.model_fields_set:
        settings = settings.model_copy(update={"model": birds_resnet18.NAME})
    transformer = settings.model.startswith(("deit", "vit"))
    match settings.recipe:
        case "standard":
            is_birds = settings.model == birds_resnet18.NAME
            from_random = "weights" in settings.model_fields_set and settings.weights == "none"
            is_fine_tuned = isinstance(data.source, Texts) and not from_random
            others = _FINE_TUNING if is_fine_tuned else {}
            filled = dict(_BIRDS if is_birds else _STANDARD.get(data.layout, others))
        case "paper-readme":
            filled = {**_PAPER, "weights": "timm", "epochs": 20 if data.layout == "celeba" else 40}
        case "paper-script":
            filled = {**_PAPER, "weights": "timm" if transformer else "none", "epochs": 101}
        case "paper-pruning":
            filled = dict(_PAPER_PRUNING)
    if settings.recipe != "standard" and transformer:
        filled["norm_eps"] = 1e-5
    has_weights = settings.model.startswith(image_towers.PREFIX) and image_towers.names_weights(settings.model)
    if has_weights or settings.model.startswith(hugging_face.PREFIX):
        filled["weights"] = "pretrained"
    if settings.start is not None:
        filled.pop("weights", None)
    if settings.freeze == "encoder":
        if settings.augment and "augment" in settings.model_fields_set:
            raise UserError("the features of a frozen encoder are computed once: leave out --augment, or --freeze")
        filled |= _HEAD_ALONE
    left_open = {name: value for name, value in filled.items() if name not in settings.model_fields_set}
    return settings.model_copy(update=left_open | dict(settings.objective.fixed_settings))
