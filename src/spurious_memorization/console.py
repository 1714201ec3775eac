"""Messages and progress bars of long work, on standard error."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")

console = Console(stderr=True, highlight=False, soft_wrap=True)

_label: ContextVar[str] = ContextVar("label", default="")
_speaks: ContextVar[bool | None] = ContextVar("speaks", default=None)


def log(line: str) -> None:
    """Print one line of progress for the user."""
    console.print(f"{_label.get()}{line}", markup=False, emoji=False)


@contextmanager
def labeled(label: str) -> Iterator[None]:
    """Begin the lines of this block with a label if this is a further process: others log at the same time."""
    before = _label.set(f"{label}: " if _is_further_process() else "")
    try:
        yield
    finally:
        _label.reset(before)


def duration(seconds: float) -> str:
    """ "40 s", "12 min" or "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@contextmanager
def only_here(speaks: bool) -> Iterator[None]:
    """Within the block, lines and progress bars of this process are shown only if it is the one that speaks."""
    before, token = console.quiet, _speaks.set(speaks)
    console.quiet = before or not speaks
    try:
        yield
    finally:
        console.quiet = before
        _speaks.reset(token)


@cache
def log_once(line: str) -> None:
    """Print a line, unless this process has printed it before."""
    log(line)


def progress(items: Iterable[T], total: int, label: str) -> Iterator[T]:
    """Iterate and show a progress bar. No bar is shown if standard error is not a terminal that can redraw a line, or
    if this is a further process, since another one may show a bar there. `only_here` tells which one shows it."""
    speaks = _speaks.get()
    if not console.is_interactive or not (speaks or (speaks is None and not _is_further_process())):
        yield from items
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        yield from bar.track(items, total=total, description=label)


def _is_further_process() -> bool:
    return multiprocessing.parent_process() is not None
