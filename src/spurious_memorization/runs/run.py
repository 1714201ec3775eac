"""The class Run: the directory that holds everything about one network, and all results measured on it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import filelock
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import nn

from ..atomic import write_parquet, write_text
from ..console import log
from ..datasets.folder import read_with_settings
from ..datasets.samples import Dataset
from ..errors import UserError
from ..networks.build import build
from ..networks.weights import StateDict, load_exactly, read_state, save_state
from .epochs import best_epoch
from .records import RunRecord, TrainingCost, check_same_settings, comparable_settings

HISTORY_COLUMNS = ("epoch", "split", "group", "n", "correct", "loss")


@dataclass(frozen=True)
class Run:
    """The directory of a run. Reading needs no lock. Writing needs the lock that `writing()` takes.

    Arguments:
        path: the directory that `train` or `import_network` made.

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
        """The content of `run.json`.

        Raises:
            UserError: the file is missing or broken.
        """
        file = self.path / "run.json"
        if not file.is_file():
            raise UserError(
                f"{self.path} is not a run (it has no run.json): make one with `spurmem train` or `spurmem import`"
            )
        try:
            return RunRecord.model_validate_json(file.read_text(encoding="utf-8"))
        except (ValidationError, UnicodeDecodeError) as error:
            raise UserError(f"{file} is broken or from another version of spurmem: {type(error).__name__}") from error

    def __repr__(self) -> str:
        return f"<Run {self.path}>"

    @property
    def exists(self) -> bool:
        """Whether anything was measured. A call that was stopped before that left no run and can be repeated."""
        return (self.path / "run.json").is_file() and (self.path / "history.parquet").is_file()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Lock the run for writing.

        Raises:
            UserError: another command is writing the run, or the folder can't be written.
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
        """Write `run.json`. If it exists, check that it has the same settings.

        Raises:
            UserError: a setting differs. The message names the first such setting and both values.
        """
        if self.exists:
            check_same_settings(comparable_settings(self.record), comparable_settings(record), f"run {self.path}")
        else:
            write_text(self.path / "run.json", record.model_dump_json(indent=2) + "\n")

    def save_training_cost(self, cost: TrainingCost) -> None:
        """Write the cost of the training so far to `run.json`."""
        if self.record.training_cost != cost:
            record = self.record.model_copy(update={"training_cost": cost})
            write_text(self.path / "run.json", record.model_dump_json(indent=2) + "\n")
            vars(self)["record"] = record

    def read_data(self, folder: Path | None = None) -> Dataset:
        """The data that the run was made with.

        Arguments:
            folder: the data folder, if it was moved.

        Raises:
            UserError: the data are missing or have changed.
        """
        recorded = self.record.data
        place = folder or Path(recorded.folder)
        if folder is None and not place.is_dir():
            raise UserError(f"the run's data folder {place} does not exist: give its new place with --data DIR")
        data = read_with_settings(place, recorded.settings).with_transform(recorded.transform)
        if data.fingerprint() != recorded.fingerprint:
            raise UserError(
                f"{place} does not hold the data that {self.path} was made with: give their folder with --data"
            )
        return data

    def epochs(self) -> list[int]:
        """Epochs that have a checkpoint, in order. Epoch 0 is the network before training."""
        files = (self.path / "checkpoints").glob("epoch_*.safetensors")
        return sorted(int(m[1]) for file in files if (m := re.fullmatch(r"epoch_(\d+)", file.stem)))

    def candidate_epochs(self) -> list[int]:
        """The epochs among which a validation rule chooses: those with a checkpoint.

        Epoch 0 is among them only if training started from a trained network, or if there is no other epoch. A random
        head can win a tie, or a small validation split, by luck.
        """
        there = self.epochs()
        later = [epoch for epoch in there if epoch > 0]
        return there if self.record.epoch_0_is_trained or not later else later

    def choose_epoch(self, wanted: str | int) -> int:
        """The epoch that a user means.

        Arguments:
            wanted: "best" (by the run's validation rule, among `candidate_epochs`), "last", or a number.

        Raises:
            UserError: there is no such checkpoint.
        """
        there = self.epochs()
        if not there:
            _ = self.record  # raises the clearer error if this is not a run
            raise UserError(f"{self.path} has no checkpoint yet: finish its training with --resume")
        if wanted == "last":
            return there[-1]
        if wanted == "best":
            best = best_epoch(self.history(), self.record.best_by, self.candidate_epochs())
            if best.tie:
                log(f"{self.path}: {best.tie}")
            return best.epoch
        number = str(wanted).lstrip("0") or "0"
        if number in map(str, there):
            return int(number)
        raise UserError(f"no checkpoint of epoch {wanted!r} in {self.path}: it has {_spans(there)}, best and last")

    def checkpoint(self, epoch: int) -> Path:
        return self.path / "checkpoints" / f"epoch_{epoch:03d}.safetensors"

    @property
    def trainer_file(self) -> Path:
        return self.path / "checkpoints" / "trainer.pt"

    def state(self, epoch: int) -> StateDict:
        """State dict of the network after `epoch` epochs.

        Raises:
            UserError: the checkpoint is missing or truncated.
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
        """Counts and losses: one row per epoch, split and group.

        Returns:
            A frame with the columns epoch, split, group, n, correct, and loss (the sum over samples).
        """
        file = self.path / "history.parquet"
        if not file.is_file():
            return pd.DataFrame(columns=list(HISTORY_COLUMNS))
        return pd.read_parquet(file)

    def save_history(self, history: pd.DataFrame) -> None:
        write_parquet(self.path / "history.parquet", history)

    def predictions(self, epoch: int, split: str) -> pd.DataFrame:
        """Class probabilities of every sample: one row per sample index, one column per class.

        Raises:
            UserError: nothing was stored for this epoch and split.
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


def _spans(numbers: list[int]) -> str:
    if len(numbers) > 6:
        return f"{numbers[0]}, {numbers[1]}, ..., {numbers[-1]}"
    return ", ".join(map(str, numbers)) or "none"
