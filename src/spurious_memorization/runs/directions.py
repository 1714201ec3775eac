"""A run whose network has directions in a layer's output as units."""

from __future__ import annotations

from pathlib import Path

import torch

from ..errors import UserError
from ..networks.directions import DirectionSettings, random_directions, read_directions, with_directions
from ..settings import Execution
from .edited import save_changed
from .run import Run


def save_with_directions(
    run: Run,
    out: str | Path,
    layer: str,
    file: Path,
    *,
    tensor: str | None = None,
    random: int = 0,
    epoch: str = "last",
    seed: int = 0,
    data_folder: Path | None = None,
    execution: Execution | None = None,
) -> Run:
    """Save a run's network with directions as a new run, evaluated on every split. It gives the same answers.

    Arguments:
        run: whose network it is. This run does not change.
        out: the new run's directory.
        layer: in whose output the directions are.
        file: that holds them; see `read_directions`.
        tensor: their name in the file.
        random: number of random directions of the same lengths, which follow those of the file.
        epoch: "best", "last" or a number. The checkpoint of the new run has the same number.
        seed: of the random directions.
        data_folder: the run's data folder, if it was moved.
        execution: device, workers, batch size.

    Raises:
        UserError: as for `read_directions` and `with_directions`; or the new run exists.
    """
    new = Run(out)
    if new.exists:
        raise UserError(f"run {new.place} exists: choose another --out")
    given = read_directions(file, tensor)
    directions = torch.cat([given, random_directions(given, random, seed=seed)])
    number = run.choose_epoch(epoch)
    network = run.record.network
    there = DirectionSettings(layer=layer, n=len(directions), width=directions.shape[1])
    return save_changed(
        run,
        new,
        number,
        with_directions(run.network(number), layer, directions),
        run.read_data(data_folder),
        origin="directions",
        settings={"layer": layer, "file": str(file), "tensor": tensor, "random": random, "seed": seed},
        network=network.model_copy(update={"directions": (*network.directions, there)}),
        data_folder=data_folder,
        execution=execution,
    )
