"""A study of the paper in one call: train what is missing, run, average the repeats, subtract."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import Field

from ..datasets.synthbirds.make import make_synthbirds
from ..errors import UserError
from ..runs.run import Run
from ..settings import Settings
from ..studies.pipeline import study
from ..studies.settings import StudySettings, Words
from ..studies.study import Study
from ..training.loop import TrainExecution
from ..training.recipes import Recipe
from ..training.train import train
from .arguments import fine_tuning_of, training_of
from .folders import (
    EXPERIMENTS,
    channel_folder,
    erm_folder,
    fine_tuning_folder,
    opened_run,
    research_checkpoints,
    stored_epoch,
)
from .grids import Grid, ScaleName, read_grid, read_scale
from .text_files import file_name, read_result, write_result_files

MIXED_SPLITS = ("train", "test")


class ReproduceSettings(Settings):
    """What of a grid is run, at which scale, and what a training is given in place of the grid's settings."""

    scale: ScaleName = Field("full", description="full; or small or tiny, on generated images")
    mode: Words = Field((), description="only these edits: zero, random_init, random_noise, rewind; all if not given")
    split: Words = Field((), description="only these splits: train, test; all if not given")
    controls: int = Field(
        0, ge=0, description="matched random controls of each ranking, for verdicts; the paper has none"
    )
    compare_across_splits: bool = Field(
        False, description="show, as wrong, accuracy before on train against after on test"
    )
    recipe: Recipe | None = Field(None, description="of ERM training, in place of paper-script: paper-readme")
    epochs: int | None = Field(None, ge=0, description="of ERM training, in place of the recipe's")
    weights: str | None = Field(None, description="starting weights: none, timm or a file, in place of the recipe's")
    image_size: int | None = Field(None, ge=1, description="side of the input in pixels")
    seed: int | None = Field(None, ge=0, description="of training and every draw")


@dataclass(frozen=True, eq=False)
class Reproduction:
    """What was reproduced.

    Arguments:
        grid: as it was run.
        run: the network's.
        epoch: of it that was studied.
        rows: one row a result file, group that channels were selected on, and group: split, kind, parameters, size,
            criterion, traced_on, group, group_name, minority, n, before, after (mean over repeats), drop (before minus
            after), low, high (its 95 % interval), repeats, file. Accuracies and drops are those of the file's lines.
        mixed: accuracy of the same selected sets before on train and after on test, beside each split with itself;
            None if not asked for.
        studies: of the run.
        fine_tuned: the run of fine-tuning; None where there is none.
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
    execution: TrainExecution | None = None,
) -> Reproduction:
    """Reproduce one study of the paper on one data set with one network. A stopped call continues where it was.

    Arguments:
        name: of the study's settings file, such as "waterbirds-resnet50-largest-channel".
        data: folder of the data set; at a smaller scale images are drawn if it isn't given.
        out: folder of runs and result files; `experiments/`, or `experiments/SCALE/`, if not given.
        settings: scale, edits, splits, controls, and what training is given in place of the grid's settings.
        execution: device, workers, batch size.

    Raises:
        UserError: there is no such study, the data aren't named, a run there has other settings.

    Example:
        ```python
        made = sm.reproduce("waterbirds-resnet50-largest-channel", settings=sm.ReproduceSettings(scale="tiny"))
        made.rows[["kind", "size", "group_name", "drop"]]
        ```
    """
    settings, execution = settings or ReproduceSettings(), execution or TrainExecution()
    scale = read_scale(settings.scale)
    out = Path(out) if out is not None else EXPERIMENTS / settings.scale if scale else EXPERIMENTS
    grid = read_grid(name).only(settings.mode, settings.split)
    grid = scale.of(grid) if scale else grid
    if data is None and scale is None:
        raise UserError(f"{name} needs {grid.dataset}: name its folder with --data, or try --scale small")
    folder = Path(data) if data is not None else out / "synthbirds"
    if data is None and scale is not None:
        make_synthbirds(folder, scale.images)
    run = _trained(grid, folder, out, settings, execution)
    epoch = stored_epoch(run, grid.epoch) if scale is None else run.choose_epoch("last")
    rows: list[dict[str, Any]] = []
    mixed, studies = [], []
    for stated in grid.studies:
        wanted = _wanted(stated, epoch, settings)
        split = wanted.split[0]
        place = run.path if wanted.unit == "weight" else channel_folder(out, grid.training.model, grid.dataset, split)
        result = study(run, wanted, data_folder=folder, execution=execution)
        write_result_files(run, result, split, place)
        rows += _rows(result, split, place)
        studies.append(result)
        if wanted.split == MIXED_SPLITS:
            mixed.append(_mixed(result.effects()))
    fine_tuned = None
    if grid.fine_tuning is not None:
        tuning = fine_tuning_of(settings, grid.fine_tuning, f"{run.path}@{epoch}", run)
        place = fine_tuning_folder(out, tuning.model, grid.dataset)
        fine_tuned = train(folder, place, tuning, resume=True, execution=execution)
    across = pd.concat(mixed, ignore_index=True) if mixed else None
    return Reproduction(grid, run, epoch, pd.DataFrame(rows), across, tuple(studies), fine_tuned)


def _trained(grid: Grid, data: Path, out: Path, settings: ReproduceSettings, execution: TrainExecution) -> Run:
    """The network's run: trained with the grid's settings, or brought in from elsewhere."""
    folder = erm_folder(out, grid.training.model, grid.dataset)
    run = Run(folder)
    if research_checkpoints(folder) or (run.exists and run.record.origin != "train"):
        return opened_run(folder, grid.training.model, data, settings.image_size, execution)
    return train(data, folder, training_of(settings, grid.training, out), resume=True, execution=execution)


def _wanted(stated: StudySettings, epoch: int, settings: ReproduceSettings) -> StudySettings:
    """A study of the grid, of this epoch, with what a user adds."""
    across = settings.compare_across_splits and stated.split == MIXED_SPLITS[:1]
    changes = {
        "epoch": str(epoch),
        "split": MIXED_SPLITS if across else stated.split,
        "controls": settings.controls,
        "cross_fit": settings.controls > 0,
        "seed": stated.seed if settings.seed is None else settings.seed,
    }
    return stated.model_copy(update=changes)


def _rows(result: Study, split: str, place: Path) -> Iterator[dict[str, Any]]:
    """The rows of `Reproduction.rows` of one study: lines of its result files, beside the intervals of its effects."""
    effects, stated = result.effects(), result.record["settings"]
    effects = effects[effects["split"] == split]
    for (kind, parameters, size), chosen in effects.groupby(["kind", "parameters", "size"], sort=False):
        file = place / file_name(stated, kind, parameters, size)
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
    """Accuracy before on train against after on test, which mixes what differs between the splits with what the edit
    does: the columns of a selected set and group, train_before, train_after, test_before, test_after, drop (before on
    train minus after on test), gap (before on train minus before on test)."""
    keys = ["selected_set", "criterion", "traced_on", "kind", "parameters", "size", "group", "group_name", "minority"]
    values = ["accuracy_before", "accuracy_after"]
    train, test = (effects[effects["split"] == split].set_index(keys)[values] for split in MIXED_SPLITS)
    both = train.set_axis(["train_before", "train_after"], axis=1).join(
        test.set_axis(["test_before", "test_after"], axis=1)
    )
    both["drop"] = both["train_before"] - both["test_after"]
    both["gap"] = both["train_before"] - both["test_before"]
    return both.reset_index()
