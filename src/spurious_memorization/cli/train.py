"""`spurmem train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import RenderableType

from ..reporting.tables.run_tables import accuracy_table
from ..runs.run import Run
from ..training.seeds import seeds_from, with_seed
from ..training.settings import TrainExecution, TrainSettings
from ..training.train import train
from .app import Answer


def train_command(
    data: Path,
    /,
    *,
    out: Path,
    resume: bool = False,
    seeds: str | None = None,
    settings: Annotated[TrainSettings | None, Parameter(name="*")] = None,
    execution: Annotated[TrainExecution | None, Parameter(name="*")] = None,
) -> Answer:
    """Train a network; keep it, its predictions and its history after every epoch.

    Arguments:
        data: the data folder
        out: the run's directory
        resume: continue a training that was stopped
        seeds: several trainings, such as 0..2, into RUN/seed_0 and so on, from the same seeds of --from if it has them
    """
    settings = settings or TrainSettings()
    if seeds is None:
        runs = [train(data, out, settings, resume=resume, execution=execution)]
    else:
        runs = [
            train(
                data,
                out / f"seed_{seed}",
                with_seed(settings, seed),
                resume=resume,
                execution=execution,
            )
            for seed in seeds_from(seeds)
        ]
    return finished(runs)


def finished(runs: list[Run]) -> Answer:
    """Accuracies of the last epoch of each run, and what to type next."""
    text: list[RenderableType] = []
    facts = []
    for run in runs:
        last = run.choose_epoch("last")
        best = run.choose_epoch("best") if "val" in set(run.history()["split"]) else last
        data = run.record.data
        text += [
            accuracy_table(run.history(), last, data.groups, data.minority),
            f"best epoch by {run.record.best_by.replace('_', ' ')} on val: {best}",
        ]
        history = run.history().query("epoch == @last")
        accuracy = history.to_dict(orient="records")
        facts.append({"run": str(run.path), "last": last, "best": best, "accuracy": accuracy})
    text.append(f"next: spurmem study {runs[-1].path}")
    return Answer(text, {"runs": facts})
