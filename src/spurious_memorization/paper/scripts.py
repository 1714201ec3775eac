"""The work of each of the paper's scripts in one call: a run, or a study of a run with its result files."""

from __future__ import annotations

from pathlib import Path

from ..runs.run import Run
from ..settings import Execution
from ..studies.pipeline import study
from ..studies.settings import StudySettings
from ..training.objectives.pruned_contrast import PrunedContrastSettings
from ..training.settings import TrainExecution, TrainSettings
from ..training.train import train
from .arguments import ChannelStudy, Experiment, Finetuning, Pretraining, ThresholdStudy
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
from .study_settings import channel_study, threshold_study
from .text_files import write_result_files
from .training_settings import fine_tuning_of, training_of


def pretrain(arguments: Pretraining, execution: TrainExecution | None = None) -> Run:
    """Train by ERM into the folder that studies and fine-tuning read. A stopped training continues.

    Raises:
        UserError: the data folder is not given or can't be used, or the run's folder holds other settings.
    """
    base = TrainSettings(model=arguments.experiment_arch)
    settings = training_of(arguments, base, EXPERIMENTS)
    folder = erm_folder(EXPERIMENTS, arguments.experiment_arch, arguments.experiment_dataset)
    return train(arguments.required_data_folder, folder, settings, resume=True, execution=execution)


def fine_tune(arguments: Finetuning, execution: TrainExecution | None = None) -> Run:
    """Fine-tune the network of ERM training with pruning. A stopped training continues.

    Raises:
        UserError: there is no network of ERM training, or the run's folder holds other settings.
    """
    older = _erm_run(arguments, execution)
    research_epoch = STUDIED_EPOCH if arguments.experiment_dataset == "waterbirds" else CELEBA_EPOCH
    start = arguments.weights or f"{older.path}@{stored_epoch(older, research_epoch)}"
    objective = PrunedContrastSettings(fraction=PRUNED_FRACTION)
    base = TrainSettings(model=arguments.experiment_arch, recipe="paper-pruning", objective=objective)
    settings = fine_tuning_of(arguments, base, start, older)
    folder = fine_tuning_folder(EXPERIMENTS, arguments.experiment_arch, arguments.experiment_dataset)
    data = arguments.data_folder or Path(older.record.data.folder)
    return train(data, folder, settings, resume=True, execution=execution)


def study_channels(arguments: ChannelStudy, criterion: str, execution: Execution | None = None) -> list[Path]:
    """Modify the top channels by a criterion, and write the accuracy of every group before and after.

    Arguments:
        arguments: flags of the script.
        criterion: "weight_norm" (the scripts' "largest neuron") or "gradient" ("most activated neuron").
        execution: device, workers, batch size.

    Returns:
        The path of the result file, in a list.

    Raises:
        UserError: there is no network of ERM training, or a setting doesn't fit it.
    """
    run = _erm_run(arguments, execution)
    settings = channel_study(arguments, criterion, stored_epoch(run))
    folder = channel_folder(
        EXPERIMENTS, arguments.experiment_arch, arguments.experiment_dataset, arguments.experiment_split
    )
    return _run_and_write(run, settings, folder, arguments.data_folder, execution)


def study_threshold(arguments: ThresholdStudy, execution: Execution | None = None) -> list[Path]:
    """Modify all weights beyond a threshold, and write the accuracy of every group; see `study_channels`."""
    run = _erm_run(arguments, execution)
    settings = threshold_study(arguments, stored_epoch(run))
    return _run_and_write(run, settings, run.path, arguments.data_folder, execution)


def _run_and_write(
    run: Run, settings: StudySettings, folder: Path, data: Path | None = None, execution: Execution | None = None
) -> list[Path]:
    """Run a study, or read it if it is finished, and write the result files of its first split into a folder."""
    result = study(run, settings, data_folder=data, execution=execution)
    return write_result_files(run, result, settings.split[0], folder)


def _erm_run(arguments: Experiment, execution: Execution | None) -> Run:
    folder = erm_folder(EXPERIMENTS, arguments.experiment_arch, arguments.experiment_dataset)
    return opened_run(folder, arguments.experiment_arch, arguments.data_folder, arguments.image_size, execution)
