"""Outcomes: predicted class, loss and margin of edited networks on samples, in blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..edits.edit import Edit

EDITS_PER_BLOCK = 256
OUTCOMES_PER_BLOCK = 32_768
MIN_SAMPLES_PER_BLOCK = 128

MAX_OUTCOMES_PER_BLOCK = 2_097_152
MULTIPLICATIONS_PER_BLOCK = 10**11
"""About a second of work. Blocks of a small network have more outcomes, since each block costs some time of its own."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Block:
    """Outcomes of some edits on some samples. A block is the unit of work and of resuming.

    Arguments:
        edits: position of each edit in the list of edits, [edits]; -1 is the network before any edit.
        index: index of each sample in the data set, [samples].
        predicted: predicted class, [edits, samples].
        loss: loss of each sample, [edits, samples].
        margin: logit of the true class minus the largest other logit, [edits, samples].
    """

    edits: NDArray[np.int64]
    index: NDArray[np.int64]
    predicted: NDArray[np.int16]
    loss: NDArray[np.float32]
    margin: NDArray[np.float32]

    def at(self, rows: slice) -> Block:
        """The outcomes of some of the edits: a range of rows of the block."""
        return Block(
            edits=self.edits[rows],
            index=self.index,
            predicted=self.predicted[rows],
            loss=self.loss[rows],
            margin=self.margin[rows],
        )

    def copied(self) -> Block:
        """The same outcomes without the memory of a larger block of which they were a part."""
        return Block(**{field.name: getattr(self, field.name).copy() for field in fields(self)})

    def frame(self) -> pd.DataFrame:
        """One row per edit and sample: edit, sample (its index), predicted, loss, margin."""
        return pd.DataFrame(
            {
                "edit": np.repeat(self.edits, len(self.index)).astype(np.int32),
                "sample": np.tile(self.index, len(self.edits)).astype(np.int32),
                "predicted": self.predicted.ravel(),
                "loss": self.loss.ravel(),
                "margin": self.margin.ravel(),
            }
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Outcomes:
    """Outcomes of all edits on all samples, and of the network before any edit by the same computation.

    Arguments:
        edits: the edits, in the order of the rows.
        index: index of each sample in the data set, [samples].
        before: the network before any edit: a block of one row.
        after: the edited networks: one row per edit.
        engine: how they were computed: "shared prefix", or "plain" and the reason.
    """

    edits: tuple[Edit, ...]
    index: NDArray[np.int64]
    before: Block
    after: Block
    engine: str


def outcomes_per_block(multiplications: int) -> int:
    """How many outcomes a block has, at least about.

    Arguments:
        multiplications: of a forward pass of one sample; 0 if they are not known.
    """
    of_small = MULTIPLICATIONS_PER_BLOCK // multiplications if multiplications else 0
    return max(OUTCOMES_PER_BLOCK, min(MAX_OUTCOMES_PER_BLOCK, of_small))


def block_plan(n_edits: int, n_samples: int, n_outcomes: int | None = None) -> Iterator[tuple[range, range]]:
    """Cut edits x samples into blocks. All samples of some edits come before the next edits, so that what is counted
    about these is complete early.

    The plan depends on these numbers alone, so that a stopped study finds its blocks again.

    Arguments:
        n_edits: number of edits.
        n_samples: number of samples.
        n_outcomes: of a block, from `outcomes_per_block`; `OUTCOMES_PER_BLOCK` if not given.

    Returns:
        For each block: the range of edit positions, from -1 (the network before any edit), and the range of sample
        positions.
    """
    n = max(MIN_SAMPLES_PER_BLOCK, (n_outcomes or OUTCOMES_PER_BLOCK) // min(n_edits + 1, EDITS_PER_BLOCK))
    for first_edit in range(-1, n_edits, EDITS_PER_BLOCK):
        for first_sample in range(0, n_samples, n):
            yield (
                range(first_edit, min(first_edit + EDITS_PER_BLOCK, n_edits)),
                range(first_sample, min(first_sample + n, n_samples)),
            )


def paired_with_unedited(
    blocks: Iterable[tuple[range, Block]], numbers: NDArray[np.int64]
) -> Iterator[tuple[Block, Block]]:
    """The outcomes before any edit and those after, for each block of edits, in the order of `block_plan`.

    Arguments:
        blocks: the range of edits and the outcomes of each block; -1 stands for the unedited network.
        numbers: under which the edits are given, [edits].
    """
    before: dict[int, Block] = {}
    for rows, block in blocks:
        first_sample = int(block.index[0])
        if rows.start == -1:
            before[first_sample] = block.at(slice(0, 1)).copied()
            block = block.at(slice(1, None))
        if len(block.edits):
            yield before[first_sample], replace(block, edits=numbers[block.edits])


def assemble(edits: Sequence[Edit], blocks: Sequence[Block], engine: str) -> Outcomes:
    """Put the blocks of a plan together, in whatever order they come.

    Arguments:
        edits: all edits of the plan.
        blocks: every block of the plan.
        engine: the engine's description.
    """
    index = np.sort(np.unique(np.concatenate([block.index for block in blocks])))
    shape = (len(edits) + 1, len(index))
    predicted, loss = np.zeros(shape, np.int16), np.zeros(shape, np.float32)
    margins = np.zeros(shape, np.float32)
    for block in blocks:
        cells = np.ix_(block.edits + 1, np.searchsorted(index, block.index))
        predicted[cells], loss[cells], margins[cells] = block.predicted, block.loss, block.margin
    rows = np.arange(-1, len(edits))
    whole = Block(edits=rows, index=index, predicted=predicted, loss=loss, margin=margins)
    before, after = whole.at(slice(0, 1)), whole.at(slice(1, None))
    return Outcomes(edits=tuple(edits), index=index, before=before, after=after, engine=engine)
