"""What `run.json` holds, and how the settings of two runs are compared."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ..datasets.candidate_groups import ATYPICAL, TYPICAL
from ..datasets.folder import full_path
from ..datasets.groups import Groups
from ..datasets.samples import Dataset
from ..datasets.settings import DataSettings
from ..datasets.sources import Noun, noun_of
from ..datasets.texts import Tokenization
from ..datasets.transforms import ImageTransform
from ..errors import UserError
from ..networks.build import NetworkSettings
from ..networks.weights import WeightFile
from ..settings import Settings
from .epochs import BestRule

_PACKAGES = ("spurious-memorization", "torch", "torchvision", "timm", "numpy", "pandas", "pillow")


class DataRecord(Settings):
    """What a run remembers of its data.

    Arguments:
        folder: where the data were.
        settings: how they were read.
        transform: from image or text to input.
        fingerprint: of the table and the files.
        classes, attributes: names, in order.
        group_name: template of the groups' names.
        minority: names of the minority groups.
        merged: names of the attribute values that were too small and became one value.
    """

    folder: str
    settings: DataSettings
    transform: ImageTransform | Tokenization
    fingerprint: str
    classes: tuple[str, ...]
    attributes: tuple[str, ...]
    group_name: str
    minority: tuple[str, ...]
    merged: tuple[str, ...] = ()

    @property
    def groups(self) -> Groups:
        return Groups(self.classes, self.attributes, self.group_name)

    @property
    def noun(self) -> Noun:
        """What sentences call a sample: "image" or "text"."""
        return noun_of(self.transform)

    @property
    def candidate_table(self) -> str | None:
        """The table of `spurmem discover` that the groups are from; None if the groups were given.

        A table whose values are no longer "typical" and "atypical" was named by a person.
        """
        table = self.settings.attribute
        is_table = table is not None and table.endswith((".csv", ".parquet"))
        return table if is_table and {TYPICAL, ATYPICAL} & set(self.attributes) else None


class StartRecord(Settings):
    """The network that a training started from.

    Arguments:
        run: directory of its run, as the user wrote it.
        epoch: its epoch in that run.
    """

    run: str
    epoch: int


class TrainingCost(Settings):
    """What a training has cost so far.

    Arguments:
        sample_passes: each sample that goes forward and backward through the network once counts as one.
        seconds: time in training, without measuring and storing.
        sample_passes_before, seconds_before: cost of the other runs that this training needed: the run that it started
            from, or the run whose errors it uses. None if unknown.
    """

    sample_passes: int = 0
    seconds: float = 0.0
    sample_passes_before: int | None = 0
    seconds_before: float | None = 0.0


class RunRecord(Settings):
    """The content of `run.json`.

    Arguments:
        origin: the command that made the run: "train", "import", "edit" or "directions".
        data: the data that were read.
        network: how to build the network.
        settings: of the command that made the run, with every default filled in.
        best_by: the validation rule that chooses the epoch for `--epoch best`.
        versions: of Python and of the packages.
        start: the network of another run that a training started from.
        training_cost: what the training has cost so far.
        weights: what was decided about the weight files that were read.
        trained_start: whether a training started from a network whose head was trained too, not drawn at random.
    """

    origin: Literal["train", "import", "edit", "directions"]
    data: DataRecord
    network: NetworkSettings
    settings: dict[str, Any]
    best_by: BestRule
    versions: dict[str, str]
    start: StartRecord | None = None
    training_cost: TrainingCost | None = None
    weights: tuple[WeightFile, ...] = ()
    trained_start: bool = False

    @property
    def epoch_0_is_trained(self) -> bool:
        """Whether the network of epoch 0, if there is one, has learned its classes."""
        return self.origin != "train" or self.trained_start


def data_record(data: Dataset, folder: Path, settings: DataSettings) -> DataRecord:
    """The record of these data for `run.json`.

    Raises:
        UserError: the data are neither images nor texts, or have no transform yet.
    """
    if data.transform is None:
        raise UserError("a run needs images or texts with a transform: use the Python functions for tensors")
    return DataRecord(
        folder=str(full_path(folder)),
        settings=DataSettings(**{name: getattr(settings, name) for name in DataSettings.model_fields}),
        transform=data.transform,
        fingerprint=data.fingerprint(),
        classes=data.groups.classes,
        attributes=data.groups.attributes,
        group_name=data.groups.template,
        minority=tuple(data.groups.names[g] for g in data.minority),
        merged=data.merged,
    )


SETTINGS_NAMED = 3


def check_same_settings(stored: Mapping[str, Any], wanted: Mapping[str, Any], what: str) -> None:
    """Compare two blocks of settings.

    Arguments:
        stored: settings that were stored earlier.
        wanted: settings of the present call.
        what: name of the thing that has them, for the error message.

    Raises:
        UserError: a setting differs. The message names the first such settings and both values of each. What follows
            from settings, such as the names of groups, is named only if all settings are the same.
    """
    before, now = _flat(stored), _flat(wanted)
    differing = [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]
    named = [name for name in differing if "settings." in name] or differing
    if named:
        values = "; ".join(f"{name} = {before.get(name)!r}, not {now.get(name)!r}" for name in named[:SETTINGS_NAMED])
        raise UserError(f"{what} was made with {values}: use the same settings, or choose another place")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in _PACKAGES}}


def comparable_settings(record: RunRecord) -> dict[str, Any]:
    """The part of a record that must stay the same when a run is continued."""
    compared: dict[str, Any] = json.loads(
        record.model_dump_json(exclude={"versions": True, "training_cost": True, "data": {"folder"}})
    )
    return compared


def _flat(block: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in block.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat
