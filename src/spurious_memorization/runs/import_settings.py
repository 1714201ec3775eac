"""Settings of an import. This module imports no torch and no pandas: the command line uses it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from ..datasets.settings import DataSettings
from ..networks.names import LossName, Precision, WeightFormat
from ..settings import MAX_EPOCHS
from .epochs import BestRule

Epoch = Annotated[int, Field(ge=0, le=MAX_EPOCHS)]


class ImportSettings(DataSettings):
    """How weights that were trained elsewhere become a run.

    Epochs are read from the numbers in the files' names. The research code of You et al. (2025) counts epochs from 0:
    its epoch_40 is stored as epoch 41.
    """

    model: str = Field(
        description="a timm name, deit_tiny|small|base|large, hf:PATH, open_clip:NAME, or module:factory"
    )
    weights: tuple[Path, ...] = Field(description="a weight file; repeat the flag, one file per epoch")
    epochs: tuple[Epoch, ...] = Field((), description="epoch of each file; by default the number in its name")
    weight_key: str | None = Field(
        None, description="entry of a checkpoint that holds the state dict, such as state_dict_ema"
    )
    weight_format: WeightFormat = Field(
        "auto", description="auto, plain, or research: a file of the research code of You et al. (2025)"
    )
    head: tuple[str, ...] = Field((), description="layer that gives the logits; by default found by tracing")
    class_map: tuple[int, ...] = Field((), description="the network's output for each class of the data, in order")
    norm_eps: float | None = Field(
        None,
        gt=0,
        description="epsilon of layer norms; by default 1e-5 for the research code's files, else the network's",
    )
    loss: LossName = Field("cross_entropy", description="loss of a sample")
    precision: Precision = Field("float32", description="float32 or bf16")
    best_by: BestRule = Field("worst_group_accuracy", description="validation rule that chooses --epoch best")
