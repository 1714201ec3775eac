"""Where a training runs: in this process, in several of this machine, or in those that a launcher has started."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from ..console import log
from ..errors import UserError
from ..networks.forward import choose_device
from ..schedulers.at_once import at_once
from ..together import ALONE, Share, working_together
from .settings import SharedExecution, TrainExecution

Training = Callable[[TrainExecution], None]
"""Trains in this process, alone or together with others."""


def run_training(training: Training, execution: TrainExecution) -> None:
    """Run a training where the execution says.

    Arguments:
        training: what each process runs.
        execution: of each process. A `SharedExecution` says in how many. If torchrun or another launcher has started
            this process, it works with the others.

    Raises:
        UserError: there is no such place, or too few GPUs; one of the processes has ended.
    """
    launched, on = launched_share(), execution.on if isinstance(execution, SharedExecution) else "here"
    if on.startswith("ray"):
        raise UserError(f"--on {on}: Ray can't share one training: use processes:N, or torchrun for several machines")
    if on != "here":
        if launched.of > 1:
            raise UserError(f"--on {on}: a launcher has started {launched.of} processes: leave --on out")
        n = int(on.removeprefix("processes:"))
        _own_device(execution, n, 0)
        with tempfile.TemporaryDirectory() as folder:
            at_once(partial(_train_as, training, execution, Path(folder, "meeting").as_uri(), n), n)
    elif launched.of > 1:
        if launched.number == 0:
            log(f"waiting for the other ones of {launched.of} processes; to train alone, unset WORLD_SIZE")
        local, n = (int(os.environ.get(name, 0)) for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
        _together(training, execution, "env://", launched, _own_device(execution, n, local))
    else:
        training(execution)


def launched_share() -> Share:
    """The share of this process if torchrun, or another launcher that sets the same variables, has started several."""
    if not os.environ.keys() >= {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}:
        return ALONE
    return Share(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))


def check_not_launched(what: str) -> None:
    """Check that no launcher has started several processes, for a command that trains many networks.

    Raises:
        UserError: one has. All processes would do the same.
    """
    n = launched_share().of
    if n > 1:
        raise UserError(
            f"a launcher has started {n} processes, and {what} works in one: start it without the launcher, with "
            "--on processes:N, or unset WORLD_SIZE"
        )


def _train_as(training: Training, execution: TrainExecution, meeting: str, n: int, number: int) -> None:
    _together(training, execution, meeting, Share(number, n), _own_device(execution, n, number))


def _together(training: Training, execution: TrainExecution, meeting: str, share: Share, device: torch.device) -> None:
    with working_together(share, meeting, device):
        training(execution.model_copy(update={"device": str(device)}))


def _own_device(execution: TrainExecution, n: int, number: int) -> torch.device:
    """The device of one of n processes of this machine.

    Raises:
        UserError: it has too few GPUs, or the device is one that processes can't share.
    """
    device = choose_device(execution.device)
    if device.type == "cpu":
        return device
    if device.type != "cuda" or ":" in execution.device:
        raise UserError(f"several processes can't train on device {device}: use --device cuda or --device cpu")
    if n > torch.cuda.device_count():
        raise UserError(
            f"{n} processes need as many GPUs, and there are {torch.cuda.device_count()}: start fewer, or use "
            "--device cpu"
        )
    return torch.device("cuda", number)
