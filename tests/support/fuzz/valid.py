"""Valid inputs, of which the odd ones are changed copies."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import tiny
import torch

import spurious_memorization as sm


@dataclass(frozen=True)
class Valid:
    """Valid inputs: a data folder, a run with a study, and a weight file. They stay as they are."""

    data: Path
    run: Path
    weights: Path


def make_valid(folder: Path) -> Valid:
    """Make valid inputs in a new folder."""
    data = tiny.make_images(folder / "data", train=10)
    run = sm.train(data, folder / "run", sm.TrainSettings(**{**tiny.QUICK, "epochs": 2}))
    tiny.studied(run)
    torch.save(run.state(2), folder / "weights.pth")
    return Valid(data, run.path, folder / "weights.pth")


def with_odd_files(folder: Path) -> None:
    """Things that are no regular files: a pipe, a device without end, a link to itself, an empty folder."""
    os.mkfifo(folder / "pipe")
    (folder / "zero").symlink_to("/dev/zero")
    (folder / "loop").symlink_to("loop")
    (folder / "nothing").mkdir()
    (folder / "empty").touch()


def copy_data(valid: Valid, folder: Path) -> Path:
    """A copy of the data folder."""
    return Path(shutil.copytree(valid.data, folder / "data"))


def copy_run(valid: Valid, folder: Path, name: str = "run") -> Path:
    """A copy of the run."""
    return Path(shutil.copytree(valid.run, folder / name, ignore=shutil.ignore_patterns("*.lock")))
