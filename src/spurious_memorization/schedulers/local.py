"""Workers that are processes of this machine."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import weakref
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from tqdm import tqdm

from ..processes import without_main_script
from .places import LostWorkerError
from .worker import Body


class LocalProcesses:
    """A place for further processes of this machine.

    Arguments:
        room: the largest number of them.
        make: the pickled function that makes the function of a worker.
        threads: of PyTorch in each process.
    """

    def __init__(self, room: int, make: bytes, threads: int) -> None:
        self.room = room
        self._make = make
        self._threads = threads

    def start(self) -> LocalProcess:
        """Start a process; see `Place.start`."""
        return LocalProcess(self._make, self._threads)

    def ready(self, busy: Sequence[LocalProcess]) -> LocalProcess:
        """Wait for one of the processes; see `Place.ready`."""
        by_pipe = {worker.pipe: worker for worker in busy}
        return next(by_pipe[pipe] for pipe in wait(list(by_pipe)) if isinstance(pipe, Connection))

    def close(self) -> None:
        """Nothing is held."""


class LocalProcess:
    """A process with a pipe, which ends with it and with this process, however that ends."""

    def __init__(self, make: bytes, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other_end = context.Pipe()
        self.process = context.Process(target=_work, args=(other_end, make, threads))
        # An interrupt may come between the start of a process and `stop`. At its exit, this process would wait for it.
        self._end = weakref.finalize(self, _kill, self.process)
        with without_main_script():
            self.process.start()
        other_end.close()

    def send(self, piece: bytes) -> None:
        """Give it a piece; see `Worker.send`."""
        try:
            self.pipe.send_bytes(piece)
        except OSError:
            return  # it has ended, which `answer` says

    def answer(self) -> tuple[bool, Any]:
        """Read its answer; see `Worker.answer`."""
        try:
            told: tuple[bool, Any] = self.pipe.recv()
        except (EOFError, OSError) as error:
            self.process.join()
            code = self.process.exitcode or 0
            how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
            raise LostWorkerError(f"process {self.process.pid} has ended, {how}") from error
        return told

    def stop(self) -> None:
        """Kill it."""
        self._end()
        self.process.join()
        self.pipe.close()


def _kill(process: BaseProcess) -> None:
    if process.pid is not None:
        process.kill()


def _work(pipe: Connection, make: bytes, threads: int) -> None:
    """Start, and answer pieces until the other end of the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process ends this one
    tqdm.set_lock(threading.RLock())  # its own lock, in PyTorch's bars, is a semaphore that a killed process leaves
    body = Body()
    told = body.start(make, threads)
    while True:
        try:
            pipe.send(told)
            piece = pipe.recv_bytes()
        except (EOFError, OSError):
            return
        told = body.run(piece)
