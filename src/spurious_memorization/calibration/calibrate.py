"""Run the trials of a calibration, and store their records."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from ..atomic import write_text
from ..console import log, progress
from ..locks import locked
from ..runs.records import check_same_settings
from ..schedulers.scheduler import workers_on
from ..stored_files import checked_record, is_stored, read_json
from .networks import FAMILIES, Family
from .rates import STRONG
from .settings import CalibrateExecution, CalibrateSettings
from .trial_records import TrialRecord
from .trials import POINTS, Record, run_trial

SEEDS_PER_KIND = 10_000
"""Networks of different kinds have different seeds."""


class PlannedTrial(NamedTuple):
    """One trial: its kind, the family of its network, and the seed."""

    kind: str
    family: Family
    seed: int

    @property
    def file(self) -> str:
        """Name of the file with its record."""
        return f"{self.kind}_{self.family}_{self.seed:04d}.json"


def calibrate(
    out: str | Path = "calibration",
    settings: CalibrateSettings | None = None,
    *,
    execution: CalibrateExecution | None = None,
) -> pd.DataFrame:
    """Try the tool on networks whose answer is known.

    The record of each trial is stored when the trial ends. If the call is stopped, the same call continues.

    Arguments:
        out: folder for the records.
        settings: number of networks and null sets.
        execution: where the trials run, each on one thread.

    Returns:
        The records, one row per trial: kind, family, seed, and what the trial recorded (see `trials`).

    Raises:
        UserError: the folder can't be written, or it holds trials with other settings.
    """
    settings, out = settings or CalibrateSettings(), Path(out)
    on = (execution or CalibrateExecution()).on or f"processes:{os.cpu_count() or 1}"
    trials = planned_trials(settings)
    with locked(out):
        _begin(out, settings)
        missing = [trial for trial in trials if not is_stored(out / trial.file)]
        there = {trial: _read(out, trial) for trial in trials if trial not in missing}
        if missing:
            log(f"{len(missing)} of {len(trials)} trials to run, in {out}: each trains a small network and studies it")
            with workers_on(on, partial(_trials, settings)) as workers:
                for number, record in progress(workers.run(missing), len(missing), "trials"):
                    trial = missing[number]
                    write_text(out / trial.file, json.dumps(record, indent=1) + "\n")
                    there[trial] = _read(out, trial)
    columns = ("answers", "accepted", "recall", "verdict", "points", "target")
    return pd.DataFrame([{**dict.fromkeys(columns), **trial._asdict(), **there[trial]} for trial in trials])


def planned_trials(settings: CalibrateSettings) -> list[PlannedTrial]:
    """Every trial. The kinds and the families of networks take turns, so that a part of a run shows each of them."""
    counts = {
        **{f"memory_{n}": settings.strong_plants if n >= STRONG else settings.weak_plants for n in POINTS},
        "feature": settings.features,
        "never_trained": settings.never_trained,
        "memorizing": settings.memorizing,
        **dict.fromkeys(("distributed", "polysemantic", "example_tied"), settings.described),
    }
    planned = [
        ((n + 1) / count, PlannedTrial(kind, FAMILIES[1 - n % 2], settings.seed + SEEDS_PER_KIND * place + n))
        for place, (kind, count) in enumerate(counts.items())
        for n in range(count)
    ]
    return [trial for _, trial in sorted(planned, key=lambda one: one[0])]


def _begin(out: Path, settings: CalibrateSettings) -> None:
    """Begin the folder, or check that its trials were run with the same settings."""
    stored = {"controls": settings.controls, "criterion": list(settings.criterion)}
    file = out / "calibration.json"
    if is_stored(file):
        remedy = "delete the folder, or choose another --out"
        check_same_settings(read_json(file, remedy), stored, f"calibration {out}")
    else:
        write_text(file, json.dumps(stored) + "\n")


def _trials(settings: CalibrateSettings) -> Callable[[PlannedTrial], Record]:
    """What a worker holds: a function that runs a trial."""
    return lambda trial: run_trial(*trial, settings.controls, settings.criterion)


def _read(out: Path, trial: PlannedTrial) -> dict[str, Any]:
    """The record of a trial that was run."""
    file, remedy = out / trial.file, "delete it and run the same command again"
    record = read_json(file, remedy, may_hold_nan=True)
    checked_record(file, record, TrialRecord, remedy)
    return record
