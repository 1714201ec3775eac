"""Reproduce a study of the paper in one call: train, run the grid, and compute the drops."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..datasets.synthbirds.make import make_synthbirds
from ..errors import UserError
from ..runs.run import Run
from ..studies.pipeline import study
from ..studies.settings import StudySettings
from ..studies.study import Study
from ..training.settings import TrainExecution, TrainingsExecution
from ..training.train import train
from .folders import (
    EXPERIMENTS,
    channel_folder,
    erm_folder,
    fine_tuning_folder,
    opened_run,
    research_checkpoints,
    stored_epoch,
)
from .grids import Grid, read_grid, read_scale
from .settings import ReproduceSettings
from .text_files import file_name, read_result, write_result_files
from .training_settings import fine_tuning_of, training_of

MIXED_SPLITS = ("train", "test")
"""Splits of the wrong comparison: accuracy before on the first, accuracy after on the second."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Reproduction:
    """A reproduced study.

    Arguments:
        grid: the grid that was run.
        run: run of the studied network.
        epoch: epoch of the run that was studied.
        rows: one row per result file, selected set and group: split, kind, parameters, size, criterion, traced_on,
            group, group_name, minority, n, before, after (mean over repeats), drop (before minus after), low and high
            (95 % interval of the drop), repeats, file. Accuracies and drops are read from the file.
        mixed: the wrong comparison, accuracy before on train with accuracy after on test, with both splits' own
            values for the same selected sets; None if it was not requested.
        studies: the studies of the run.
        fine_tuned: run of fine-tuning; None if the grid has no fine-tuning.
    """

    grid: Grid
    run: Run
    epoch: int
    rows: pd.DataFrame
    mixed: pd.DataFrame | None
    studies: tuple[Study, ...]
    fine_tuned: Run | None


def reproduce(
    name: str,
    data: str | Path | None = None,
    out: str | Path | None = None,
    settings: ReproduceSettings | None = None,
    *,
    execution: TrainingsExecution | None = None,
) -> Reproduction:
    """Reproduce one study of the paper on one data set with one network.

    If the call is stopped, the same call continues.

    Arguments:
        name: name of the grid, such as "waterbirds-resnet50-largest-channel".
        data: folder of the data set. At a smaller scale, images are generated if it is not given.
        out: folder of runs and result files; `experiments/` or `experiments/SCALE/` if not given.
        settings: scale, edits, splits, controls, and changes to the grid's training settings.
        execution: device, workers, batch size, and where studies measure their blocks.

    Raises:
        UserError: there is no such study, the data folder is not given, or a run in `out` has other settings.

    Example:
        ```python
        made = sm.reproduce("waterbirds-resnet50-largest-channel", settings=sm.ReproduceSettings(scale="tiny"))
        made.rows[["kind", "size", "group_name", "drop"]]
        ```
    """
    settings, execution = settings or ReproduceSettings(), execution or TrainingsExecution()
    scale = read_scale(settings.scale)
    out = Path(out) if out is not None else EXPERIMENTS / settings.scale if scale else EXPERIMENTS
    grid = read_grid(name).only(settings.mode, settings.split)
    grid = scale.apply_to(grid) if scale else grid
    if data is None and scale is None:
        raise UserError(f"{name} needs {grid.dataset}: name its folder with --data, or try --scale small")
    folder = Path(data) if data is not None else out / "synthbirds"
    if data is None and scale is not None:
        make_synthbirds(folder, scale.images)
    run = _trained(grid, folder, out, settings, execution.of_each)
    epoch = stored_epoch(run, grid.epoch) if scale is None else run.choose_epoch("last")
    rows: list[dict[str, Any]] = []
    mixed, studies = [], []
    for of_grid in grid.studies:
        study_settings = _adjusted(of_grid, epoch, settings)
        split = study_settings.split[0]
        is_channels = study_settings.unit != "weight"
        place = channel_folder(out, grid.training.model, grid.dataset, split) if is_channels else run.path
        result = study(run, study_settings, data_folder=folder, execution=execution)
        write_result_files(run, result, split, place)
        rows += _rows(result, split, place)
        studies.append(result)
        if study_settings.split == MIXED_SPLITS:
            mixed.append(_mixed(result.effects()))
    fine_tuned = None
    if grid.fine_tuning is not None:
        tuning = fine_tuning_of(settings, grid.fine_tuning, f"{run.path}@{epoch}", run)
        place = fine_tuning_folder(out, tuning.model, grid.dataset)
        fine_tuned = train(folder, place, tuning, resume=True, execution=execution.of_each)
    across = pd.concat(mixed, ignore_index=True) if mixed else None
    return Reproduction(
        grid=grid,
        run=run,
        epoch=epoch,
        rows=pd.DataFrame(rows),
        mixed=across,
        studies=tuple(studies),
        fine_tuned=fine_tuned,
    )


def _trained(grid: Grid, data: Path, out: Path, settings: ReproduceSettings, execution: TrainExecution) -> Run:
    """The network's run: an imported one if the folder holds it, else one trained with the grid's settings."""
    folder = erm_folder(out, grid.training.model, grid.dataset)
    run = Run(folder)
    if research_checkpoints(folder) or (run.exists and run.record.origin != "train"):
        return opened_run(folder, grid.training.model, data, settings.image_size, execution)
    return train(data, folder, training_of(settings, grid.training, out), resume=True, execution=execution)


def _adjusted(of_grid: StudySettings, epoch: int, settings: ReproduceSettings) -> StudySettings:
    """Settings of a study of the grid, with the epoch and the user's changes."""
    across = settings.compare_across_splits and of_grid.split == MIXED_SPLITS[:1]
    changes = {
        "epoch": str(epoch),
        "split": MIXED_SPLITS if across else of_grid.split,
        "controls": settings.controls,
        "cross_fit": settings.controls > 0,
        "seed": of_grid.seed if settings.seed is None else settings.seed,
    }
    return of_grid.model_copy(update=changes)


def _rows(result: Study, split: str, place: Path) -> Iterator[dict[str, Any]]:
    """The rows of `Reproduction.rows` for one study: values of its result files, and intervals of its effects."""
    effects, settings = result.effects(), result.record["settings"]
    effects = effects[effects["split"] == split]
    for (kind, parameters, size), chosen in effects.groupby(["kind", "parameters", "size"], sort=False):
        file = place / file_name(settings, kind, parameters, size)
        content = read_result(file)
        sets = chosen.groupby("selected_set", sort=False)
        for modified, drops, (_, of_set) in zip(content.modified, content.drops(), sets, strict=True):
            for row in of_set.itertuples():
                yield {
                    "split": split,
                    "kind": kind,
                    "parameters": parameters,
                    "size": size,
                    "criterion": row.criterion,
                    "traced_on": row.traced_on,
                    "group": row.group,
                    "group_name": row.group_name,
                    "minority": row.minority,
                    "n": row.n,
                    "before": content.before[row.group],
                    "after": content.before[row.group] - drops[row.group],
                    "drop": drops[row.group],
                    "low": -row.high,
                    "high": -row.low,
                    "repeats": len(modified.after),
                    "file": str(file),
                }


def _mixed(effects: pd.DataFrame) -> pd.DataFrame:
    """The wrong comparison: accuracy before on train with accuracy after on test.

    It mixes the difference between the splits with the effect of the edit.

    Returns:
        One row per selected set and group: the columns that identify them, train_before, train_after, test_before,
        test_after, drop (train_before minus test_after) and gap (train_before minus test_before).
    """
    keys = ["selected_set", "criterion", "traced_on", "kind", "parameters", "size", "group", "group_name", "minority"]
    values = ["accuracy_before", "accuracy_after"]
    train, test = (effects[effects["split"] == split].set_index(keys)[values] for split in MIXED_SPLITS)
    both = train.set_axis(["train_before", "train_after"], axis=1).join(
        test.set_axis(["test_before", "test_after"], axis=1)
    )
    both["drop"] = both["train_before"] - both["test_after"]
    both["gap"] = both["train_before"] - both["test_before"]
    return both.reset_index()
