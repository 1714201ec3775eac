"""Settings of `spurmem discover`. This module imports no torch, so that the command line can show its help quickly."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from ..settings import MAX_COUNT, MAX_EPOCHS, MAX_SEED, Settings
from ..training.settings import NetworkTraining

Method = Literal["xrm", "early-errors", "eiil", "clusters", "error-mixture", "consensus"]
"""How samples are found that are unlike the others of their class."""

METHODS: tuple[Method, ...] = ("xrm", "early-errors", "eiil", "clusters", "error-mixture", "consensus")


class DiscoverSettings(NetworkTraining):
    """Everything that changes the result of a discovery. The settings of training are those of its networks."""

    freeze: Literal["none"] = Field("none", description="none: all layers are trained")
    method: Method = Field("xrm", description="whose candidate groups are written; all methods are compared")
    seeds: str = Field("0..2", description="seeds of the trainings")
    early: int | None = Field(
        None, ge=1, le=MAX_EPOCHS, description="early epoch whose errors count; by default a tenth of the epochs"
    )
    twin_epochs: int | None = Field(
        None, ge=1, le=MAX_EPOCHS, description="epochs of the twins of xrm; by default half of the epochs"
    )
    eiil_steps: int = Field(10_000, ge=1, le=MAX_COUNT, description="gradient steps of eiil")
    max_clusters: int = Field(5, ge=2, le=100, description="maximum number of clusters of a class")


class WordSettings(Settings):
    """Everything that changes which words are found for candidate groups."""

    clip: str = Field(
        "ViT-B-32:laion2b_s34b_b79k",
        description="network of open_clip: a folder with open_clip_config.json and weights, ARCHITECTURE:FILE, or a "
        "name that is downloaded",
    )
    words: Path | None = Field(None, description="file with a word or phrase a line; by default a list of this package")
    permutations: int = Field(999, ge=19, le=100_000, description="number of permutations of the groups")
    seed: int = Field(0, ge=0, le=MAX_SEED, description="seed of the permutations")
