"""Settings of reproducing a study of the paper."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ..settings import MAX_EPOCHS, MAX_IMAGE_SIZE, MAX_SEED, Settings
from ..studies.settings import Words
from ..training.names import Recipe

ScaleName = Literal["full", "small", "tiny"]


class ReproduceSettings(Settings):
    """The part of a grid to run, its scale, and changes to the grid's training settings."""

    scale: ScaleName = Field("full", description="full; or small or tiny, on generated images")
    mode: Words = Field((), description="only these edits: zero, random_init, random_noise, rewind; all if not given")
    split: Words = Field((), description="only these splits: train, test; both if not given")
    controls: int = Field(0, ge=0, le=100_000, description="null sets per ranking, for verdicts; the paper has none")
    compare_across_splits: bool = Field(
        False, description="also show the wrong comparison: accuracy before on train with accuracy after on test"
    )
    recipe: Recipe | None = Field(None, description="recipe of ERM training instead of paper-script: paper-readme")
    epochs: int | None = Field(
        None, ge=0, le=MAX_EPOCHS, description="epochs of ERM training; set by the recipe if not given"
    )
    weights: str | None = Field(
        None, description="starting weights: none, timm or a file; set by the recipe if not given"
    )
    image_size: int | None = Field(
        None, ge=1, le=MAX_IMAGE_SIZE, description="side of the input in pixels; 224 if not given"
    )
    seed: int | None = Field(
        None, ge=0, le=MAX_SEED, description="seed of training and of every draw; the grid's if not given"
    )
