"""Sequences whose items are made when they are asked for, so that any number of them needs little memory."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TypeVar, overload

T = TypeVar("T")


class LazySequence(Sequence[T]):
    """A sequence that makes an item whenever it is asked for. Subclasses say how many there are and make one."""

    @abstractmethod
    def make(self, position: int) -> T:
        """Make the item at a position, which is from 0 and below the length."""

    @overload
    def __getitem__(self, position: int) -> T: ...

    @overload
    def __getitem__(self, position: slice) -> list[T]: ...

    def __getitem__(self, position: int | slice) -> T | list[T]:
        places = range(len(self))[position]
        return [self.make(place) for place in places] if isinstance(places, range) else self.make(places)
