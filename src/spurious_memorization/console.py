"""Messages and progress bars of long work, on standard error."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")

console = Console(stderr=True, highlight=False, soft_wrap=True)


def log(line: str) -> None:
    """Print one line of progress for the user."""
    console.print(line, markup=False, emoji=False)


@contextmanager
def only_here(speaks: bool) -> Iterator[None]:
    """Within the block, lines and progress bars of this process are shown only if it is the one that speaks."""
    before = console.quiet, console.is_interactive
    try:
        if not speaks:
            console.quiet, console.is_interactive = True, False
        yield
    finally:
        console.quiet, console.is_interactive = before


@cache
def log_once(line: str) -> None:
    """Print a line, unless this process has printed it before."""
    log(line)


def progress(items: Iterable[T], total: int, label: str) -> Iterator[T]:
    """Iterate and show a progress bar. No bar is shown if standard error is not a terminal that can redraw a line."""
    if not console.is_interactive:
        yield from items
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        yield from bar.track(items, total=total, description=label)
