"""Run the trials of a calibration, and store their records."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from ..atomic import write_text
from ..console import log, progress
from ..errors import UserError
from ..locks import locked
from ..processes import without_main_script
from ..runs.records import check_same_settings
from ..stored_files import checked_record, is_stored, read_json
from .networks import FAMILIES, Family
from .rates import STRONG
from .settings import CalibrateSettings
from .trial_records import TrialRecord
from .trials import POINTS, Record, run_trial

MAX_WORKERS = 256

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
    out: str | Path = "calibration", settings: CalibrateSettings | None = None, *, workers: int | None = None
) -> pd.DataFrame:
    """Try the tool on networks whose answer is known.

    The record of each trial is stored when the trial ends. If the call is stopped, the same call continues.

    Arguments:
        out: folder for the records.
        settings: number of networks and null sets.
        workers: number of processes, each on one thread; one per core if not given.

    Returns:
        The records, one row per trial: kind, family, seed, and what the trial recorded (see `trials`).

    Raises:
        UserError: the folder can't be written, it holds trials with other settings, or `workers` is out of range.
    """
    settings, out = settings or CalibrateSettings(), Path(out)
    if workers is not None and not 1 <= workers <= MAX_WORKERS:
        raise UserError(f"--workers {workers}: choose from 1 to {MAX_WORKERS}")
    trials = planned_trials(settings)
    with locked(out):
        _begin(out, settings)
        missing = [trial for trial in trials if not is_stored(out / trial.file)]
        there = {trial: _read(out, trial) for trial in trials if trial not in missing}
        if missing:
            log(f"{len(missing)} of {len(trials)} trials to run, in {out}: each trains a small network and studies it")
        for trial, record in _run(missing, settings, workers or os.cpu_count() or 1):
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


def _run(
    trials: Sequence[PlannedTrial], settings: CalibrateSettings, workers: int
) -> Iterator[tuple[PlannedTrial, Record]]:
    options = (settings.controls, settings.criterion)
    if workers == 1 or len(trials) < 2:
        for trial in progress(trials, len(trials), "trials"):
            yield trial, run_trial(*trial, *options)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        with without_main_script():
            running = {pool.submit(run_trial, *trial, *options): trial for trial in trials}
        try:
            for done in progress(as_completed(running), len(trials), "trials"):
                yield running[done], done.result()
        except BrokenProcessPool as error:
            raise UserError("a process of the calibration was ended: run it again with fewer --workers") from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _read(out: Path, trial: PlannedTrial) -> dict[str, Any]:
    """The record of a trial that was run."""
    file, remedy = out / trial.file, "delete it and run the same command again"
    record = read_json(file, remedy, may_hold_nan=True)
    checked_record(file, record, TrialRecord, remedy)
    return record
