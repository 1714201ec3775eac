"""Where pieces of work may run: what a place has to offer."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

Run = Callable[[Any], Any]
"""Takes a piece of work, gives its result."""


class LostWorkerError(Exception):
    """A worker has ended before it gave its answer. The message says what is known about it."""


class Worker(Hashable, Protocol):
    """Answers one message at a time. The first answer, to its start, comes without a message."""

    def send(self, piece: bytes) -> None:
        """Give the worker a pickled piece of work. It has no other one."""
        ...

    def answer(self) -> tuple[bool, Any]:
        """Whether it went well, and the result or the exception.

        Raises:
            LostWorkerError: the worker has ended.
        """
        ...

    def stop(self) -> None:
        """End the worker, whatever it does."""
        ...


class Place(Protocol):
    """Starts workers that each hold a function, made once by the worker itself."""

    @property
    def room(self) -> int:
        """The largest number of workers at the same time. It may change."""
        ...

    def start(self) -> Worker:
        """Start a worker. It answers when its function is made."""
        ...

    def ready(self, busy: Sequence[Any]) -> Any:
        """Wait until one of these workers has an answer, or has ended; give that worker. None means that there may be
        room for more workers."""
        ...

    def close(self) -> None:
        """Let go of what the place holds, once its workers are stopped."""
        ...
