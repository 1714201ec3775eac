"""The checkpoint of the latest complete epoch, from which a resumed training continues.

Random draws need no stored state: they depend only on seed and epoch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from ..atomic import atomic_write
from ..errors import UserError
from ..networks.weights import StateDict, load_exactly
from ..runs.run import Run
from ..stored_files import BrokenFileError, is_stored, read_torch, reading
from .optimizers import Schedule

REMEDY = "delete it to train again from the first epoch, with --resume"


_STORED = {
    "epoch": int,
    "passes": int,
    "seconds": float,
    "objective": dict,
    "model": dict,
    "optimizer": dict,
    "schedule": dict,
}


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a training has come.

    Arguments:
        epoch: the latest complete one.
        passes: sample passes up to now.
        seconds: of training up to now.
        objective: the state of the objective.
    """

    epoch: int
    passes: int
    seconds: float
    objective: dict[str, Any]


@dataclass(frozen=True, eq=False, kw_only=True)
class Checkpoint:
    """What is stored after every epoch.

    Arguments:
        progress: how far the training has come.
        model, optimizer, schedule: their states.
    """

    progress: Progress
    model: StateDict
    optimizer: dict[str, Any]
    schedule: dict[str, Any]


def store_checkpoint(run: Run, progress: Progress, model: nn.Module, optimizer: Optimizer, schedule: Schedule) -> None:
    """Store the states of all four. The epoch counts as complete as soon as this file exists."""
    state = {
        **vars(progress),
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state(),
    }
    with atomic_write(run.trainer_file) as temporary:
        torch.save(state, temporary)


def read_checkpoint(run: Run) -> Checkpoint | None:
    """The checkpoint of the latest complete epoch. None where there is none.

    Raises:
        UserError: the file is broken.
    """
    if not is_stored(run.trainer_file):
        return None
    state = read_torch(run.trainer_file, REMEDY)
    with reading(run.trainer_file, REMEDY):
        for name, kind in _STORED.items():
            if not isinstance(state.get(name), kind) or (kind is not dict and not 0 <= state[name] < math.inf):
                raise BrokenFileError(f"it has no {name}, or a wrong one")
        progress = Progress(
            epoch=state["epoch"], passes=state["passes"], seconds=state["seconds"], objective=state["objective"]
        )
        return Checkpoint(
            progress=progress, model=state["model"], optimizer=state["optimizer"], schedule=state["schedule"]
        )


def restore_network(run: Run, checkpoint: Checkpoint, model: nn.Module) -> None:
    """Load the weights of the latest complete epoch, and any bias that was added to the network.

    Raises:
        UserError: the file is broken.
    """
    try:
        load_exactly(model, checkpoint.model, "the run's network")
    except UserError as error:
        raise UserError(f"{run.trainer_file}: {error}; or {REMEDY}") from error


def restore_optimizer(run: Run, checkpoint: Checkpoint, optimizer: Optimizer, schedule: Schedule) -> None:
    """Bring optimizer and schedule to the state after the latest complete epoch.

    Raises:
        UserError: the file is broken.
    """
    with reading(run.trainer_file, REMEDY):
        optimizer.load_state_dict(checkpoint.optimizer)
        schedule.load_state(checkpoint.schedule)
