"""Train ERM, then every objective with the same budget, once per seed, ready to be compared."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from ..console import log
from ..datasets.folder import read_with_settings
from ..datasets.samples import Dataset
from ..errors import UserError
from ..remote_folders import local_folder
from ..runs.epochs import best_epoch
from ..runs.run import Run
from .epoch_selection import history_on, selecting_half
from .find_objective import objective_from
from .objective import NotApplicableError, objective_class
from .objective_settings import ObjectiveSettings
from .objectives.jtt import JttSettings, error_set
from .recipes import expanded
from .seeds import seeds_from
from .settings import MitigateSettings, TrainingsExecution, TrainSettings
from .several import PlannedTraining, TrainAll, several_trainings
from .shared_training import check_not_launched

Runs = tuple[Run, ...]
"""The runs of one objective, one per seed."""

HELD_OUT = "erm on fewer samples"
"""Networks that must not have seen the samples on which heads are fitted later."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Mitigation:
    """What `mitigate` made.

    Arguments:
        runs: {objective: one run per seed}, ERM first. Of the candidates of JTT only the chosen one.
        notes: sentences about what was chosen or left out.
    """

    runs: Mapping[str, Runs]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The sample passes that every training may use.

    Arguments:
        samples: number of training samples.
        erm_epochs: epochs of ERM.
        finetune_epochs: epochs of fine-tuning that passes every sample twice per step.
    """

    samples: int
    erm_epochs: int
    finetune_epochs: int

    @property
    def total(self) -> int:
        """Sample passes, with those of ERM for a method that starts from its last epoch."""
        return self.samples * (self.erm_epochs + 2 * self.finetune_epochs)

    def epochs(self, objective: ObjectiveSettings) -> int:
        """How many epochs an objective may train, if each of its epochs passes every training sample."""
        if "epochs" in objective.fixed_settings:
            return int(objective.fixed_settings["epochs"])
        passes_before = self.erm_epochs * self.samples if objective.continues else 0
        return self.epochs_after(passes_before, objective.passes_per_sample * self.samples)

    def epochs_after(self, passes_before: int, passes_per_epoch: int) -> int:
        """How many epochs the rest of the budget allows, at least one."""
        return max(1, (self.total - passes_before) // passes_per_epoch)


def mitigate(
    folder: str | Path,
    out: str | Path,
    settings: MitigateSettings | None = None,
    *,
    execution: TrainingsExecution | None = None,
) -> Mitigation:
    """Train by ERM and by every objective with the same budget, once per seed. A stopped call continues.

    The budget is counted in sample passes: those of ERM's epochs, plus twice `finetune_epochs` over the training
    samples. Each method spends it in its own way:

    - pruned-contrast starts from ERM's last epoch and passes samples twice per step.
    - erm-continue starts there, too. It passes samples once per step, so it has twice as many epochs.
    - Methods that train from scratch start from ERM's starting weights and spend the whole budget.
    - JTT's first network counts up to the epoch whose errors it uses. Its epochs are as long as the upweighted set.
    - Methods that fit a new head start from ERM's last epoch and spend less. If they fit on training samples that the
      first network must not have seen, as AFR does, they start from an ERM training that held these samples out.

    Arguments:
        folder: the data folder.
        out: folder for the runs: OUT/OBJECTIVE/seed_0, and so on.
        settings: objectives, seeds, epochs, the settings of training.
        execution: device, workers, batch size of evaluation, and where networks are trained: first those of ERM, then
            all others.

    Raises:
        UserError: there is no val split; a group that an objective needs has no sample; a run has other settings.

    Example:
        ```python
        made = sm.mitigate("birds", "repair", sm.MitigateSettings(model="resnet18", seeds="0..1"))
        ```
    """
    check_not_launched("mitigate")
    settings, out = settings or MitigateSettings(), local_folder(out)
    data = read_with_settings(Path(folder), settings)
    seeds = seeds_from(settings.seeds)
    _check_data(data, settings)
    shared = settings.given()
    erm_epochs = expanded(TrainSettings(**shared), data).epochs
    budget = Budget(samples=len(data.train), erm_epochs=erm_epochs, finetune_epochs=settings.finetune_epochs)
    log(
        f"ERM and {len(settings.objective)} objectives, {len(seeds)} seeds each, into {out}; a training may pass "
        f"{budget.total} samples, {budget.samples} of them per epoch"
    )

    def planned(place: Path, seed: int, objective: ObjectiveSettings, **changes: Any) -> PlannedTraining:
        config = TrainSettings(**{**shared, "seed": seed, "objective": objective, **changes})
        return PlannedTraining(place / f"seed_{seed}", config)

    def of_every_seed(objective: ObjectiveSettings, first: Mapping[str, Runs]) -> list[PlannedTraining]:
        older = first[HELD_OUT if objective.fits_on_held_out else "erm"]
        place, epochs = out / _folder_name(objective), budget.epochs(objective)
        return [
            planned(place, seed, objective, epochs=epochs, **_start(objective, run, settings))
            for seed, run in zip(seeds, older, strict=True)
        ]

    first_plans = {"erm": [planned(out / "erm", seed, objective_from("erm")) for seed in seeds]}
    if any(objective.fits_on_held_out for objective in settings.objective):
        share = settings.hold_out
        place = out / f"erm_hold_out={share:g}"
        first_plans[HELD_OUT] = [planned(place, seed, objective_from("erm"), hold_out=share) for seed in seeds]
    with several_trainings(folder, out, execution or TrainingsExecution()) as train_all:
        first, _ = _trained(first_plans, train_all)
        plans = {str(objective): of_every_seed(objective, first) for objective in settings.objective}
        jtt_plans, about_jtt = _plans_of_jtt(first["erm"], data, budget, settings, planned, out)
        runs, notes = _trained({**plans, **jtt_plans}, train_all)
    candidates = {name: runs.pop(name) for name in jtt_plans if name in runs}
    notes += about_jtt
    if candidates:
        best, about_choice = _best_of_jtt(candidates, data)
        runs["jtt"] = candidates[best]
        notes.append(about_choice)
    return Mitigation(runs={"erm": first["erm"], **runs}, notes=tuple(dict.fromkeys(notes)))


def _trained(plans: Mapping[str, Sequence[PlannedTraining]], train_all: TrainAll) -> tuple[dict[str, Runs], list[str]]:
    """Train every network of these plans.

    Returns:
        The runs by name, and notes. A name is left out if its objective can't be applied with one of the seeds.
    """
    found = iter(train_all([one for plan in plans.values() for one in plan]))
    runs: dict[str, Runs] = {}
    notes: list[str] = []
    for name, plan in plans.items():
        results = [next(found) for _ in plan]
        trained = tuple(result for result in results if isinstance(result, Run))
        if len(trained) == len(plan):
            runs[name] = trained
        else:
            why = next(result for result in results if isinstance(result, NotApplicableError))
            notes.append(f"{name} is left out: {why}.")
    return runs, notes


def _plans_of_jtt(
    erm: Runs,
    data: Dataset,
    budget: Budget,
    settings: MitigateSettings,
    planned: Callable[..., PlannedTraining],
    out: Path,
) -> tuple[dict[str, list[PlannedTraining]], list[str]]:
    """The trainings of JTT with every pair of epoch and upweight, and notes about pairs that can't be trained."""
    notes: list[str] = []
    plans: dict[str, list[PlannedTraining]] = {}
    if not settings.jtt:
        return plans, notes
    for epoch, upweight in product(settings.jtt_epochs, settings.jtt_upweights):
        try:
            errors = max(len(error_set(older, epoch, data)) for older in erm)
        except UserError as error:
            notes.append(f"JTT with the errors of epoch {epoch} is left out: {error}.")
            continue
        epochs = budget.epochs_after(epoch * len(data.train), len(data.train) + (upweight - 1) * errors)
        plans[f"epoch {epoch}, upweight {upweight}"] = [
            planned(
                out / f"jtt_epoch={epoch}_upweight={upweight}",
                older.record.settings["seed"],
                JttSettings(errors_of=f"{older.place}@{epoch}", upweight=upweight),
                epochs=epochs,
            )
            for older in erm
        ]
    return plans, notes


def _best_of_jtt(candidates: Mapping[str, Runs], data: Dataset) -> tuple[str, str]:
    """The pair of epoch and upweight that is best on the selecting half of val, and a note about the choice."""
    values = {name: _value_on_val(runs, data) for name, runs in candidates.items()}
    best = max(values, key=lambda name: values[name])
    listed = ", ".join(f"{name}: {value:.1%}" for name, value in values.items())
    tied = [name for name, value in values.items() if value == values[best]]
    tie = f" {'; '.join(tied)} tie: the first is taken." if len(tied) > 1 else ""
    return best, f"JTT: {best}, by worst-group accuracy on the selecting half of val ({listed}).{tie}"


def _start(objective: ObjectiveSettings, older: Run, settings: MitigateSettings) -> dict[str, Any]:
    """Starting network and learning rate of an objective that continues ERM."""
    return {"start": f"{older.place}@last", "lr": settings.finetune_lr} if objective.continues else {}


def _value_on_val(runs: Runs, data: Dataset) -> float:
    """Worst-group accuracy on the selecting half of val, in the epoch that it selects. The mean over seeds."""
    selecting = selecting_half(data)
    worst = []
    for run in runs:
        history = history_on(run, selecting)
        epoch = best_epoch(history, "worst_group_accuracy", run.candidate_epochs()).epoch
        rows = history[(history["epoch"] == epoch) & (history["n"] > 0)]
        worst.append(float((rows["correct"] / rows["n"]).min()))
    return float(np.mean(worst))


def _check_data(data: Dataset, settings: MitigateSettings) -> None:
    """Before anything is trained, check that the data have what every objective needs that can be applied to them."""
    selecting_half(data)
    for objective in settings.objective:
        with suppress(NotApplicableError):
            objective_class(objective).check_data(objective, data)


def _folder_name(objective: ObjectiveSettings) -> str:
    return re.sub(r"[^\w.=+-]+", "_", str(objective))
