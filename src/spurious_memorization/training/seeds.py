"""Several trainings that differ only in the seed."""

from __future__ import annotations

import re
from typing import Any

from ..errors import UserError
from ..remote_folders import local_folder, url_of
from ..runs.epochs import run_and_epoch
from ..settings import MAX_SEED, whole_number
from .settings import TrainSettings

MAX_SEEDS = 10_000


def seeds_from(text: str) -> range:
    """The seeds of "0..2", or of a single number.

    Raises:
        UserError: the text is neither, or names too many seeds.
    """
    match = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", text)
    if not match:
        raise UserError(f"seeds {text!r}: write 0..2")
    first, last = (whole_number(digits, MAX_SEED, "seed") for digits in (match[1], match[2] or match[1]))
    if last < first:
        raise UserError(f"seeds {text!r}: write the smaller one first, as in 0..2")
    if last - first >= MAX_SEEDS:
        raise UserError(f"seeds {text} are {last - first + 1} seeds: choose at most {MAX_SEEDS}")
    return range(first, last + 1)


def with_seed(settings: TrainSettings, seed: int) -> TrainSettings:
    """The settings with this seed. If they name a folder with the runs of several seeds, the run of this seed replaces
    it."""
    changed: dict[str, Any] = {"seed": seed}
    if settings.start is not None:
        changed["start"] = of_seed(settings.start, seed)
    objective = settings.objective
    if objective.run_option is not None and objective.other_run is not None:
        other_run = of_seed(objective.other_run, seed)
        changed["objective"] = objective.model_copy(update={objective.run_option: other_run})
    return settings.model_copy(update=changed)


def of_seed(start: str, seed: int) -> str:
    """RUN or RUN@EPOCH, with RUN/seed_N in place of RUN if RUN is a folder with the runs of several seeds."""
    path, epoch = run_and_epoch(start)
    path = local_folder(path)
    below = path / f"seed_{seed}"
    return f"{url_of(below) or below}@{epoch}" if below.is_dir() and not (path / "run.json").is_file() else start
