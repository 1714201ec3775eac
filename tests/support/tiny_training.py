"""Objectives on the tiny images: their settings, and an objective that has begun."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import tiny
import torch

import spurious_memorization as sm
from spurious_memorization.training.objective import Objective, Training, build_objective

TRAIN_ALL_LAYERS = (
    "reweighting",
    "balanced-sampling",
    "subsampling",
    "group-dro:step=0.5",
    "jtt",
    "mixup",
    "lisa",
    "weight-averaging:first=2",
    "example-tied-dropout",
)
"""Objectives that start with any network, in small settings."""

FIT_HEADS = (
    "afr:fit_on=val,sharpness=4",
    "self:early=1,n=4,lrs=0.1",
    "dfr:draws=2",
    "dpe:members=2,member_epochs=2",
    "neuron-tune:threshold=0.05,lrs=0.1,steps=10",
    "eva:shares=0.5,lrs=0.1,steps=10",
    "prune-critical:n=2",
)
"""Objectives that fit a new head to a trained network, in small settings."""


def settings(objective: str, **changes: Any) -> sm.TrainSettings:
    return sm.TrainSettings(**{**tiny.QUICK, "objective": objective, **changes})


def begun(objective: str, data: sm.Dataset, model: torch.nn.Module, run: sm.Run, **changes: Any) -> Objective[Any]:
    """An objective on some data and a network. The run holds predictions."""
    config = settings(objective, **changes)
    training = Training(run=run, config=config, data=data, measured=data, model=model, execution=sm.TrainExecution())
    found = build_objective(training)
    found.begin()
    return found


def batches(data: sm.Dataset, size: int = 8) -> list[sm.Batch]:
    return list(data.train.shuffled(0, 1).batches(size))


def without_group(squares: Path, folder: Path, split: str) -> Path:
    """The images without those of the last group in a split."""
    table = pd.read_csv(squares / "metadata.csv")
    gone = (table["y"] == 1) & (table["a"] == 1) & (table["split"] == split)
    folder.mkdir()
    for file in squares.iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "metadata.csv").unlink()
    table[~gone].to_csv(folder / "metadata.csv", index=False)
    return folder
