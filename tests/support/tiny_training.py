"""Objectives on the tiny images: their settings, and an objective that has begun."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import tiny
import torch

import spurious_memorization as sm
from spurious_memorization.training.objective import Objective, Training, build_objective


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
