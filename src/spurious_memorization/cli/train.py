"""`spurmem train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..training.seeds import seeds_from, with_seed
from ..training.settings import SharedExecution, TrainSettings, with_changes
from .app import Answer
from .finished import finished


def train_command(
    data: Path,
    /,
    *,
    out: Path,
    resume: bool = False,
    seeds: str | None = None,
    settings: Annotated[TrainSettings | None, Parameter(name="*")] = None,
    execution: Annotated[SharedExecution | None, Parameter(name="*")] = None,
) -> Answer | None:
    """Train a network. The network, its predictions and its history are stored after every epoch.

    Arguments:
        data: the data folder
        out: the run's directory
        resume: continue a training that was stopped
        seeds: train with several seeds, such as 0..2, into OUT/seed_0 and so on (--from: its run of the same seed)
    """
    from ..training.shared_training import launched_share
    from ..training.train import train

    settings = settings or TrainSettings()
    if seeds is None:
        runs = [train(data, out, settings, resume=resume, execution=execution)]
    else:
        runs = []
        for seed in seeds_from(seeds):
            runs.append(
                train(data, out / f"seed_{seed}", with_seed(settings, seed), resume=resume, execution=execution)
            )
            if settings.precision == "auto":  # all seeds take what was measured for the first one
                settings = with_changes(settings, precision=runs[0].record.settings["precision"])
    return finished(runs) if launched_share().number == 0 else None
