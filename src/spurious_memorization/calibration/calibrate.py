"""Run the trials, keep their records, and say how far the verdicts can be trusted."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pydantic import Field
from scipy import stats

from ..atomic import write_text
from ..console import progress, say
from ..errors import UserError
from ..runs.run import check_same_settings
from ..settings import Settings
from ..statistics.verdicts import LEVEL
from .networks import FAMILIES, Family
from .trials import Record, run_trial

QUESTIONS = ("influential", "selective", "memorizing")
CRITERIA = ("ablation", "gradient", "taylor", "weight_norm", "random")
DESCRIPTIVE = ("no_correlation", "permuted_labels", "untrained")


class CalibrateSettings(Settings):
    """How many networks the tool is tried on."""

    networks: int = Field(50, ge=2, description="independently trained networks for the exact nulls")
    plants: int = Field(16, ge=0, description="networks with planted channels to try")
    described: int = Field(6, ge=0, description="networks of each further null: no correlation, permuted, untrained")
    controls: int = Field(99, ge=19, description="matched controls of each set")
    seed: int = Field(0, ge=0, description="of the first network; the others count on")


class Trial(NamedTuple):
    """One trial by its name."""

    kind: str
    family: Family
    seed: int

    @property
    def file(self) -> str:
        return f"{self.kind}_{self.family}_{self.seed:04d}.json"


@dataclass(frozen=True)
class Rate:
    """A rate over networks as clusters.

    Arguments:
        value: mean over networks of each one's rate.
        low, high: 95 % interval, by the t distribution of the networks' rates; where these are all alike, that of
            Clopper and Pearson (1934) with a network as one trial.
        n: answers.
        networks: that gave any.
        p_above: of the test that the rate is at most 5 %, one-sided.
    """

    value: float
    low: float
    high: float
    n: int
    networks: int
    p_above: float


def calibrate(
    out: str | Path = "calibration", settings: CalibrateSettings | None = None, *, workers: int | None = None
) -> pd.DataFrame:
    """Try the tool on networks with known answers; every trial is stored as it ends, and a stopped call continues.

    Arguments:
        out: folder for the records.
        settings: how many networks.
        workers: processes, each on one thread; as many as there are cores if not given.

    Returns:
        The records: one row a trial.

    Raises:
        UserError: the folder can't be written or holds trials with other settings.
    """
    settings, out = settings or CalibrateSettings(), Path(out)
    _begin(out, settings)
    trials = planned(settings)
    missing = [trial for trial in trials if not (out / trial.file).is_file()]
    if missing:
        say(f"{len(missing)} trials of {len(trials)} to run, in {out}: small networks are trained and questioned")
    for trial, record in _run(missing, settings.controls, workers or os.cpu_count() or 1):
        write_text(out / trial.file, json.dumps(record, indent=1) + "\n")
    rows = [{**trial._asdict(), **_read(out / trial.file)} for trial in trials]
    return pd.DataFrame(rows)


def planned(settings: CalibrateSettings) -> list[Trial]:
    """Every trial, the longest first, network families in turn."""
    counts = {
        "planted": settings.plants,
        "exact_nulls": settings.networks,
        **dict.fromkeys(DESCRIPTIVE, settings.described),
    }
    return [
        Trial(kind, FAMILIES[1 - n % 2], settings.seed + n // 2 * 2 + n % 2)
        for kind, many in counts.items()
        for n in range(many)
    ]


def _begin(out: Path, settings: CalibrateSettings) -> None:
    """Make the folder, or make sure that its trials were run with the same controls."""
    stated = {"controls": settings.controls}
    file = out / "calibration.json"
    try:
        out.mkdir(parents=True, exist_ok=True)
        if file.is_file():
            check_same_settings(json.loads(file.read_text(encoding="utf-8")), stated, f"calibration {out}")
        else:
            write_text(file, json.dumps(stated) + "\n")
    except OSError as error:
        raise UserError(f"{out} can't be written ({error.strerror}): choose another --out") from error
    except ValueError as error:
        raise UserError(f"{file} is broken: delete the folder, or choose another --out") from error


def _run(trials: Sequence[Trial], controls: int, workers: int) -> Iterator[tuple[Trial, Record]]:
    if workers == 1 or len(trials) < 2:
        for trial in progress(trials, len(trials), "trials"):
            yield trial, run_trial(*trial, controls)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        running = {pool.submit(run_trial, *trial, controls): trial for trial in trials}
        try:
            for done in progress(as_completed(running), len(trials), "trials"):
                yield running[done], done.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _read(file: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file} is broken: delete it and run the same command again") from error
    return record


def false_rate(answers: Sequence[Sequence[bool]]) -> Rate:
    """The rate of false answers over networks, each of which gave some.

    Arguments:
        answers: of each network; those that gave none don't count.
    """
    given = [np.asarray(of_one, float) for of_one in answers if len(of_one)]
    rates, n = np.array([of_one.mean() for of_one in given]), sum(map(len, given))
    if not len(rates):
        return Rate(np.nan, np.nan, np.nan, 0, 0, np.nan)
    mean, k = float(rates.mean()), len(rates)
    if rates.std() == 0:
        exact = stats.binomtest(round(mean * k), k, LEVEL, alternative="greater")
        interval = stats.binomtest(round(mean * k), k).proportion_ci(method="exact")
        return Rate(mean, float(interval.low), float(interval.high), n, k, float(exact.pvalue))
    low, high = _interval_of_mean(rates)
    return Rate(mean, low, high, n, k, float(stats.ttest_1samp(rates, LEVEL, alternative="greater").pvalue))


def false_rates(records: pd.DataFrame, kind: str = "exact_nulls") -> dict[str, Rate]:
    """The rate of "yes" to each question in the trials of one kind."""
    rows = records[records["kind"] == kind]
    return {question: false_rate(list(rows[question])) for question in QUESTIONS}


def recalls(records: pd.DataFrame) -> pd.DataFrame:
    """Recall of each criterion at the planted number: mean and 95 % interval over accepted plants, one row a family and
    criterion."""
    rows = []
    accepted = _accepted(records)
    for family in (*FAMILIES, "all"):
        here = accepted if family == "all" else accepted[accepted["family"] == family]
        for criterion in CRITERIA:
            values = np.array([recall[criterion] for recall in here["recall"]])
            low, high = _interval_of_mean(values)
            rows.append((family, criterion, len(values), values.mean() if len(values) else np.nan, low, high))
    return pd.DataFrame(rows, columns=["family", "criterion", "plants", "recall", "low", "high"])


def planted_verdicts(records: pd.DataFrame) -> Mapping[str, int]:
    """How often each verdict was given on the planted set."""
    counts = _accepted(records)["verdict"].value_counts()
    return {str(verdict): int(n) for verdict, n in counts.items()}


def _accepted(records: pd.DataFrame) -> pd.DataFrame:
    rows = records[records["kind"] == "planted"]
    return rows[rows["accepted"].astype(bool)] if len(rows) else rows.assign(recall=[], verdict=[])


def _interval_of_mean(values: np.ndarray[Any, Any]) -> tuple[float, float]:
    if len(values) < 2 or values.std() == 0:
        return (float(values.mean()),) * 2 if len(values) else (np.nan, np.nan)
    interval = stats.ttest_1samp(values, 0).confidence_interval()
    return max(0.0, float(interval.low)), min(1.0, float(interval.high))
