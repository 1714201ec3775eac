"""Edits of a run's network: the weights that a rewind or a transplant puts in, and a changed network as a new run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from ..atomic import atomic_folder
from ..datasets.folder import full_path
from ..datasets.samples import Dataset
from ..edits.apply import edited
from ..edits.edit import Edit, EditSpec, parse_edit
from ..edits.tensors import OtherState, tensors_of_edit
from ..errors import UserError
from ..networks.build import NetworkSettings, build
from ..networks.directions import DirectionSettings
from ..networks.names import UnitKind
from ..networks.selection import Selection
from ..networks.units import parse_units
from ..settings import Execution
from .epochs import run_and_epoch
from .evaluate import evaluate_epoch
from .records import versions
from .run import Run


def other_state(run: Run, epoch: int) -> OtherState:
    """A function that returns the state dict that an edit of a run's network puts in: that of an older epoch of the
    run for `rewind`, that of another run for `transplant`.

    The function raises a `UserError` if there is no such checkpoint, or if it belongs to another architecture.
    """

    def state(spec: EditSpec) -> Mapping[str, Tensor]:
        if spec.kind == "transplant":
            return _twin(run, str(spec.parameters["from"]))
        epochs_back = int(spec.parameters["epochs"])
        older = epoch - epochs_back
        if older not in run.epochs():
            raise UserError(
                f"rewind by {epochs_back} epochs from epoch {epoch} needs the checkpoint of epoch {older}, "
                f"which {run.path} doesn't have: rewind by fewer epochs"
            )
        return run.state(older)

    return state


def _twin(run: Run, source: str) -> Mapping[str, Tensor]:
    path, wanted = run_and_epoch(source)
    twin = Run(path)
    epoch = twin.choose_epoch(wanted)
    _check_same_directions(run, twin)
    twin.load(epoch, build(run.record.network), run.record.network.model)  # raises an error if it doesn't fit
    return twin.state(epoch)


def _check_same_directions(run: Run, twin: Run) -> None:
    """Check that the networks of two runs have directions in the same layers."""
    here, there = run.record.network.directions, twin.record.network.directions
    if here != there:
        raise UserError(
            f"edit transplant: {run.place} has {_listed(here)}, but its twin {twin.place} has {_listed(there)}: give "
            "both the same ones with `spurmem directions`, or name two runs without directions"
        )


def _listed(directions: Sequence[DirectionSettings]) -> str:
    """The layers with directions, as "5 directions of width 12 in layer3"."""
    each = (f"{of.n} directions of width {of.width} in {of.layer}" for of in directions)
    return " and ".join(each) or "no directions"


def save_edited(
    run: Run,
    out: str | Path,
    units: str,
    edit: str = "zero",
    *,
    epoch: str = "last",
    unit: UnitKind = "channel",
    seed: int = 0,
    data_folder: Path | None = None,
    execution: Execution | None = None,
) -> Run:
    """Save an edited network as a new run, evaluated on every split.

    Arguments:
        run: the run whose network is edited. This run does not change.
        out: the new run's directory.
        units: the units to edit, such as "layer3.0.conv2:17,layer1.0.conv1:3".
        edit: the edit, such as "zero" or "random_noise:std=0.02".
        epoch: "best", "last" or a number. The checkpoint of the new run has the same number.
        unit: kind of the units.
        seed: seed of the noise.
        data_folder: the run's data folder, if it was moved.
        execution: device, workers, batch size.

    Raises:
        UserError: a unit or the edit doesn't exist, or the new run exists.
    """
    new = Run(out)
    if new.exists:
        raise UserError(f"run {new.place} exists: choose another --out")
    data, number = run.read_data(data_folder), run.choose_epoch(epoch)
    model, spec = run.network(number), parse_edit(edit)
    chosen = parse_units(model, units, Selection(unit=unit))
    put_in = tensors_of_edit(spec, unit, model, data, other_state(run, number))
    change = Edit(spec.kind, chosen, spec.parameters, put_in, seed)
    result = edited(model, change)
    return save_changed(
        run,
        new,
        number,
        result,
        data,
        origin="edit",
        settings={"units": str(chosen), "unit": unit, "edit": str(spec), "seed": seed},
        network=run.record.network,
        data_folder=data_folder,
        execution=execution,
    )


def save_changed(
    run: Run,
    new: Run,
    epoch: int,
    model: nn.Module,
    data: Dataset,
    *,
    origin: Literal["edit", "directions"],
    settings: Mapping[str, Any],
    network: NetworkSettings,
    data_folder: Path | None,
    execution: Execution | None,
) -> Run:
    """Save a changed network as a new run, evaluated on every split.

    Arguments:
        run: whose network was changed.
        new: the new run.
        epoch: of the network.
        model: the changed network.
        data: of the run.
        origin: the command that changed it.
        settings: of that command; the run, its epoch, loss and precision are added.
        network: how to build the changed network.
        data_folder: the run's data folder, if it was moved.
        execution: device, workers, batch size.
    """
    measured_with = {name: run.record.settings[name] for name in ("loss", "precision")}
    folder_now = str(full_path(data_folder or Path(run.record.data.folder)))
    read = run.record.data.model_copy(update={"folder": folder_now, "transform": data.transform})
    record = run.record.model_copy(
        update={
            "origin": origin,
            "data": read,
            "network": network,
            "settings": {**measured_with, "run": run.place, "epoch": epoch, **settings},
            "versions": versions(),
        }
    )
    with atomic_folder(new.path) as folder:
        unfinished = Run(folder)
        unfinished.create(record)
        evaluate_epoch(unfinished, epoch, model, data, **measured_with, execution=execution)
        unfinished.save_network(epoch, model)
    return new
