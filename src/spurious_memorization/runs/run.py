"""A run: a directory that holds everything about one network, and what was measured on it."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import filelock
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from torch import nn

from ..atomic import atomic_write, write_text
from ..datasets.folder import read_data
from ..datasets.groups import Groups
from ..datasets.samples import Dataset
from ..datasets.sources import Images
from ..datasets.transforms import ImageTransform
from ..errors import UserError
from ..networks.build import NetworkSettings, build
from ..networks.weights import StateDict, load_exactly, read_state, save_state
from ..settings import Settings

HISTORY_COLUMNS = ("epoch", "split", "group", "n", "correct", "loss")
BestRule = Literal["worst_group_accuracy", "average", "average_group_balanced", "loss"]

_PACKAGES = ("spurious-memorization", "torch", "torchvision", "timm", "numpy", "pandas", "pillow")


class DataSettings(Settings):
    """How a data folder is read; flags of every command that reads one first."""

    attribute: str | None = Field(None, description="attribute column; 'a' if not given")
    minority: tuple[str, ...] = Field((), description="names of the minority groups; by lift if not given")
    image_size: int | None = Field(None, ge=1, description="side of the input in pixels")
    split_seed: int = Field(0, description="seed of the split, where the table has none")

    def read(self, folder: Path) -> Dataset:
        """Read the folder so; errors as for `read_data`."""
        return read_data(
            folder,
            attribute=self.attribute,
            image_size=self.image_size,
            minority=self.minority,
            split_seed=self.split_seed,
        )


class DataRecord(Settings):
    """What a run remembers of its data.

    Arguments:
        folder: where they were.
        settings: how they were read.
        transform: from image to input.
        fingerprint: of table and files.
        classes, attributes: names, in order.
        minority: names of the minority groups.
    """

    folder: str
    settings: DataSettings
    transform: ImageTransform
    fingerprint: str
    classes: tuple[str, ...]
    attributes: tuple[str, ...]
    group_name: str
    minority: tuple[str, ...]

    @property
    def groups(self) -> Groups:
        return Groups(self.classes, self.attributes, self.group_name)


class StartRecord(Settings):
    """The network that a training started from.

    Arguments:
        run: its run's directory, as it was named.
        epoch: its epoch there.
    """

    run: str
    epoch: int


class Spent(Settings):
    """What a training has cost so far.

    Arguments:
        passes: sample passes: one sample once forwards and backwards through the network.
        seconds: in training; measuring and storing are left out.
        passes_before, seconds_before: what other runs had spent on what this training began with (the network that it
            started from, or the one whose errors it takes); None where that isn't known.
    """

    passes: int = 0
    seconds: float = 0.0
    passes_before: int | None = 0
    seconds_before: float | None = 0.0


class RunRecord(Settings):
    """`run.json`.

    Arguments:
        origin: how the network came about: "train", "import" or "edit".
        data: what was read.
        network: how to build it.
        settings: of the command that made the run, expanded.
        best_by: the validation rule by which `--epoch best` chooses.
        versions: of the packages.
        start: the network of another run that a training started from.
        spent: what a training has cost so far.
    """

    origin: Literal["train", "import", "edit"]
    data: DataRecord
    network: NetworkSettings
    settings: dict[str, Any]
    best_by: BestRule
    versions: dict[str, str]
    start: StartRecord | None = None
    spent: Spent | None = None


@dataclass(frozen=True)
class Run:
    """A run's directory. Reading needs no lock; writing happens inside `writing()`.

    Arguments:
        path: of the directory, which `train` or `import_network` made.

    Example:
        ```python
        run = sm.Run("runs/first")
        model = run.network(run.choose_epoch("best"))
        ```
    """

    path: Path

    def __init__(self, path: str | Path) -> None:
        object.__setattr__(self, "path", Path(path))

    @cached_property
    def record(self) -> RunRecord:
        """What `run.json` says.

        Raises:
            UserError: there is none, or it is broken.
        """
        file = self.path / "run.json"
        if not file.is_file():
            raise UserError(
                f"{self.path} is no run (it has no run.json): `spurmem train` or `spurmem import` makes one"
            )
        try:
            return RunRecord.model_validate_json(file.read_text(encoding="utf-8"))
        except (ValidationError, UnicodeDecodeError) as error:
            raise UserError(f"{file} is broken or of another version of spurmem: {type(error).__name__}") from error

    def __repr__(self) -> str:
        return f"<Run {self.path}>"

    @property
    def exists(self) -> bool:
        """Something was measured. What was stopped before that is no run yet and may be begun anew."""
        return (self.path / "run.json").is_file() and (self.path / "history.parquet").is_file()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the run for writing.

        Raises:
            UserError: another command is writing it, or the folder can't be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.path / ".lock", timeout=0)
            lock.acquire()
        except filelock.Timeout as error:
            raise UserError(f"another command is writing {self.path}: wait for it, or choose another run") from error
        except OSError as error:
            raise UserError(f"{self.path} can't be written ({error.strerror}): choose another place") from error
        try:
            yield
        finally:
            lock.release()

    def create(self, record: RunRecord) -> None:
        """Write `run.json`, or, where it exists, make sure that it states the same settings.

        Raises:
            UserError: it states others; the first that differs is named with both values.
        """
        if self.exists:
            check_same_settings(_comparable(self.record), _comparable(record), f"run {self.path}")
        else:
            write_text(self.path / "run.json", record.model_dump_json(indent=2) + "\n")

    def save_spent(self, spent: Spent) -> None:
        """Note in `run.json` what the training has cost so far."""
        if self.record.spent != spent:
            record = self.record.model_copy(update={"spent": spent})
            write_text(self.path / "run.json", record.model_dump_json(indent=2) + "\n")
            vars(self)["record"] = record

    def read_data(self, folder: Path | None = None) -> Dataset:
        """The data that the run was made with.

        Arguments:
            folder: where they are now, if they were moved.

        Raises:
            UserError: they aren't there, or aren't the same.
        """
        stated = self.record.data
        place = folder or Path(stated.folder)
        if folder is None and not place.is_dir():
            raise UserError(f"the run's data folder {place} is gone: name its new place with --data DIR")
        data = stated.settings.read(place).with_transform(stated.transform)
        if data.fingerprint() != stated.fingerprint:
            raise UserError(
                f"the data in {place} are not those that {self.path} was made with: name theirs with --data"
            )
        return data

    def epochs(self) -> list[int]:
        """Epochs whose checkpoint is there, in order; 0 is before training."""
        files = (self.path / "checkpoints").glob("epoch_*.safetensors")
        return sorted(int(m[1]) for file in files if (m := re.fullmatch(r"epoch_(\d+)", file.stem)))

    def choose_epoch(self, wanted: str | int) -> int:
        """The epoch for "best" (by the run's validation rule), "last", or a number.

        Raises:
            UserError: there is no such checkpoint.
        """
        there = self.epochs()
        if not there:
            _ = self.record  # what is no run is called so
            raise UserError(f"{self.path} has no checkpoint yet: finish its training with --resume")
        if wanted == "last":
            return there[-1]
        if wanted == "best":
            return best_epoch(self.history(), self.record.best_by, there)
        if str(wanted).isdecimal() and int(wanted) in there:
            return int(wanted)
        raise UserError(f"no checkpoint of epoch {wanted!r} in {self.path}: it has {_spans(there)}, best and last")

    def checkpoint(self, epoch: int) -> Path:
        return self.path / "checkpoints" / f"epoch_{epoch:03d}.safetensors"

    @property
    def trainer_file(self) -> Path:
        return self.path / "checkpoints" / "trainer.pt"

    def state(self, epoch: int) -> StateDict:
        """State dict of the network after `epoch` epochs.

        Raises:
            UserError: there is no such checkpoint, or it is truncated.
        """
        if not self.checkpoint(epoch).is_file():
            raise UserError(f"no checkpoint of epoch {epoch} in {self.path}: it has {_spans(self.epochs())}")
        return read_state(self.checkpoint(epoch))

    def network(self, epoch: int) -> nn.Module:
        """The network after `epoch` epochs, in evaluation mode."""
        model = build(self.record.network)
        load_exactly(model, self.state(epoch), self.record.network.model)
        return model.eval()

    def save_network(self, epoch: int, model: nn.Module) -> None:
        """Write the checkpoint of an epoch."""
        save_state(self.checkpoint(epoch), model.state_dict())

    def history(self) -> pd.DataFrame:
        """Counts and losses: one row an epoch, split and group, with the columns epoch, split, group, n, correct and
        loss (the sum over samples)."""
        file = self.path / "history.parquet"
        if not file.is_file():
            return pd.DataFrame(columns=list(HISTORY_COLUMNS))
        return pd.read_parquet(file)

    def save_history(self, history: pd.DataFrame) -> None:
        write_parquet(self.path / "history.parquet", history)

    def predictions(self, epoch: int, split: str) -> pd.DataFrame:
        """Class probabilities of every sample: one row a sample index, one column a class.

        Raises:
            UserError: none were stored for this epoch and split.
        """
        file = self._predictions_file(epoch, split)
        if not file.is_file():
            raise UserError(f"{self.path} has no predictions of epoch {epoch} on {split!r}")
        return pd.read_parquet(file)

    def save_predictions(
        self, epoch: int, split: str, index: NDArray[np.int64], probabilities: NDArray[np.float32]
    ) -> None:
        frame = pd.DataFrame(probabilities, index=pd.Index(index, name="index"), columns=list(self.record.data.classes))
        write_parquet(self._predictions_file(epoch, split), frame)

    def _predictions_file(self, epoch: int, split: str) -> Path:
        return self.path / "predictions" / f"epoch_{epoch:03d}_{split}.parquet"


def run_and_epoch(start: str) -> tuple[Path, str]:
    """A run's folder and the epoch's words of RUN or RUN@EPOCH, such as `--from` takes; the last epoch for RUN."""
    match = re.fullmatch(r"(.+)@(\d+|best|last)", start)
    return (Path(match[1]), match[2]) if match else (Path(start), "last")


def data_record(data: Dataset, folder: Path, settings: DataSettings) -> DataRecord:
    """What a run remembers of these data, whose transform must be chosen."""
    transform = data.source.transform if isinstance(data.source, Images) else None
    if transform is None:
        raise UserError("a run needs images with a chosen transform: tensors are for the Python functions alone")
    return DataRecord(
        folder=str(folder.resolve()),
        settings=DataSettings(**{name: getattr(settings, name) for name in DataSettings.model_fields}),
        transform=transform,
        fingerprint=data.fingerprint(),
        classes=data.groups.classes,
        attributes=data.groups.attributes,
        group_name=data.groups.template,
        minority=tuple(data.groups.names[g] for g in data.minority),
    )


def best_epoch(history: pd.DataFrame, rule: BestRule, among: list[int]) -> int:
    """The epoch with the best validation value by a rule; the earliest of equals.

    Arguments:
        history: as `Run.history` gives it.
        rule: "worst_group_accuracy", "average", "average_group_balanced" (highest), or "loss" (lowest mean).
        among: epochs to choose from.

    Raises:
        UserError: nothing was measured on the val split.
    """
    rows = history[(history["split"] == "val") & history["epoch"].isin(among) & (history["n"] > 0)]
    if rows.empty:
        raise UserError("no epoch was measured on the val split: choose an epoch by number, or last")
    accuracy = (rows["correct"] / rows["n"]).groupby(rows["epoch"])
    sums = rows.groupby("epoch")[["n", "correct", "loss"]].sum()
    match rule:
        case "worst_group_accuracy":
            values = accuracy.min()
        case "average_group_balanced":
            values = accuracy.mean()
        case "average":
            values = sums["correct"] / sums["n"]
        case "loss":
            values = -sums["loss"] / sums["n"]
    return int(values.sort_index().idxmax())


def check_same_settings(stored: Mapping[str, Any], wanted: Mapping[str, Any], what: str) -> None:
    """Compare two blocks of settings.

    Raises:
        UserError: one differs; it is named with both values.
    """
    before, now = _flat(stored), _flat(wanted)
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            raise UserError(
                f"{what} was made with {name} = {before.get(name)!r}, not {now.get(name)!r}: "
                "use the same settings, or choose another place"
            )


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in _PACKAGES}}


def write_parquet(file: Path, frame: pd.DataFrame) -> None:
    """Write a frame as Parquet, whole or not at all."""
    with atomic_write(file) as temporary:
        frame.to_parquet(temporary)


def _comparable(record: RunRecord) -> dict[str, Any]:
    stated: dict[str, Any] = json.loads(
        record.model_dump_json(exclude={"versions": True, "spent": True, "data": {"folder"}})
    )
    return stated


def _flat(block: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in block.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _spans(numbers: list[int]) -> str:
    if len(numbers) > 6:
        return f"{numbers[0]}, {numbers[1]}, ..., {numbers[-1]}"
    return ", ".join(map(str, numbers)) or "none"
