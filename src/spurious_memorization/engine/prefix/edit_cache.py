"""Prepared edits that are kept from batch to batch."""

from __future__ import annotations

from collections.abc import Iterable

from ...edits.edit import Edit
from .network import SegmentedNetwork
from .prepared import PreparedEdit

EDIT_CACHE_BYTES = 256_000_000


class EditCache:
    """Prepares edits for a network, and keeps them for the next batch until `EDIT_CACHE_BYTES` are used.

    Arguments:
        network: before any edit.
    """

    def __init__(self, network: SegmentedNetwork) -> None:
        self._network = network
        self._kept: dict[Edit, PreparedEdit] = {}
        self._free_bytes = EDIT_CACHE_BYTES

    def fill(self, edits: Iterable[Edit]) -> None:
        """Prepare edits of channels and heads before the first batch.

        Their small tensors stay in memory. Allocated later, they would lie scattered between a batch's large values
        and keep the freed memory in pieces. Edits of single weights may need whole constants, so they wait.
        """
        for edit in edits:
            if edit.units.kind != "weight":
                self.get(edit)

    def get(self, edit: Edit) -> PreparedEdit:
        """The edit prepared for the network."""
        if edit in self._kept:
            return self._kept[edit]
        prepared = self._network.prepare(edit)
        if prepared.n_bytes < self._free_bytes:
            self._kept[edit] = prepared
            self._free_bytes -= prepared.n_bytes
        return prepared
