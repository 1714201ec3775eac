"""SELF: selective last-layer finetuning."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt

from ...console import log
from ...errors import UserError
from ...runs.epochs import run_and_epoch
from ...runs.run import Run
from ..heads import Features, Floats, Head, HeadObjective, HeadSettings, best_candidate, head_of, retrained
from ..objective_settings import SplitAtPlus

EARLY = (1, 2, 5)
"""The early epochs that the authors try."""

Choice = Literal["early-disagreement", "early-misclassification", "misclassification"]


class SelfSettings(HeadSettings):
    """Options of self.

    Arguments:
        fit_on, select_by: as for every head.
        choice: what makes a sample useful: a network of an early epoch answers it differently ("early-disagreement"),
            or has a large loss on it ("early-misclassification"), or the last network has ("misclassification").
        early: candidates for the early epoch, of the run from which this one starts. None means 1, 2 and 5, as far as
            the run has them before the epoch from which this one starts.
        n: candidates for the number of samples that are chosen.
        lrs: candidates for the learning rate.
        steps: number of batches.
        batch_size: samples per batch.
    """

    name: Literal["self"] = "self"
    choice: Choice = "early-disagreement"
    early: Annotated[tuple[PositiveInt, ...] | None, SplitAtPlus] = None
    n: Annotated[tuple[PositiveInt, ...], SplitAtPlus, Field(min_length=1)] = (20, 100, 500)
    lrs: Annotated[tuple[PositiveFloat, ...], SplitAtPlus, Field(min_length=1)] = (1e-4, 1e-3, 1e-2)
    steps: int = Field(250, ge=1, le=1_000_000)
    batch_size: int = Field(32, ge=1, le=100_000)


class Self(HeadObjective[SelfSettings]):
    """Selective last-layer finetuning: LaBonte et al. (2023), Towards Last-Layer Retraining for Group Robustness with
    Fewer Annotations.

    Among held-out samples, those are chosen on which the network and a regularized copy of it disagree most. The copy
    is the network of an early epoch. Disagreement is the Kullback-Leibler divergence KL(last || early); its direction
    is not taken from the paper. The head is trained further on the chosen samples, with classes drawn equally often. No
    group label enters. Early epoch, number of samples and rate are chosen on the selecting half of val, as in the paper
    by worst-group accuracy. The variants with dropout are left out, since most networks here have none.
    """

    def begin(self) -> None:
        super().begin()
        if self.settings.choice.startswith("early"):
            self._early_epochs()
            run, _ = self._start()
            if self._is_frozen and run.record.settings.get("freeze") != "encoder":
                raise UserError(
                    f"self asks heads of early epochs of {run.path}, whose encoder was trained: train it with --freeze "
                    "encoder, or choose choice=misclassification"
                )

    @property
    def _is_frozen(self) -> bool:
        return self.training.config.freeze == "encoder"

    def _start(self) -> tuple[Run, int]:
        """The run from which this one starts, and its epoch."""
        path, wanted = run_and_epoch(str(self.training.config.start))
        return Run(path), Run(path).choose_epoch(wanted)

    def _early_epochs(self) -> list[int]:
        """The early epochs that are tried.

        Raises:
            UserError: the run has no checkpoint of one that the user names, or none before the last one.
        """
        run, last = self._start()
        if self.settings.early is not None:
            return [run.choose_epoch(epoch) for epoch in self.settings.early]
        found = [epoch for epoch in EARLY if epoch in run.epochs() and epoch < last]
        if not found:
            raise UserError(
                f"self needs a network of an early epoch of {run.path}: train it again with more epochs, or name one "
                "with early="
            )
        return found

    def fit(self, fitting: Features, selecting: Features, head: Head) -> Head:
        settings, seed = self.settings, self.training.config.seed
        last = head.probabilities(fitting.values)
        answers: dict[int | None, Floats] = {None: last}
        if settings.choice.startswith("early"):
            answers = {epoch: self._answers(epoch) for epoch in self._early_epochs()}

        def candidates() -> Iterator[tuple[str, Head]]:
            for (epoch, early), n in product(answers.items(), settings.n):
                chosen = fitting.at(chosen_samples(early, last, fitting.y, n, settings.choice))
                for lr in settings.lrs:
                    described = f"{len(chosen)} samples, rate {lr:g}{'' if epoch is None else f', early epoch {epoch}'}"
                    yield (
                        described,
                        retrained(head, chosen, steps=settings.steps, batch_size=settings.batch_size, lr=lr, seed=seed),
                    )

        described, found = best_candidate(candidates(), selecting, settings.select_by)
        log(f"self: {described}")
        return found

    def _answers(self, epoch: int) -> Floats:
        """Class probabilities of the early network on the fitting samples, [samples, classes]."""
        early = self._start()[0].network(epoch)
        features = self.features(self.fitting_samples(), None if self._is_frozen else early)
        return head_of(early).probabilities(features.values)


def chosen_samples(early: Floats, last: Floats, y: NDArray[np.int64], n: int, choice: Choice) -> NDArray[np.int64]:
    """Positions of the samples that are most useful, at most `n`; of equals the first.

    Arguments:
        early, last: class probabilities of both networks, [samples, classes].
        y: labels, [samples].
        n: number of samples.
        choice: what makes a sample useful.
    """
    early, last = early.clip(1e-12), last.clip(1e-12)
    if choice == "early-disagreement":
        useful = (last * np.log(last / early)).sum(1)
    else:
        useful = -np.log((early if choice == "early-misclassification" else last)[np.arange(len(y)), y])
    return np.argsort(-useful, kind="stable")[:n]
