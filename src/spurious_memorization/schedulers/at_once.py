"""One function in several processes of this machine at the same time, of which none can go on without the others."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from functools import partial

from ..errors import UserError
from ..together import LostProcessError
from .local import LocalProcesses
from .places import LostWorkerError
from .scheduler import threads_of_each


def at_once(function: Callable[[int], object], n: int) -> None:
    """Call a function in n further processes at the same time, with the numbers 0 to n - 1.

    The processes share this one's threads. If one of them fails or ends, all are ended. They end with this one, too.

    Raises:
        UserError: a process has ended, or a call raised it.
    """
    import cloudpickle

    place = LocalProcesses(n, cloudpickle.dumps(partial(_calling, function)), threads_of_each(n))
    workers = [place.start() for _ in range(n)]
    lost: LostProcessError | None = None
    try:
        for number, worker in enumerate(workers):
            worker.send(cloudpickle.dumps(number))
        answers = dict.fromkeys(workers, 2)  # to its start, and to its number
        while answers:
            worker = place.ready(list(answers))
            try:
                went_well, answer = worker.answer()
            except LostWorkerError as error:
                raise UserError(
                    f"{error}, and so the other processes were ended: often memory is full; continue with --resume"
                ) from error
            answers[worker] -= 1
            if isinstance(answer, LostProcessError):
                lost = answer  # another one tells why
            elif not went_well:
                raise answer
            if not answers[worker] or not went_well:
                del answers[worker]
        if lost is not None:
            raise lost
    finally:
        for worker in workers:
            worker.stop()


def _calling(function: Callable[[int], object]) -> Callable[[int], None]:
    """What a process holds."""
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def call(number: int) -> None:
        function(number)

    return call


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
