"""JTT: Just Train Twice."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from ...datasets.samples import Dataset, Samples
from ...errors import UserError
from ...resources import check_memory
from ...runs.epochs import run_and_epoch
from ...runs.run import Run
from ..objective import Objective, Training
from ..objective_settings import ObjectiveSettings

BYTES_PER_SAMPLE = 32
"""Its index: repeated, joined, permuted and cut into batches."""


class JttSettings(ObjectiveSettings):
    """Options of jtt.

    Arguments:
        errors_of: RUN@EPOCH, whose errors on the training samples are upweighted.
        upweight: how often each of them occurs in an epoch.
    """

    run_option: ClassVar[str | None] = "errors_of"

    name: Literal["jtt"] = "jtt"
    errors_of: str
    upweight: int = Field(20, ge=1, le=100_000)


class Jtt(Objective[JttSettings]):
    """Just Train Twice: Liu et al. (2021), Just Train Twice: Improving Group Robustness without Training Group
    Information.

    The method takes the training samples that an ERM network of an early epoch gets wrong. They occur `upweight` times
    in every epoch, all others once. The errors are those of the stored predictions, which were made in evaluation mode
    on images without augmentation. The second network starts where ERM started. Choose epoch and `upweight` on the val
    split.
    """

    def __init__(self, settings: JttSettings, training: Training) -> None:
        super().__init__(settings, training)
        self.errors: NDArray[np.int64] = np.zeros(0, np.int64)

    def begin(self) -> None:
        path, epoch = run_and_epoch(self.settings.errors_of)
        older = Run(path)
        self.errors = error_set(older, older.choose_epoch(epoch), self.training.data)

    def samples(self, epoch: int) -> Samples:
        train = self.training.data.train
        n = len(train) + len(self.errors) * (self.settings.upweight - 1)
        check_memory(BYTES_PER_SAMPLE * n, f"the {n:,} samples of an epoch of jtt", "choose a smaller upweight")
        repeated = np.repeat(self.errors, self.settings.upweight - 1)
        return train.at(np.concatenate([train.index, repeated])).shuffled(self.training.config.seed, epoch)

    def state(self) -> dict[str, Any]:
        return {"errors": torch.from_numpy(self.errors)}

    def load_state(self, state: dict[str, Any]) -> None:
        self.errors = state["errors"].numpy()


def error_set(run: Run, epoch: int, data: Dataset) -> NDArray[np.int64]:
    """Indices of the training samples that a run's network gets wrong after an epoch, in order.

    Raises:
        UserError: there are none, or the run was made with other data.
    """
    if run.record.data.fingerprint != data.fingerprint():
        raise UserError(f"{run.path} was made with other data: take the errors of a run on these")
    stored = run.predictions(epoch, "train")
    wrong = stored.to_numpy().argmax(1) != data.y[stored.index]
    errors = np.sort(stored.index.to_numpy()[wrong]).astype(np.int64)
    if not len(errors):
        raise UserError(
            f"the network of {run.path} makes no error on the training samples in epoch {epoch}, and JTT has none to "
            "upweight: choose an earlier epoch"
        )
    return errors
