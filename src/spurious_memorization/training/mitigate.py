"""Empirical risk minimization once a seed, then every objective with the same budget, ready to be compared."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from ..console import log
from ..datasets.folder import read_with_settings
from ..datasets.samples import Dataset
from ..errors import UserError
from ..runs.epochs import best_epoch
from ..runs.run import Run
from .epoch_selection import selection_history, val_halves
from .loop import TrainExecution
from .objectives.dfr import check_group_samples, check_sklearn
from .objectives.jtt import error_set
from .objectives.objective import part_counts
from .objectives.settings import (
    AnyObjective,
    DfrSettings,
    ErmContinueSettings,
    ErmSettings,
    JttSettings,
    ObjectiveSettings,
    PrunedContrastSettings,
    objective_from,
)
from .recipes import NetworkTraining, TrainSettings, expanded
from .seeds import seeds_from
from .train import train

ALL = (
    "erm-continue",
    "pruned-contrast:mask=magnitude-smallest",
    "pruned-contrast:mask=magnitude-largest",
    "pruned-contrast",
    "pruned-contrast:mask=none",
    "reweighting:by=class",
    "reweighting",
    "balanced-sampling",
    "subsampling",
    "group-dro",
    "example-tied-dropout",
    "dfr",
)


class MitigateSettings(NetworkTraining):
    """Everything that changes the result; --epochs and the options of training are those of ERM."""

    objective: tuple[ObjectiveSettings, ...] = Field(
        tuple(map(objective_from, ALL)),
        description="one to compare beside ERM, or several; all if not given",
    )
    seeds: str = Field("0..2", description="seeds of the trainings")
    finetune_epochs: int = Field(6, ge=1, description="epochs of pruned-contrast from ERM's end")
    finetune_lr: float = Field(2e-4, gt=0, description="learning rate of what starts from ERM's end")
    jtt: bool = Field(True, description="try JTT, too")
    jtt_epochs: tuple[int, ...] = Field((1, 2), description="epochs of ERM whose errors JTT tries")
    jtt_upweights: tuple[int, ...] = Field((5, 20), description="upweights that JTT tries")

    @model_validator(mode="after")
    def _jtt_by_its_own_options(self) -> MitigateSettings:
        if any(isinstance(objective, JttSettings) for objective in self.objective):
            raise ValueError("jtt is tried with jtt_epochs and jtt_upweights: leave it out of the objectives")
        return self


@dataclass(frozen=True, eq=False)
class Mitigation:
    """What `mitigate` made.

    Arguments:
        runs: {objective: one run a seed}, ERM first; of JTT's candidates only the chosen one.
        notes: what was chosen or left out, in sentences.
    """

    runs: Mapping[str, tuple[Run, ...]]
    notes: tuple[str, ...]


def mitigate(
    folder: str | Path,
    out: str | Path,
    settings: MitigateSettings | None = None,
    *,
    execution: TrainExecution | None = None,
) -> Mitigation:
    """Train by ERM once a seed, and by every objective with the same budget. A stopped call continues.

    The budget is counted in sample passes: those of ERM's epochs, and twice `finetune_epochs` over the training
    samples. The second part is spent from ERM's last epoch by pruned-contrast, which passes samples twice a step, and
    by erm-continue, which passes them once and has twice the epochs. What trains from scratch starts from ERM's
    starting weights and spends both parts. JTT's first network is counted up to the epoch whose errors it takes, and
    its epochs are as long as the upweighted set. DFR fits a head on ERM's last epoch, and spends less.

    Arguments:
        folder: the data folder.
        out: a run of objective and seed is OUT/OBJECTIVE/seed_0, and so on.
        settings: objectives, seeds, epochs, the options of training.
        execution: device, workers, batch size of evaluation.

    Raises:
        UserError: there is no val split, a group that an objective needs has no sample, a run has other settings.

    Example:
        ```python
        made = sm.mitigate("birds", "repair", sm.MitigateSettings(model="resnet18", seeds="0..1"))
        ```
    """
    settings, out = settings or MitigateSettings(), Path(out)
    data = read_with_settings(Path(folder), settings)
    seeds = seeds_from(settings.seeds)
    _check_early(data, settings)
    shared = {
        name: getattr(settings, name) for name in NetworkTraining.model_fields if name in settings.model_fields_set
    }
    erm = expanded(TrainSettings(**shared), data)
    budget = Budget(len(data.train), erm.epochs, settings.finetune_epochs)
    log(
        f"ERM and {len(settings.objective)} objectives, {len(seeds)} seeds each, into {out}; a training may pass "
        f"{budget.total} samples, {budget.samples} of them an epoch"
    )

    def trained(place: Path, seed: int, objective: AnyObjective, **changes: Any) -> Run:
        config = TrainSettings(**{**shared, "seed": seed, "objective": objective, **changes})
        return train(folder, place / f"seed_{seed}", config, resume=True, execution=execution)

    runs = {"erm": tuple(trained(out / "erm", seed, ErmSettings()) for seed in seeds)}
    for objective in settings.objective:
        place = out / _folder(objective)
        runs[str(objective)] = tuple(
            trained(place, seed, objective, **_from_erm(older, objective, settings), epochs=budget.epochs(objective))
            for seed, older in zip(seeds, runs["erm"], strict=True)
        )
    notes: list[str] = []
    candidates: dict[str, tuple[Run, ...]] = {}
    for epoch, upweight in product(settings.jtt_epochs, settings.jtt_upweights) if settings.jtt else ():
        try:
            errors = max(len(error_set(older, epoch, data)) for older in runs["erm"])
        except UserError as error:
            notes.append(f"JTT with the errors of epoch {epoch} is left out: {error}.")
            continue
        candidates[f"epoch {epoch}, upweight {upweight}"] = tuple(
            trained(
                out / f"jtt_epoch={epoch}_upweight={upweight}",
                seed,
                JttSettings(errors_of=f"{older.path}@{epoch}", upweight=upweight),
                epochs=budget.jtt_epochs(epoch, upweight, errors),
            )
            for seed, older in zip(seeds, runs["erm"], strict=True)
        )
    if candidates:
        values = {name: _selecting_value(tried, data) for name, tried in candidates.items()}
        best = max(values, key=lambda name: values[name])
        runs["jtt"] = candidates[best]
        listed = ", ".join(f"{name}: {value:.1%}" for name, value in values.items())
        notes.append(f"JTT: {best}, by worst-group accuracy on the half of val for selecting ({listed}).")
    return Mitigation(runs, tuple(dict.fromkeys(notes)))


@dataclass(frozen=True)
class Budget:
    """Sample passes that every training may spend, and how many epochs they are.

    Arguments:
        samples: training samples.
        erm_epochs: of ERM.
        finetune_epochs: of fine-tuning that passes samples twice a step.
    """

    samples: int
    erm_epochs: int
    finetune_epochs: int

    @property
    def total(self) -> int:
        return self.samples * (self.erm_epochs + 2 * self.finetune_epochs)

    def epochs(self, objective: AnyObjective) -> int:
        """Epochs of an objective other than JTT."""
        if isinstance(objective, DfrSettings):
            return 1
        if isinstance(objective, PrunedContrastSettings):
            return self.finetune_epochs
        return 2 * self.finetune_epochs + (0 if isinstance(objective, ErmContinueSettings) else self.erm_epochs)

    def jtt_epochs(self, first: int, upweight: int, errors: int) -> int:
        """Epochs of JTT's second network, at least one; the first one trained for `first` epochs and made at most so
        many errors, with any seed."""
        left = self.total - first * self.samples
        return max(1, left // (self.samples + (upweight - 1) * errors))


def _from_erm(older: Run, objective: AnyObjective, settings: MitigateSettings) -> dict[str, Any]:
    """Where an objective that continues ERM starts, and how fast."""
    if not isinstance(objective, ErmContinueSettings | PrunedContrastSettings | DfrSettings):
        return {}
    return {"start": f"{older.path}@last", "lr": settings.finetune_lr}


def _selecting_value(runs: tuple[Run, ...], data: Dataset) -> float:
    """Mean over seeds of the worst-group accuracy on the half of val for selecting, in the epoch that it selects."""
    _, selecting = val_halves(data)
    worst = []
    for run in runs:
        history = selection_history(run, selecting)
        epoch = best_epoch(history, "worst_group_accuracy", run.epochs())
        rows = history[(history["epoch"] == epoch) & (history["n"] > 0)]
        worst.append(float((rows["correct"] / rows["n"]).min()))
    return float(np.mean(worst))


def _check_early(data: Dataset, settings: MitigateSettings) -> None:
    """Before anything is trained."""
    fitting, _ = val_halves(data)
    for objective in settings.objective:
        if isinstance(objective, DfrSettings):
            check_sklearn()
            check_group_samples(fitting)
        by = getattr(objective, "by", "group" if objective.name == "group-dro" else None)
        if by is not None:
            part_counts(data, by, objective.name)


def _folder(objective: AnyObjective) -> str:
    return re.sub(r"[^\w.=+-]+", "_", str(objective))
