"""The cost of a run's network: seconds and sample passes of its training, and of the runs on which it builds."""

from __future__ import annotations

import math

from ..runs.run import Run


def cost_of(run: Run) -> dict[str, float]:
    """The cost of a run's training; nan where it is not known.

    Returns:
        seconds and sample_passes of the training itself; total_seconds and total_sample_passes together with those of
        the runs on which it builds.
    """
    cost = run.record.training_cost
    if cost is None:
        return dict.fromkeys(("seconds", "sample_passes", "total_seconds", "total_sample_passes"), math.nan)
    seconds_before = math.nan if cost.seconds_before is None else cost.seconds_before
    passes_before = math.nan if cost.sample_passes_before is None else cost.sample_passes_before
    return {
        "seconds": cost.seconds,
        "sample_passes": cost.sample_passes,
        "total_seconds": cost.seconds + seconds_before,
        "total_sample_passes": cost.sample_passes + passes_before,
    }
