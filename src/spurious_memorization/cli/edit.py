"""`spurmem edit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from ..networks.names import UnitKind
from ..settings import MAX_SEED, Execution
from .app import Answer
from .finished import finished


def edit_command(
    run: Path,
    /,
    *,
    units: str,
    out: Path,
    edit: str = "zero",
    epoch: str = "last",
    unit: UnitKind = "channel",
    seed: Annotated[int, Parameter(validator=Number(gte=0, lte=MAX_SEED))] = 0,
    data: Path | None = None,
    execution: Annotated[Execution | None, Parameter(name="*")] = None,
) -> Answer:
    """Save an edited network as a new run. Every command works on the new run.

    Arguments:
        run: the run whose network is edited; this run does not change
        units: the units to edit, such as layer3.0.conv2:17,layer1.0.conv1:3
        out: the new run's directory
        edit: zero, mean, mean:over=unseen, random_init:std=S, random_noise:std=S, rewind:epochs=N or
            transplant:from=RUN@EPOCH
        epoch: best, last or a number
        unit: kind of the units: channel, head, feature or weight
        seed: seed of the noise
        data: the run's data folder, if it was moved
    """
    from ..runs.edited import save_edited
    from ..runs.run import Run

    new = save_edited(
        Run(run), out, units, edit, epoch=epoch, unit=unit, seed=seed, data_folder=data, execution=execution
    )
    return finished([new])
