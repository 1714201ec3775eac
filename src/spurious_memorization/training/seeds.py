"""Several trainings that are equal but for the seed."""

from __future__ import annotations

import re
from typing import Any

from ..errors import UserError
from ..runs.epochs import run_and_epoch
from .objectives.settings import JttSettings
from .recipes import TrainSettings


def seeds_from(text: str) -> range:
    """The seeds of "0..2", or of a single number.

    Raises:
        UserError: the text is neither.
    """
    match = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", text)
    if not match or int(match[2] or match[1]) < int(match[1]):
        raise UserError(f"seeds {text!r}: write 0..2")
    return range(int(match[1]), int(match[2] or match[1]) + 1)


def with_seed(settings: TrainSettings, seed: int) -> TrainSettings:
    """The settings with this seed; a folder of several seeds' runs that they name stands for the run of this one."""
    changed: dict[str, Any] = {"seed": seed}
    if settings.start is not None:
        changed["start"] = of_seed(settings.start, seed)
    if isinstance(settings.objective, JttSettings):
        errors_of = of_seed(settings.objective.errors_of, seed)
        changed["objective"] = settings.objective.model_copy(update={"errors_of": errors_of})
    return settings.model_copy(update=changed)


def of_seed(start: str, seed: int) -> str:
    """RUN or RUN@EPOCH with RUN/seed_0 in the place of RUN, and so on, where RUN holds the runs of several seeds."""
    path, epoch = run_and_epoch(start)
    below = path / f"seed_{seed}"
    return f"{below}@{epoch}" if below.is_dir() and not (path / "run.json").is_file() else start
