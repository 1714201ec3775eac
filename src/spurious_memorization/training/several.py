"""Several trainings that don't depend on each other: each is a piece of work, here or on workers."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ..console import labeled
from ..errors import UserError
from ..locks import kept_if_used
from ..runs.run import Run
from ..schedulers.scheduler import Scheduler, announced, workers_for
from .objective import NotApplicableError
from .settings import TrainExecution, TrainingsExecution, TrainSettings
from .train import train


class PlannedTraining(NamedTuple):
    """The directory of a run, and the settings of its training."""

    out: Path
    settings: TrainSettings


TrainAll = Callable[[Sequence[PlannedTraining]], list[Run | NotApplicableError]]
"""Trains networks that don't depend on each other. Gives the run of each, or why its objective can't be applied."""


@contextmanager
def several_trainings(folder: str | Path, out: Path, execution: TrainingsExecution) -> Iterator[TrainAll]:
    """Workers that train networks on one data folder; they end with the block.

    Each worker stores its runs, as `train` does. Runs that are there already are continued.

    Arguments:
        folder: the data folder.
        out: holds all runs.
        execution: of each training, and where the trainings run.

    Yields:
        A function that trains networks. It may be called several times.

    Raises:
        UserError: `out` can't be made; there is no room for a worker; see `workers_on`.
    """
    make = partial(_training, Path(folder), out, execution.of_each)
    with kept_if_used(out), workers_for(execution, make) as workers:
        yield partial(_train_all, workers, out)


def check_shared(folder: Path) -> None:
    """Check that a worker, perhaps on another machine, sees a folder that the main process has made.

    Raises:
        UserError: it does not.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder} is not there on {platform.node()}: workers on other machines store networks themselves, so give "
            "an --out that all machines share"
        )


def _train_all(
    workers: Scheduler[PlannedTraining, NotApplicableError | None], out: Path, planned: Sequence[PlannedTraining]
) -> list[Run | NotApplicableError]:
    found = dict(announced(workers.run(planned), [_name(one, out) for one in planned]))
    return [found[number] or Run(one.out) for number, one in enumerate(planned)]


def _training(
    folder: Path, out: Path, execution: TrainExecution
) -> Callable[[PlannedTraining], NotApplicableError | None]:
    """What a worker holds: a function that trains a network, and gives the reason if its objective can't be applied."""
    check_shared(out)

    def trained(planned: PlannedTraining) -> NotApplicableError | None:
        try:
            with labeled(_name(planned, out)):
                train(folder, planned.out, planned.settings, resume=True, execution=execution)
        except NotApplicableError as error:
            return error
        return None

    return trained


def _name(planned: PlannedTraining, out: Path) -> str:
    """The directory of a run below the folder of all runs."""
    return planned.out.relative_to(out).as_posix()
