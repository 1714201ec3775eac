"""The programs in `scripts/`: the commands of the research code of You et al. (2025), under its flags."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..paper.arguments import ChannelStudy, Finetuning, Pretraining, ThresholdStudy
from ..paper.scripts import fine_tune, pretrain, study_channels, study_threshold
from ..settings import Execution
from ..training.settings import TrainExecution
from .app import Answer
from .train import finished


def pretraining_erm(
    *,
    arguments: Annotated[Pretraining | None, Parameter(name="*")] = None,
    execution: Annotated[TrainExecution | None, Parameter(name="*")] = None,
) -> Answer:
    """Train by ERM into experiments/ARCH_DATASET_group_unbalanced_erm/, which studies and fine-tuning read.

    Flags may be written with - or _.
    """
    return finished([pretrain(arguments or Pretraining(), execution)])


def finetuning_pruning(
    *,
    arguments: Annotated[Finetuning | None, Parameter(name="*")] = None,
    execution: Annotated[TrainExecution | None, Parameter(name="*")] = None,
) -> Answer:
    """Fine-tune with pruning, from the ERM training into experiments/ARCH_DATASET_group_unbalanced_mag_0.01/.

    Flags may be written with - or _.
    """
    return finished([fine_tune(arguments or Finetuning(), execution)])


def largest_neuron(
    *,
    arguments: Annotated[ChannelStudy | None, Parameter(name="*")] = None,
    execution: Annotated[Execution | None, Parameter(name="*")] = None,
) -> Answer:
    """Modify the channels with the largest weights, and write the accuracy of every group before and after.

    Flags may be written with - or _.
    """
    return _written(study_channels(arguments or ChannelStudy(), "weight_norm", execution))


def most_activated_neuron(
    *,
    arguments: Annotated[ChannelStudy | None, Parameter(name="*")] = None,
    execution: Annotated[Execution | None, Parameter(name="*")] = None,
) -> Answer:
    """Modify the channels with the largest gradients on each group's hardest samples, and write the accuracy of every
    group before and after.

    Flags may be written with - or _.
    """
    return _written(study_channels(arguments or ChannelStudy(), "gradient", execution))


def largest_neuron_by_threshold(
    *,
    arguments: Annotated[ThresholdStudy | None, Parameter(name="*")] = None,
    execution: Annotated[Execution | None, Parameter(name="*")] = None,
) -> Answer:
    """Modify all weights beyond a threshold, and write the accuracy of every group before and after.

    Flags may be written with - or _.
    """
    return _written(study_threshold(arguments or ThresholdStudy(), execution))


def _written(files: list[Path]) -> Answer:
    text = [f"{file}\n{file.read_text(encoding='utf-8')}" for file in files]
    return Answer(text, {"files": [str(file) for file in files]})
