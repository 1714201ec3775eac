"""Edits of a run's network: the weights that a rewind or a transplant puts in, and the edited network as a new run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..atomic import atomic_folder
from ..datasets.folder import full_path
from ..edits.apply import edited
from ..edits.edit import Edit, EditSpec, parse_edit
from ..edits.tensors import OtherState, tensors_of_edit
from ..errors import UserError
from ..networks.build import build
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
    twin.load(epoch, build(run.record.network), run.record.network.model)  # raises an error if it doesn't fit
    return twin.state(epoch)


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
    new = Run(Path(out))
    if new.exists:
        raise UserError(f"run {new.path} exists: choose another --out")
    data, number = run.read_data(data_folder), run.choose_epoch(epoch)
    model, spec = run.network(number), parse_edit(edit)
    chosen = parse_units(model, units, Selection(unit=unit))
    put_in = tensors_of_edit(spec, unit, model, data, other_state(run, number))
    change = Edit(spec.kind, chosen, spec.parameters, put_in, seed)
    result = edited(model, change)
    measured_with = {name: run.record.settings[name] for name in ("loss", "precision")}
    settings: dict[str, Any] = {
        **measured_with,
        "run": str(run.path),
        "epoch": number,
        "units": str(chosen),
        "unit": unit,
        "edit": str(spec),
        "seed": seed,
    }
    folder_now = str(full_path(data_folder or Path(run.record.data.folder)))
    read = run.record.data.model_copy(update={"folder": folder_now, "transform": data.transform})
    changed = {"origin": "edit", "data": read, "settings": settings, "versions": versions()}
    record = run.record.model_copy(update=changed)
    with atomic_folder(new.path) as folder:
        unfinished = Run(folder)
        unfinished.create(record)
        evaluate_epoch(unfinished, number, result, data, **measured_with, execution=execution)
        unfinished.save_network(number, result)
    return new
