"""The threads of a small network's work on a CPU, which often only wait for each other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

TURNS = 3

HARDLY_SLOWER = 1.1
"""One thread may take so many times the seconds of all threads,"""

CLEARLY_MORE = 1.5
"""if all threads take at least so many times its processor time."""


@contextmanager
def on_threads(n: int | None) -> Iterator[None]:
    """Compute with so many threads of PyTorch within the block; None leaves their number as it is."""
    before = torch.get_num_threads()
    if n is None or n == before:
        yield
        return
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def is_one_enough(run: Callable[[], object]) -> bool:
    """Whether some work takes hardly longer on one thread than on all, and clearly less of the processor's time.

    Arguments:
        run: does the work. It is called once to begin with, and then on all threads and on one in turns.
    """
    run()
    numbers = (torch.get_num_threads(), 1)
    turns = [[_measured(run, n) for n in numbers] for _ in range(TURNS)]
    (of_all, processor_of_all), (of_one, processor_of_one) = np.median(turns, axis=0)
    return bool(of_one <= HARDLY_SLOWER * of_all and processor_of_all >= CLEARLY_MORE * processor_of_one)


def _measured(run: Callable[[], object], n: int) -> tuple[float, float]:
    """Seconds, and seconds of processor time of all threads together."""
    with on_threads(n):
        started, used = time.perf_counter(), time.process_time()
        run()
        return time.perf_counter() - started, time.process_time() - used
