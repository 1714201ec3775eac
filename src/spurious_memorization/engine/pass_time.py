"""How long a forward pass takes, and whether other programs keep the machine busy meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

MEASUREMENTS = 5

LONG_ENOUGH = 2.0
"""After so many seconds no further measurement begins."""


class TimedPass(NamedTuple):
    """The time of a full forward pass.

    Arguments:
        seconds: for one sample, in the shortest measurement.
        running: share of the time in which this thread ran, from 0 to 1. It computes without a pause. So on a CPU that
            nobody else uses, it is 1.
    """

    seconds: float
    running: float = 1.0


def measured_pass(run: Callable[[], object], n_samples: int, *, on_cpu: bool) -> TimedPass:
    """Measure a forward pass a few times.

    Arguments:
        run: computes it, and waits for it.
        n_samples: of the pass.
        on_cpu: whether it is computed by this thread, which may rest while it waits for an accelerator.
    """
    times: list[float] = []
    running = 0.0
    while len(times) < MEASUREMENTS and sum(times) < LONG_ENOUGH:
        started, ran = time.perf_counter(), time.thread_time()
        run()
        running += time.thread_time() - ran
        times.append(time.perf_counter() - started)
    return TimedPass(min(times) / n_samples, min(1.0, running / sum(times)) if on_cpu else 1.0)
