"""The time that a study still takes: first as it was planned, then by the blocks that were really measured."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple

from ..console import duration, log

REMEMBERED = 0.95
"""Each block counts by this factor more than the one before it, so that the latest ones decide."""

MUCH = 0.25
"""The time to go is said again if it has changed by this share,"""

LEAST = 60.0
"""and by at least so many seconds. When a new part begins, it is said if the last line is so long ago."""

WORTH_SAYING = 10.0
"""A shorter time to go is not said."""


class Work(NamedTuple):
    """What some blocks need.

    Arguments:
        passes: full forward passes of one sample.
        blocks: their number.
    """

    passes: float
    blocks: int


class TimeToGo:
    """The time that the blocks of a study still take, without the rounds that may follow.

    Arguments:
        planned: work by the name of a part.
        seconds_per_pass: as it was measured before the first block, if it was.
    """

    def __init__(self, planned: Mapping[str, Work] | None = None, seconds_per_pass: float | None = None) -> None:
        self._left = dict(planned or {})
        self._seconds_per_pass = seconds_per_pass
        self._seconds = self._passes = 0.0  # of measured blocks, the older the less
        self._workers = 1
        self._part = self._label = ""
        self._done = 0  # blocks of this part
        self._said: tuple[float, float] | None = None  # seconds to go, and when
        self._is_corrected = False

    @property
    def seconds(self) -> float | None:
        """The time to go; None while nothing is known about the time of a pass."""
        return self.seconds_for(self._left)

    def seconds_for(self, work: Mapping[str, Work]) -> float | None:
        """The time that work takes, by the name of a part; None while nothing is known about the time of a pass."""
        rate = self._seconds / self._passes if self._passes else self._seconds_per_pass
        if rate is None:
            return None
        return sum(rate * of.passes / min(self._workers, of.blocks) for of in work.values() if of.blocks)

    def begin(self, part: str, label: str, work: Work, workers: int) -> None:
        """Begin a part, which may not have been planned. Log the time to go if the last line is long ago.

        Arguments:
            part: its name.
            label: for what is logged.
            work: without the blocks that are stored.
            workers: number of blocks that are measured at the same time.
        """
        is_planned = part in self._left
        self._part, self._label, self._workers, self._done = part, label, workers, 0
        self._left[part] = work
        if self._said is None:
            self._remember()
        elif self._is_corrected and time.monotonic() - self._said[1] >= LEAST:
            self._say(is_correction=is_planned)
        elif not is_planned:
            self._remember()

    def block_done(self, passes: float, seconds: float) -> None:
        """Count a measured block. Log the time to go when each worker has measured its first one, and whenever it has
        changed much.

        Arguments:
            passes: that it needed.
            seconds: that it took.
        """
        left = self._left[self._part]
        self._left[self._part] = Work(left.passes - passes, left.blocks - 1)
        self._seconds = REMEMBERED * self._seconds + seconds
        self._passes = REMEMBERED * self._passes + passes
        self._done += 1
        if self._done % self._workers:
            return  # the other workers are about as far with their blocks
        if not self._is_corrected or self._has_changed():
            self._is_corrected = True
            self._say(is_correction=True)

    def _expected(self) -> float | None:
        """The time to go by the last line."""
        return None if self._said is None else max(0.0, self._said[0] - (time.monotonic() - self._said[1]))

    def _has_changed(self) -> bool:
        now, expected = self.seconds, self._expected()
        if now is None or expected is None:
            return False
        return abs(now - expected) > max(LEAST, MUCH * expected)

    def _say(self, *, is_correction: bool) -> None:
        seconds, expected = self.seconds, self._expected()
        if seconds is None or seconds < WORTH_SAYING:
            return
        before = ""
        if is_correction and expected is not None and self._has_changed():
            before = f" ({duration(expected)} were expected)"
        log(f"{self._label}: about {duration(seconds)} to go in all{before}")
        self._remember()

    def _remember(self) -> None:
        seconds = self.seconds
        self._said = None if seconds is None else (seconds, time.monotonic())
