"""Training settings from the paper's recipes and from what a user sets instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..runs.run import Run
from ..training.settings import TrainSettings, with_changes
from .folders import WEIGHT_FILES


def training_of(chosen: Any, base: TrainSettings, experiments: Path) -> TrainSettings:
    """Settings of ERM training.

    Published weights that lie below `experiments` under their own names are used instead of a download.

    Arguments:
        chosen: settings with `recipe`, `epochs`, `weights`, `image_size` and `seed`. None leaves `base` as it is.
        base: settings to start from.
        experiments: folder that may hold published weights.
    """
    settings = _replaced_where_given(base, chosen, ("recipe", "epochs", "weights", "image_size", "seed"))
    file = experiments / WEIGHT_FILES.get(settings.model, "")
    if starts_pretrained(settings) and "weights" not in settings.model_fields_set and file.is_file():
        return with_changes(settings, weights=str(file))
    return settings


def starts_pretrained(settings: TrainSettings) -> bool:
    """Whether the paper's recipes start this network from published weights."""
    return settings.recipe == "paper-readme" or settings.model.startswith("deit")


def fine_tuning_of(chosen: Any, base: TrainSettings, start: str, run: Run) -> TrainSettings:
    """Settings of fine-tuning a run's network.

    Arguments:
        chosen: settings with `epochs` and `seed`. None leaves `base` as it is.
        base: settings to start from.
        start: the starting network, as RUN@EPOCH.
        run: run of ERM training, whose image size is kept.
    """
    settings = _replaced_where_given(base, chosen, ("epochs", "seed"))
    return with_changes(settings, start=start, image_size=run.record.data.settings.image_size)


def _replaced_where_given(base: TrainSettings, chosen: Any, names: tuple[str, ...]) -> TrainSettings:
    values = {name: getattr(chosen, name) for name in names}
    return with_changes(base, **{name: value for name, value in values.items() if value is not None})
