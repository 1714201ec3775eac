"""Settings of an import. This module imports no torch and no pandas: the command line uses it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from ..datasets.settings import DataSettings
from ..networks.names import LossName, Precision
from ..settings import MAX_COUNT, MAX_EPOCHS
from .epochs import BestRule


class ImportSettings(DataSettings):
    """How weights that were trained elsewhere become a run.

    Epochs are read from the files' names, such as epoch_40. Without such names they are numbered from 1. The research
    code of You et al. (2025) counts epochs from 0: its epoch_40 is stored as epoch 41.
    """

    model: str = Field(description="a timm name, deit_tiny|small|base|large, or module:factory")
    weights: tuple[Path, ...] = Field(description="a weight file; repeat the flag, one file per epoch")
    epochs: tuple[Annotated[int, Field(ge=0, le=MAX_EPOCHS)], ...] = Field(
        (), description="epoch of each file; by default from the file names, or 1, 2, ..."
    )
    class_map: tuple[Annotated[int, Field(ge=0, le=MAX_COUNT)], ...] = Field(
        (), description="the network's output for each class of the data, in order"
    )
    norm_eps: float | None = Field(
        None,
        gt=0,
        description="epsilon of layer norms; by default 1e-5 for the research code's files, else the network's",
    )
    loss: LossName = Field("cross_entropy", description="loss of a sample")
    precision: Precision = Field("float32", description="float32 or bf16")
    best_by: BestRule = Field("worst_group_accuracy", description="validation rule that chooses --epoch best")
