"""Settings of the demo. This module imports no torch and no pandas: the command line uses it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ..settings import MAX_COUNT, MAX_EPOCHS, MAX_SEED, Settings


class DemoSettings(Settings):
    """Size and seed of the demo. With the defaults it takes about two minutes on two cores."""

    source: Literal["synthbirds", "negated-pairs"] = Field(
        "synthbirds", description="the generated data: synthbirds (images), or negated-pairs (pairs of sentences)"
    )
    seed: int = Field(0, ge=0, le=MAX_SEED, description="seed of the controls, data, trainings and random draws")
    train: int = Field(1200, ge=100, le=MAX_COUNT, description="training samples")
    val: int = Field(400, ge=40, le=MAX_COUNT, description="validation samples")
    test: int = Field(400, ge=20, le=MAX_COUNT, description="test samples")
    image_size: int = Field(48, ge=32, le=512, description="side of the images, in pixels")
    epochs: int = Field(16, ge=1, le=MAX_EPOCHS, description="epochs of training")
    networks: int = Field(6, ge=2, le=100_000, description="networks of the memorization scores")
    network_epochs: int = Field(5, ge=1, le=MAX_EPOCHS, description="epochs of each of these networks")
    controls: int = Field(99, ge=1, le=100_000, description="null sets per ranking, at most")
    per_group: int = Field(
        40, ge=1, le=MAX_COUNT, description="training samples per group on which null sets are measured"
    )

    @model_validator(mode="after")
    def _texts_have_no_size(self) -> DemoSettings:
        if self.source == "negated-pairs" and "image_size" in self.model_fields_set:
            raise ValueError("negated-pairs are texts, which have no image_size: leave it out")
        return self
