"""What a run's network cost: seconds and sample passes of its own training, and of what other runs did before it."""

from __future__ import annotations

import math

from ..runs.run import Run


def cost_of(run: Run) -> dict[str, float]:
    """Seconds and sample passes of a run's training: its own (seconds, sample_passes), and with those that other runs
    had spent on what it began with (total_seconds, total_sample_passes); nan where they aren't known."""
    spent = run.record.spent
    if spent is None:
        return dict.fromkeys(("seconds", "sample_passes", "total_seconds", "total_sample_passes"), math.nan)
    seconds_before = math.nan if spent.seconds_before is None else spent.seconds_before
    passes_before = math.nan if spent.passes_before is None else spent.passes_before
    return {
        "seconds": spent.seconds,
        "sample_passes": spent.passes,
        "total_seconds": spent.seconds + seconds_before,
        "total_sample_passes": spent.passes + passes_before,
    }
