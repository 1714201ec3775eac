"""What reports and figures are made from: runs, and the finished studies of each run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ..calibration.known_answers import KnownAnswers
from ..datasets.sources import Noun
from ..errors import UserError
from ..memorization.scores import MemorizationScores
from ..runs.run import Run
from ..studies.study import Study, studies_of
from .wording import with_names


@dataclass(frozen=True, kw_only=True)
class FinishedStudy:
    """A finished study and its run."""

    run: Run
    study: Study

    @property
    def place(self) -> dict[str, str]:
        """The columns by which a reader chooses the study."""
        return {"run": self.run.place, "study": self.study.name}

    def effects(self) -> pd.DataFrame:
        """`effects.parquet` with the columns of `place`; criterion and edit are in words, group is a name."""
        effects = with_names(self.study.effects())
        return effects.assign(
            **self.place, criterion=effects["selected_by"], number=effects["group"], group=effects["group_name"]
        )


@dataclass(frozen=True, kw_only=True)
class ReportInputs:
    """Runs and their finished studies.

    Arguments:
        runs: in the order given.
        studies: of all runs; within a run, the latest study first.
        memorization: scores of the training samples; None if none are given.
        controls: the tool's answers on a positive and a negative control; None if none are given.
    """

    runs: tuple[Run, ...]
    studies: tuple[FinishedStudy, ...]
    memorization: MemorizationScores | None = None
    controls: KnownAnswers | None = None

    @property
    def noun(self) -> Noun:
        """What a sample is called; "sample" if some runs are of images and others of texts."""
        nouns = {run.record.data.noun for run in self.runs}
        return nouns.pop() if len(nouns) == 1 else "sample"

    def by_run(self, rows_of: Callable[[Run], pd.DataFrame]) -> pd.DataFrame:
        """Rows of every run, with the run's name in the column `run`."""
        frames = [rows_of(run) for run in self.runs]
        return pd.concat([frame.assign(run=run.place) for run, frame in zip(self.runs, frames, strict=True)])

    def effects(self) -> pd.DataFrame:
        """Effects of all studies in one frame."""
        return pd.concat([study.effects() for study in self.studies], ignore_index=True)


def read_inputs(
    runs: Sequence[str | Path],
    study: str | None = None,
    *,
    memorization: str | Path | None = None,
    controls: str | Path | None = None,
) -> ReportInputs:
    """Open runs and find their finished studies.

    Arguments:
        runs: directories.
        study: name of the only study to show; all finished ones if not given.
        memorization: folder with memorization scores.
        controls: file with the answers on a positive and a negative control.

    Raises:
        UserError: no run is given, one is given twice, a directory is no run, or no run has this study; the folder
            holds no scores, or scores of other data; the file is missing or broken.
    """
    if not runs:
        raise UserError("no run is named: give its directory")
    if len({Path(place).resolve() for place in runs}) < len(runs):
        raise UserError("a run is named twice: name each once")
    opened = tuple(Run(place) for place in runs)
    found = []
    for run in opened:
        _ = run.record  # raises an error if the directory is no run
        finished = [one for one in studies_of(run) if study in (None, one.name) and one.is_complete]
        latest = sorted(finished, key=_begun, reverse=True)
        found += [FinishedStudy(run=run, study=one) for one in latest]
    if study is not None and not found:
        raise UserError(f"no finished study {study!r} in {', '.join(map(str, runs))}: `spurmem study` makes one")
    scores = None if memorization is None else _scores(memorization, opened)
    known = None if controls is None else KnownAnswers.read(Path(controls))
    return ReportInputs(runs=opened, studies=tuple(found), memorization=scores, controls=known)


def _scores(folder: str | Path, runs: Sequence[Run]) -> MemorizationScores:
    scores = MemorizationScores(folder)
    for run in runs:
        if run.record.data.fingerprint != scores.record.data.fingerprint:
            raise UserError(f"{folder} holds the scores of other data than {run.path}: make them of its data folder")
    return scores


def _begun(study: Study) -> float:
    """When a study was begun."""
    _ = study.record  # raises an error if it is missing or broken
    return (study.path / "study.json").stat().st_mtime
