"""What the paper's scripts do, each in one call: a run or a study of it, and the result files beside it."""

from __future__ import annotations

from pathlib import Path

from ..reporting.figures.write_figures import draw_figures
from ..reporting.settings import FigureSettings
from ..runs.run import Run
from ..settings import Execution
from ..studies.pipeline import study
from ..studies.settings import StudySettings
from ..training.loop import TrainExecution
from ..training.objectives.settings import PrunedContrastSettings
from ..training.recipes import TrainSettings
from ..training.train import train
from .arguments import ChannelStudy, Experiment, Finetuning, Pretraining, ThresholdStudy, fine_tuning_of
from .folders import (
    CELEBA_EPOCH,
    EXPERIMENTS,
    PRUNED_FRACTION,
    STUDIED_EPOCH,
    channel_folder,
    erm_folder,
    fine_tuning_folder,
    opened_run,
    stored_epoch,
)
from .text_files import write_result_files


def pretrain(arguments: Pretraining, execution: TrainExecution | None = None) -> Run:
    """Train by ERM into the folder that studies and fine-tuning read; a stopped training continues.

    Raises:
        UserError: the data aren't named or usable, or the folder holds a training with other settings.
    """
    folder = erm_folder(EXPERIMENTS, arguments.experiment_arch, arguments.experiment_dataset)
    run = train(arguments.named_data_folder, folder, arguments.training(), resume=True, execution=execution)
    draw_curves(run)
    return run


def fine_tune(arguments: Finetuning, execution: TrainExecution | None = None) -> Run:
    """Fine-tune the network of ERM training with pruning; a stopped training continues.

    Raises:
        UserError: there is no network, or the folder holds a training with other settings.
    """
    older = _network(arguments, execution)
    theirs = STUDIED_EPOCH if arguments.experiment_dataset == "waterbirds" else CELEBA_EPOCH
    start = arguments.weights or f"{older.path}@{stored_epoch(older, theirs)}"
    objective = PrunedContrastSettings(fraction=PRUNED_FRACTION)
    base = TrainSettings(model=arguments.experiment_arch, recipe="paper-pruning", objective=objective)
    settings = fine_tuning_of(arguments, base, start, older)
    folder = fine_tuning_folder(EXPERIMENTS, arguments.experiment_arch, arguments.experiment_dataset)
    data = arguments.data_folder or Path(older.record.data.folder)
    run = train(data, folder, settings, resume=True, execution=execution)
    draw_curves(run)
    return run


def draw_curves(run: Run) -> None:
    """Draw accuracy per group and epoch into the run, as `accuracy.png`."""
    draw_figures("accuracy", [run.path], run.path, FigureSettings(format="png"))


def study_channels(arguments: ChannelStudy, criterion: str, execution: Execution | None = None) -> list[Path]:
    """Modify the network's first channels by a criterion, and write what becomes of every group.

    Arguments:
        criterion: "magnitude" ("largest neuron") or "gradient" ("most activated neuron").

    Returns:
        The result files, one.

    Raises:
        UserError: there is no network, or a setting doesn't fit it.
    """
    run = _network(arguments, execution)
    settings = arguments.study(criterion, stored_epoch(run))
    folder = channel_folder(
        EXPERIMENTS, arguments.experiment_arch, arguments.experiment_dataset, arguments.experiment_split
    )
    return written_study(run, settings, folder, arguments.data_folder, execution)


def study_threshold(arguments: ThresholdStudy, execution: Execution | None = None) -> list[Path]:
    """Modify all weights beyond a threshold, and write what becomes of every group; as `study_channels`."""
    run = _network(arguments, execution)
    settings = arguments.study(stored_epoch(run))
    return written_study(run, settings, run.path, arguments.data_folder, execution)


def written_study(
    run: Run, settings: StudySettings, folder: Path, data: Path | None = None, execution: Execution | None = None
) -> list[Path]:
    """Run a study, or read it where it is finished, and write its result files on its first split into a folder."""
    result = study(run, settings, data_folder=data, execution=execution)
    return write_result_files(run, result, settings.split[0], folder)


def _network(arguments: Experiment, execution: Execution | None) -> Run:
    folder = erm_folder(EXPERIMENTS, arguments.experiment_arch, arguments.experiment_dataset)
    return opened_run(folder, arguments.experiment_arch, arguments.data_folder, arguments.image_size, execution)
