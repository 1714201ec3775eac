"""`spurmem edit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..networks.names import UnitKind
from ..runs.edited import save_edited
from ..runs.run import Run
from ..settings import Execution
from .app import Answer
from .train import finished


def edit_command(
    run: Path,
    /,
    *,
    units: str,
    out: Path,
    edit: str = "zero",
    epoch: str = "last",
    unit: UnitKind = "channel",
    seed: int = 0,
    data: Path | None = None,
    execution: Annotated[Execution | None, Parameter(name="*")] = None,
) -> Answer:
    """Save an edited network as a run of its own, on which every command works.

    Arguments:
        run: whose network is edited; it stays as it is
        units: such as layer3.0.conv2:17,layer1.0.conv1:3
        out: the new run's directory
        edit: zero, mean, random_init:std=S, random_noise:std=S or rewind:epochs=N
        epoch: best, last or a number
        unit: channel, head or weight
        seed: of the noise
        data: where the run's data are now, if they were moved
    """
    new = save_edited(
        Run(run), out, units, edit, epoch=epoch, unit=unit, seed=seed, data_folder=data, execution=execution
    )
    return finished([new])
