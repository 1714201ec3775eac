"""Edited networks that wait for the same segment, run together as one stack along the batch axis."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from torch import Tensor

from .network import SegmentedNetwork, Shared, run_alone, run_stack
from .prepared import PreparedEdit


class Stacks:
    """Collects edited networks by the segment that each must run next, until there are enough to run them together.

    Arguments:
        network: before any edit.
        shared: values of the batch that its inputs alone determine.
        max_bytes: size of the largest value of a stack.
    """

    def __init__(self, network: SegmentedNetwork, shared: Shared, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._network = network
        self._shared = shared
        self._members: dict[int, list[tuple[int, PreparedEdit, Tensor]]] = defaultdict(list)

    def add(self, start: int, number: int, edit: PreparedEdit, value: Tensor) -> None:
        """Add an edited network. It runs alone through the segments in which it changes whole constants, since a stack
        has the same constants for all.

        Arguments:
            start: position of the segment that it must run next.
            number: number of its edit.
            edit: the edit.
            value: what it passes to that segment, [samples, ...].
        """
        end = max(start, self._network.after_constants(edit))
        value = run_alone(self._network, start, end, value, edit, self._shared)
        self._members[end].append((number, edit, value))

    def full(self) -> Iterator[tuple[int, Tensor]]:
        """Run each stack that would become too large with one more edited network, and all of them once they are too
        large together; gives (number of the edit, logits)."""
        if sum(value.nbytes for members in self._members.values() for _, _, value in members) > self._max_bytes:
            yield from self.rest()
        for start, members in list(self._members.items()):
            rows = (len(members) + 1) * len(members[0][2])
            is_through = start == len(self._network.segments)
            if is_through or rows * self._network.row_bytes[start] > self._max_bytes:
                yield from self._run(start)

    def rest(self) -> Iterator[tuple[int, Tensor]]:
        """Run all that wait; gives (number of the edit, logits)."""
        for start in list(self._members):
            yield from self._run(start)

    def _run(self, start: int) -> Iterator[tuple[int, Tensor]]:
        members = self._members.pop(start)
        numbers, edits = [number for number, _, _ in members], [edit for _, edit, _ in members]
        given = [value for _, _, value in members]
        members.clear()
        yield from zip(numbers, run_stack(self._network, start, edits, given, self._shared), strict=True)
