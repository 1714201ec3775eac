"""The class Run: the directory that holds everything about one network, and all results measured on it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import nn

from ..atomic import write_parquet, write_text
from ..console import log
from ..datasets.folder import is_there, read_with_settings
from ..datasets.samples import SPLITS, Dataset
from ..datasets.texts import Tokenization
from ..datasets.transforms import ImageTransform
from ..errors import UserError
from ..locks import locked
from ..networks.build import build
from ..networks.hugging_face import copy_without_weights
from ..networks.weights import StateDict, load_exactly, read_state, save_state
from ..remote_folders import local_folder, send, url_of
from ..stored_files import (
    BROKEN_OR_OTHER,
    BrokenFileError,
    Columns,
    StoredFileError,
    checked_record,
    is_stored,
    read_frame,
    read_json,
    reading,
)
from .epochs import best_epoch
from .records import RunRecord, TrainingCost, check_same_settings, comparable_settings

HISTORY: Columns = {
    "epoch": "count",
    "split": "text",
    "group": "count",
    "n": "count",
    "correct": "count",
    "loss": "number",
}
HISTORY_COLUMNS = tuple(HISTORY)


@dataclass(frozen=True)
class Run:
    """The directory of a run. Reading needs no lock. Writing needs the lock that `writing()` takes.

    Arguments:
        path: the directory that `train` or `import_network` made. Of a URL such as s3://bucket/runs/first, it is the
            local copy, which is brought up to date.

    Example:
        ```python
        run = sm.Run("runs/first")
        model = run.network(run.choose_epoch("best"))
        ```
    """

    path: Path

    def __init__(self, path: str | Path) -> None:
        object.__setattr__(self, "path", local_folder(path))

    @cached_property
    def record(self) -> RunRecord:
        """The content of `run.json`.

        Raises:
            UserError: the file is missing or broken.
        """
        file = self._record_file
        if not is_stored(file):
            what = "is not a run (it has no run.json): make one with `spurmem train` or `spurmem import`"
            if self.trainer_file.is_file():
                what = f"has lost its run.json: delete {self.trainer_file}, then train again with --resume"
            raise UserError(f"{self.place} {what}")
        remedy = "restore it, or make the run again"
        return checked_record(file, read_json(file, remedy, otherwise=BROKEN_OR_OTHER), RunRecord, remedy)

    def __repr__(self) -> str:
        return f"<Run {self.place}>"

    @property
    def place(self) -> str:
        """The directory as a user names it: a path, or a URL."""
        return url_of(self.path) or str(self.path)

    @property
    def exists(self) -> bool:
        """Whether anything was measured. A call that was stopped before that left no run and can be repeated."""
        return is_stored(self._record_file) and is_stored(self._history_file)

    @property
    def is_begun(self) -> bool:
        """Whether the directory holds anything of a run, even if other parts of it were lost."""
        return any(part.exists() for part in (self._record_file, self._history_file, self.trainer_file.parent))

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Lock the run for writing. Of a run with a URL, what was not sent yet is sent at the end.

        Raises:
            UserError: another command is writing the run, or the folder can't be written.
        """
        with locked(self.path):
            yield
            send(self.path)

    def create(self, record: RunRecord) -> None:
        """Write `run.json`, and what texts need. If it exists, check that it has the same settings.

        Raises:
            UserError: a setting differs. The message names the first such setting and both values.
        """
        if self.exists:
            check_same_settings(comparable_settings(self.record), comparable_settings(record), f"run {self.place}")
        else:
            if isinstance(record.data.transform, Tokenization):
                configuration = record.network.configuration or {}
                copy_without_weights(configuration, record.data.transform, self.network_folder)
            write_text(self._record_file, record.model_dump_json(indent=2) + "\n")

    def save_training_cost(self, cost: TrainingCost) -> None:
        """Write the cost of the training so far to `run.json`."""
        if self.record.training_cost != cost:
            record = self.record.model_copy(update={"training_cost": cost})
            write_text(self._record_file, record.model_dump_json(indent=2) + "\n")
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
        if folder is None and not is_there(place):
            raise UserError(f"the run's data folder {place} does not exist: give its new place with --data DIR")
        data = read_with_settings(place, recorded.settings).with_transform(self._transform)
        if data.fingerprint() != recorded.fingerprint:
            raise UserError(
                f"{place} does not hold the data that {self.place} was made with: give their folder with --data"
            )
        return data

    @property
    def network_folder(self) -> Path:
        """Tokenizer and configuration of a network of texts, so that the run needs no other files than its own."""
        return self.path / "hugging_face"

    @property
    def _transform(self) -> ImageTransform | Tokenization:
        """From image or text to input. The tokenizer is the run's own copy, if it has one."""
        transform = self.record.data.transform
        if isinstance(transform, Tokenization) and self.network_folder.is_dir():
            return transform.model_copy(update={"tokenizer": str(self.network_folder.resolve())})
        return transform

    def epochs(self) -> list[int]:
        """Epochs that have a checkpoint, in order. Epoch 0 is the network before training."""
        files = (self.path / "checkpoints").glob("epoch_*.safetensors")
        numbers = (int(m[1]) for file in files if (m := re.fullmatch(r"epoch_(\d{3,9})", file.stem)))
        return sorted(epoch for epoch in numbers if is_stored(self.checkpoint(epoch)))

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
            raise UserError(f"{self.place} has no checkpoint yet: finish its training with --resume")
        if wanted == "last":
            return there[-1]
        if wanted == "best":
            label_of = self.record.data.groups.label_of
            best = best_epoch(self.history(), self.record.best_by, self.candidate_epochs(), label_of)
            if best.tie:
                log(f"{self.place}: {best.tie}")
            return best.epoch
        number = str(wanted).lstrip("0") or "0"
        if number in map(str, there):
            return int(number)
        raise UserError(f"no checkpoint of epoch {wanted!r} in {self.place}: it has {_spans(there)}, best and last")

    def checkpoint(self, epoch: int) -> Path:
        return self.path / "checkpoints" / f"epoch_{epoch:03d}.safetensors"

    @property
    def trainer_file(self) -> Path:
        return self.path / "checkpoints" / "trainer.pt"

    @property
    def encoder_file(self) -> Path:
        """The layers but the head, if training did not change them."""
        return self.path / "checkpoints" / "encoder.safetensors"

    def state(self, epoch: int) -> StateDict:
        """State dict of the network after `epoch` epochs.

        Raises:
            UserError: the checkpoint is missing or broken.
        """
        if not is_stored(self.checkpoint(epoch)):
            raise UserError(f"no checkpoint of epoch {epoch} in {self.place}: it has {_spans(self.epochs())}")
        state = read_state(self.checkpoint(epoch), self.remedy)
        if self.record.settings.get("freeze") != "encoder":
            return state
        return {**read_state(self.encoder_file, self.remedy), **state}

    def network(self, epoch: int) -> nn.Module:
        """The network after `epoch` epochs, in evaluation mode.

        Raises:
            UserError: the checkpoint is missing or broken, or does not fit the network that `run.json` names.
        """
        model = build(self.record.network)
        self.load(epoch, model, self.record.network.model)
        return model.eval()

    def load(self, epoch: int, model: nn.Module, name: str) -> None:
        """Load the weights after `epoch` epochs into a network.

        Arguments:
            epoch: of the checkpoint.
            model: the network.
            name: of its architecture, for errors.

        Raises:
            UserError: the checkpoint is missing or broken, or does not fit the network.
        """
        state = self.state(epoch)
        try:
            load_exactly(model, state, name)
        except UserError as error:
            raise UserError(f"{self.checkpoint(epoch)}: {error}") from error

    def save_network(self, epoch: int, model: nn.Module) -> None:
        """Write the checkpoint of an epoch."""
        save_state(self.checkpoint(epoch), model.state_dict())

    def save_encoder(self, model: nn.Module, head: nn.Module) -> None:
        """Write the layers of a network that training does not change: all but the head. Checkpoints hold the head."""
        trained = head.state_dict().keys()
        save_state(self.encoder_file, {name: of for name, of in model.state_dict().items() if name not in trained})

    def history(self) -> pd.DataFrame:
        """Counts and losses: one row per epoch, split and group.

        Returns:
            A frame with the columns epoch, split, group, n, correct, and loss (the sum over samples).

        Raises:
            UserError: the file is broken, or it is missing although there are checkpoints.
        """
        if not is_stored(self._history_file) and self.epochs():
            raise StoredFileError(f"{self._history_file} does not exist: {self.remedy}")
        return self.history_so_far()

    def history_so_far(self) -> pd.DataFrame:
        """The history of a run that is being made. It has no rows before anything was measured.

        Raises:
            UserError: the file is broken.
        """
        if not is_stored(self._history_file):
            return pd.DataFrame(columns=list(HISTORY_COLUMNS))
        history = read_frame(self._history_file, HISTORY, self.remedy)
        with reading(self._history_file, self.remedy):
            _check_counts(history, len(self.record.data.groups))
        return history[list(HISTORY_COLUMNS)]

    def save_history(self, history: pd.DataFrame) -> None:
        write_parquet(self._history_file, history)

    def predictions(self, epoch: int, split: str) -> pd.DataFrame:
        """Class probabilities of every sample: one row per sample index, one column per class.

        Raises:
            UserError: nothing was stored for this epoch and split, or the file is broken.
        """
        file, classes = self._predictions_file(epoch, split), self.record.data.classes
        if not is_stored(file):
            what = f"{self.place} has no predictions of epoch {epoch} on {split!r} ({file.name} does not exist)"
            raise StoredFileError(f"{what}: {self.remedy}")
        predictions = read_frame(file, dict.fromkeys(classes, "share"), self.remedy)
        with reading(file, self.remedy):
            _check_probabilities(predictions)
        return predictions[list(classes)]

    def save_predictions(
        self, epoch: int, split: str, index: NDArray[np.int64], probabilities: NDArray[np.float32]
    ) -> None:
        frame = pd.DataFrame(probabilities, index=pd.Index(index, name="index"), columns=list(self.record.data.classes))
        write_parquet(self._predictions_file(epoch, split), frame)

    @property
    def remedy(self) -> str:
        """What to do about a file of the run that is missing or broken."""
        if self.trainer_file.is_file():
            return f"train again with --resume after deleting {self.trainer_file} and what is left of it"
        return "make the run again, in another folder"

    @property
    def _record_file(self) -> Path:
        return self.path / "run.json"

    @property
    def _history_file(self) -> Path:
        return self.path / "history.parquet"

    def _predictions_file(self, epoch: int, split: str) -> Path:
        return self.path / "predictions" / f"epoch_{epoch:03d}_{split}.parquet"


def _check_counts(history: pd.DataFrame, n_groups: int) -> None:
    """Check the rows of a history, which has the right columns.

    Raises:
        BrokenFileError: rows contradict each other or the run.
    """
    if (history["correct"] > history["n"]).any():
        raise BrokenFileError("more samples are correct than there are")
    if (history["group"] >= n_groups).any() or not history["split"].isin(SPLITS).all():
        raise BrokenFileError("it names a group or a split that the data don't have")
    if history.duplicated(["epoch", "split", "group"]).any():
        raise BrokenFileError("a group was counted twice")


def _check_probabilities(predictions: pd.DataFrame) -> None:
    """Check the rows of predictions, which have the right columns.

    Raises:
        BrokenFileError: a row holds no probabilities, or samples have no or the same number.
    """
    if not pd.api.types.is_integer_dtype(predictions.index) or not predictions.index.is_unique:
        raise BrokenFileError("its samples have no numbers of their own")
    if not np.allclose(predictions.sum(axis=1), 1, atol=1e-2):
        raise BrokenFileError("its rows hold no probabilities")


def _spans(numbers: list[int]) -> str:
    if len(numbers) > 6:
        return f"{numbers[0]}, {numbers[1]}, ..., {numbers[-1]}"
    return ", ".join(map(str, numbers)) or "none"
