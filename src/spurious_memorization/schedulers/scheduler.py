"""One way to run many independent pieces of work: here, in further processes of this machine, or on Ray."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from typing import Generic, Protocol, TypeVar

from ..console import duration, log
from ..errors import UserError
from ..settings import Execution, place_of
from .local import LocalProcesses
from .places import LostWorkerError, Place, Worker

Piece = TypeVar("Piece")
Result = TypeVar("Result")
Piece_contra = TypeVar("Piece_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)

MAX_LOSSES = 3
"""A piece of work that ends its worker this often is not tried again."""

START = -1
"""Number that stands for the start of a worker."""


class Scheduler(Protocol[Piece_contra, Result_co]):
    """Runs pieces of work, each whole and on one worker."""

    @property
    def workers(self) -> int:
        """The largest number of pieces that run at the same time."""
        ...

    def run(self, pieces: Iterable[Piece_contra]) -> Iterator[tuple[int, Result_co]]:
        """Run pieces.

        Yields:
            The number of a piece, counted from 0, and its result, as they are finished: in any order.

        Raises:
            UserError: a piece raised it, or ended its worker several times.
        """
        ...


class InThisProcess(Generic[Piece, Result]):
    """Runs one piece after the other in this process, in their order.

    Arguments:
        function: gives the result of a piece.
    """

    workers = 1

    def __init__(self, function: Callable[[Piece], Result]) -> None:
        self._function = function

    def run(self, pieces: Iterable[Piece]) -> Iterator[tuple[int, Result]]:
        """Run pieces; see `Scheduler.run`."""
        for number, piece in enumerate(pieces):
            yield number, self._function(piece)


class OnWorkers(Generic[Piece, Result]):
    """Runs pieces on workers, which are started when they are needed and kept for further pieces.

    The piece of a worker that was lost runs again on another one.

    Arguments:
        place: where the workers are.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._idle: list[Worker] = []
        self._busy: dict[Worker, tuple[int, Piece] | None] = {}  # None while the worker starts

    @property
    def workers(self) -> int:
        """The largest number of pieces that run at the same time, now."""
        return self._place.room

    def run(self, pieces: Iterable[Piece]) -> Iterator[tuple[int, Result]]:
        """Run pieces; see `Scheduler.run`."""
        try:
            yield from self._run(enumerate(pieces))
        finally:
            self._stop([worker for worker, piece in self._busy.items() if piece is not None])

    def close(self) -> None:
        """End all workers."""
        self._stop([*self._idle, *self._busy])

    def _run(self, pieces: Iterator[tuple[int, Piece]]) -> Iterator[tuple[int, Result]]:
        losses: Counter[int] = Counter()
        waiting: deque[tuple[int, Piece]] = deque()  # no more than there are workers, since pieces may be large
        while True:
            waiting.extend(islice(pieces, max(0, max(1, self.workers) - len(waiting))))
            if not waiting and not any(self._busy.values()):
                return
            self._give(waiting)
            worker = self._place.ready(list(self._busy))
            if worker is None:
                continue
            piece = self._busy.pop(worker)
            number = START if piece is None else piece[0]
            try:
                went_well, answer = worker.answer()
            except LostWorkerError as error:
                worker.stop()
                losses[number] += 1
                _announce_loss(number, losses[number], error)
                waiting.extendleft([] if piece is None else [piece])
                continue
            if not went_well:
                worker.stop()
                raise answer
            self._idle.append(worker)
            losses[START] = 0
            if piece is not None:
                yield number, answer

    def _stop(self, workers: Sequence[Worker]) -> None:
        for worker in workers:
            worker.stop()
            self._busy.pop(worker, None)
        self._idle = [worker for worker in self._idle if worker not in workers]

    def _give(self, waiting: deque[tuple[int, Piece]]) -> None:
        """Give waiting pieces to idle workers, and start further ones for the rest."""
        import cloudpickle

        while self._idle and waiting:
            worker, piece = self._idle.pop(), waiting.popleft()
            worker.send(cloudpickle.dumps(piece[1]))
            self._busy[worker] = piece
        starting = sum(piece is None for piece in self._busy.values())
        for _ in range(min(len(waiting) - starting, self.workers - len(self._busy) - len(self._idle))):
            self._busy[self._place.start()] = None


def _announce_loss(number: int, times: int, loss: LostWorkerError) -> None:
    """Log that a worker was lost.

    Raises:
        UserError: this has happened too often with the same piece.
    """
    what = "its start" if number == START else f"piece {number}"
    if times == MAX_LOSSES:
        raise UserError(
            f"{what} has ended {times} workers ({loss}): often memory is full, so run it again with fewer workers or "
            "smaller batches (--eval-batch-size)"
        ) from loss
    log(f"a worker is lost ({loss}): {what} is tried again")


def threads_of_each(workers: int) -> int:
    """Threads of PyTorch in each of several processes that share what this process has."""
    import torch

    return max(1, torch.get_num_threads() // workers)


def workers_for(
    execution: Execution, make: Callable[[], Callable[[Piece], Result]]
) -> AbstractContextManager[Scheduler[Piece, Result]]:
    """Workers where an execution wants them, on GPUs unless it names a CPU; see `workers_on`."""
    return workers_on(place_of(execution), make, on_gpus=not execution.device.startswith("cpu"))


def announced(results: Iterable[tuple[int, Result]], names: Sequence[str]) -> Iterator[tuple[int, Result]]:
    """Give the results of a scheduler, and log which piece is done and about how long the others take.

    Arguments:
        results: from `Scheduler.run`.
        names: of all pieces.
    """
    started = time.monotonic()
    for done, (number, result) in enumerate(results, 1):
        yield number, result
        left = (time.monotonic() - started) / done * (len(names) - done)
        log(f"{names[number]} is done, {done} of {len(names)}" + (f"; about {duration(left)} left" if left else ""))


@contextmanager
def workers_on(
    on: str, make: Callable[[], Callable[[Piece], Result]], *, on_gpus: bool
) -> Iterator[Scheduler[Piece, Result]]:
    """A scheduler whose workers end with the block.

    Arguments:
        on: "here", "processes:N", "ray", or "ray://HEAD:PORT".
        make: makes the function that gives the result of a piece. Each worker calls it once.
        on_gpus: give each worker of Ray a GPU, where the cluster has any.

    Raises:
        UserError: Ray is not installed, its cluster is not found, or no worker fits into it.
    """
    import cloudpickle

    if on == "here":
        yield InThisProcess(make())
        return
    content, (kind, _, number) = cloudpickle.dumps(make), on.partition(":")
    if kind == "processes":
        place: Place = LocalProcesses(int(number), content, threads_of_each(int(number)))
    else:
        from .on_ray import RayCluster

        place = RayCluster(None if on == "ray" else on, content, threads_of_each(1), on_gpus=on_gpus)
    scheduler = OnWorkers[Piece, Result](place)
    try:
        yield scheduler
    finally:
        scheduler.close()
        place.close()
