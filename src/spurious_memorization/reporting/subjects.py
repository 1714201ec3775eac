"""What a report is about: runs, and the finished studies of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ..errors import UserError
from ..runs.run import Run
from ..studies.study import Study, studies_of
from .tables import edit_text, selected_by


@dataclass(frozen=True)
class Studied:
    """A finished study and its run."""

    run: Run
    study: Study

    @property
    def place(self) -> dict[str, str]:
        """The columns by which a reader chooses it."""
        return {"run": str(self.run.path), "study": self.study.path.name}

    def effects(self) -> pd.DataFrame:
        """`effects.parquet` with the columns of `place`, and each set and edit in words."""
        effects = self.study.effects()
        words = {
            "criterion": [selected_by(row) for row in effects.to_dict(orient="records")],
            "edit": [edit_text(row) for row in effects.to_dict(orient="records")],
        }
        return effects.assign(**self.place, **words, group=effects["group_name"], number=effects["group"])


@dataclass(frozen=True)
class Subjects:
    """Runs and their finished studies, as figures take them.

    Arguments:
        runs: in the order given.
        studies: of all of them, those of each run begun last first.
    """

    runs: tuple[Run, ...]
    studies: tuple[Studied, ...]

    def by_run(self, rows_of: Callable[[Run], pd.DataFrame]) -> pd.DataFrame:
        """Rows of every run, under the run's name."""
        frames = [rows_of(run) for run in self.runs]
        return pd.concat([frame.assign(run=str(run.path)) for run, frame in zip(self.runs, frames, strict=True)])


def subjects(runs: Sequence[str | Path], study: str | None = None) -> Subjects:
    """Open runs and find their studies.

    Arguments:
        runs: directories.
        study: name of the only study to show; all finished ones if not given.

    Raises:
        UserError: none is named or one twice, a directory is no run, or no run has a finished study of this name.
    """
    if not runs:
        raise UserError("no run is named: give its directory")
    if len({Path(place).resolve() for place in runs}) < len(runs):
        raise UserError("a run is named twice: name each once")
    opened = tuple(Run(Path(place)) for place in runs)
    found = []
    for run in opened:
        _ = run.record  # what is no run is called so
        begun = sorted(studies_of(run), key=lambda one: (one.path / "study.json").stat().st_mtime, reverse=True)
        found += [Studied(run, one) for one in begun if one.is_complete and study in (None, one.path.name)]
    if study is not None and not found:
        raise UserError(f"no finished study {study!r} in {', '.join(map(str, runs))}: `spurmem study` makes one")
    return Subjects(opened, tuple(found))


def with_star(name: str, is_minority: bool) -> str:
    """The name of a group in a panel's title."""
    return f"{name} (minority)" if is_minority else name
