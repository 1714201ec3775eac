"""The programs in `scripts/`: the commands of the research code of You et al. (2025), with its flags."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from ..paper.arguments import ChannelStudy, Finetuning, Pretraining, ThresholdStudy
from ..settings import WorkerExecution
from ..training.settings import TrainExecution
from .app import Answer
from .finished import finished

if TYPE_CHECKING:
    from ..runs.run import Run


def pretraining_erm(
    *,
    arguments: Annotated[Pretraining | None, Parameter(name="*")] = None,
    execution: Annotated[TrainExecution | None, Parameter(name="*")] = None,
) -> Answer:
    """Train by ERM into experiments/ARCH_DATASET_group_unbalanced_erm/. Studies and fine-tuning start from there.

    Flags may be written with - or _.
    """
    from ..paper.scripts import pretrain

    return _trained(pretrain(arguments or Pretraining(), execution))


def finetuning_pruning(
    *,
    arguments: Annotated[Finetuning | None, Parameter(name="*")] = None,
    execution: Annotated[TrainExecution | None, Parameter(name="*")] = None,
) -> Answer:
    """Fine-tune the network of ERM training with pruning, into experiments/ARCH_DATASET_group_unbalanced_mag_0.01/.

    Flags may be written with - or _.
    """
    from ..paper.scripts import fine_tune

    return _trained(fine_tune(arguments or Finetuning(), execution))


def largest_neuron(
    *,
    arguments: Annotated[ChannelStudy | None, Parameter(name="*")] = None,
    execution: Annotated[WorkerExecution | None, Parameter(name="*")] = None,
) -> Answer:
    """Modify the channels with the largest weights, and write the accuracy of every group before and after.

    Flags may be written with - or _.
    """
    from ..paper.scripts import study_channels

    return _written(study_channels(arguments or ChannelStudy(), "weight_norm", execution))


def most_activated_neuron(
    *,
    arguments: Annotated[ChannelStudy | None, Parameter(name="*")] = None,
    execution: Annotated[WorkerExecution | None, Parameter(name="*")] = None,
) -> Answer:
    """Modify the channels with the largest gradients on each group's hardest samples, and write the accuracy of every
    group before and after.

    Flags may be written with - or _.
    """
    from ..paper.scripts import study_channels

    return _written(study_channels(arguments or ChannelStudy(), "gradient", execution))


def largest_neuron_by_threshold(
    *,
    arguments: Annotated[ThresholdStudy | None, Parameter(name="*")] = None,
    execution: Annotated[WorkerExecution | None, Parameter(name="*")] = None,
) -> Answer:
    """Modify all weights beyond a threshold, and write the accuracy of every group before and after.

    Flags may be written with - or _.
    """
    from ..paper.scripts import study_threshold

    return _written(study_threshold(arguments or ThresholdStudy(), execution))


def _trained(run: Run) -> Answer:
    """The answer of a training. Accuracy per group and epoch is drawn into the run, as `accuracy.png`."""
    from ..reporting.figures.write_figures import draw_figures
    from ..reporting.settings import FigureSettings

    draw_figures("accuracy", [run.path], run.path, FigureSettings(format="png"))
    return finished([run])


def _written(files: list[Path]) -> Answer:
    text = [f"{file}\n{file.read_text(encoding='utf-8')}" for file in files]
    return Answer(text, {"files": [str(file) for file in files]})
