"""What a run's network cost: seconds and sample passes of its own training, and of the one that it started from."""

from __future__ import annotations

import math

from ..run import Run
from .methods import stated_start


def cost_of(run: Run) -> dict[str, float]:
    """Seconds and sample passes of a run's training, its own (seconds, sample_passes) and with those of the run that it
    started from, up to the epoch that it took (total_seconds, total_sample_passes); nan where they aren't known."""
    seconds, passes = _own(run)
    older_seconds = older_passes = 0.0
    if stated_start(run) is not None:
        older_seconds = older_passes = math.nan
    return {
        "seconds": seconds,
        "sample_passes": passes,
        "total_seconds": seconds + older_seconds,
        "total_sample_passes": passes + older_passes,
    }


def _own(run: Run) -> tuple[float, float]:
    return math.nan, math.nan
