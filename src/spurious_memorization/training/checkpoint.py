"""The trainer's state after the latest whole epoch: what a resumed training starts from.

Random draws need no state: they follow from seed and epoch.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from ..atomic import atomic_write
from ..errors import UserError
from ..networks.weights import load_exactly
from ..runs.run import Run
from .optimizers import Schedule


@dataclass(frozen=True)
class Progress:
    """How far a training has come.

    Arguments:
        epoch: the latest whole one.
        passes: sample passes so far.
        seconds: in training so far.
        objective: its state.
    """

    epoch: int
    passes: int
    seconds: float
    objective: dict[str, Any]


def store_trainer(run: Run, progress: Progress, model: nn.Module, optimizer: Optimizer, schedule: Schedule) -> None:
    """Write network, optimizer, schedule and progress. The epoch counts as whole once this file is there."""
    state = {
        **vars(progress),
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state(),
    }
    with atomic_write(run.trainer_file) as temporary:
        torch.save(state, temporary)


def restore_network(run: Run, model: nn.Module) -> None:
    """Load the latest whole epoch's weights, with any bias that an edit added.

    Raises:
        UserError: the file is broken.
    """
    with _told_if_broken(run):
        load_exactly(model, _read(run)["model"], "the run's network")


def restore_trainer(run: Run, optimizer: Optimizer, schedule: Schedule) -> Progress | None:
    """Take up optimizer and schedule where the latest whole epoch left them.

    Returns:
        The progress until then, None where there is none yet.

    Raises:
        UserError: the file is broken.
    """
    if not run.trainer_file.is_file():
        return None
    with _told_if_broken(run):
        state = _read(run)
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state(state["schedule"])
        return Progress(state["epoch"], state["passes"], state["seconds"], state["objective"])


def _read(run: Run) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(run.trainer_file, map_location="cpu", weights_only=True)
    return state


@contextmanager
def _told_if_broken(run: Run) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise UserError(f"{run.trainer_file} is broken: delete it to train again from the first epoch") from error
