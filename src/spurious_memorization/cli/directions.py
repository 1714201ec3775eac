"""`spurmem directions`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from ..settings import MAX_COUNT, MAX_SEED, Execution
from .app import Answer
from .finished import finished


def directions_command(
    run: Path,
    /,
    *,
    layer: str,
    file: Path,
    out: Path,
    tensor: str | None = None,
    random: Annotated[int, Parameter(validator=Number(gte=0, lte=MAX_COUNT))] = 0,
    epoch: str = "last",
    seed: Annotated[int, Parameter(validator=Number(gte=0, lte=MAX_SEED))] = 0,
    data: Path | None = None,
    execution: Annotated[Execution | None, Parameter(name="*")] = None,
) -> Answer:
    """Save a network with directions in a layer's output as units, such as the features of a sparse autoencoder.

    Arguments:
        run: the run whose network gets directions; this run does not change
        layer: the layer in whose output they are, such as blocks.5
        file: a safetensors file with a matrix of shape [directions, width]
        out: the new run's directory
        tensor: name of the matrix, if the file holds several
        random: add this number of random directions of the same lengths, behind those of the file
        epoch: best, last or a number
        seed: seed of the random directions
        data: the run's data folder, if it was moved
    """
    from ..runs.directions import save_with_directions
    from ..runs.run import Run

    new = save_with_directions(
        Run(run),
        out,
        layer,
        file,
        tensor=tensor,
        random=random,
        epoch=epoch,
        seed=seed,
        data_folder=data,
        execution=execution,
    )
    return finished([new])
