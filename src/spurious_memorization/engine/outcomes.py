"""Outcomes: what each edited network answers on each sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

from ..datasets.samples import Samples
from ..edits.edit import Edit

EDITS_A_BLOCK = 256
OUTCOMES_A_BLOCK = 32_768
MIN_SAMPLES_A_BLOCK = 128


@dataclass(frozen=True, eq=False)
class Block:
    """Outcomes of some edits on some samples: the unit of work and of resuming.

    Arguments:
        edits: position of each edit in the list of edits, [edits]; -1 is the network before any edit.
        index: index of each sample in the data set, [samples].
        predicted: predicted class, [edits, samples].
        loss: [edits, samples].
        margin: true-class logit minus the best other, [edits, samples].
    """

    edits: NDArray[np.int64]
    index: NDArray[np.int64]
    predicted: NDArray[np.int16]
    loss: NDArray[np.float32]
    margin: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Outcomes of all edits on all samples, and of the network before any edit by the same computation.

    Arguments:
        edits: the edits, in the order of the rows.
        index: index of each sample in the data set, [samples].
        before: the network before any edit: a block of one row.
        after: one row an edit.
        path: how the engine went: "shared prefix", or "plain" and why.
    """

    edits: tuple[Edit, ...]
    index: NDArray[np.int64]
    before: Block
    after: Block
    path: str


@dataclass(frozen=True, eq=False)
class Engine:
    """What runs a block.

    Arguments:
        run: takes all the edits of a study, the range of those to run now (-1: no edit), and the samples.
        path: how, in words: "shared prefix", or "plain" and why.
        shares: of each edit, the part of a full pass that it needs, [edits].
        pass_seconds: measures, on some samples, how long a full pass takes for one.
        exact_seconds: the same in float32, where another precision is chosen.
        pass_work: multiplications of a full pass for one sample, where they are known.
        compiled: gives the same engine compiled, where that can be.
        compile_from: multiplications from which compiling pays; infinite where it never does.
    """

    run: Callable[[Sequence[Edit], range, Samples], Block]
    path: str
    shares: Callable[[Sequence[Edit]], NDArray[np.float64]]
    pass_seconds: Callable[[Samples], float]
    exact_seconds: Callable[[Samples], float] | None = None
    pass_work: int = 0
    compiled: Callable[[], Engine] | None = None
    compile_from: float = inf


def block_plan(n_edits: int, n_samples: int) -> Iterator[tuple[range, range]]:
    """Cut edits x samples into blocks: ranges of edit positions (from -1, the network before any edit) and of sample
    positions. The plan depends on these two numbers alone, so that a stopped study finds its blocks again."""
    samples = max(MIN_SAMPLES_A_BLOCK, OUTCOMES_A_BLOCK // min(n_edits + 1, EDITS_A_BLOCK))
    for first_sample in range(0, n_samples, samples):
        for first_edit in range(-1, n_edits, EDITS_A_BLOCK):
            yield (
                range(first_edit, min(first_edit + EDITS_A_BLOCK, n_edits)),
                range(first_sample, min(first_sample + samples, n_samples)),
            )


def assemble(edits: Sequence[Edit], blocks: Sequence[Block], path: str) -> Outcomes:
    """Put blocks together, whatever their order."""
    index = np.sort(np.unique(np.concatenate([block.index for block in blocks])))
    shape = (len(edits) + 1, len(index))
    predicted, loss = np.zeros(shape, np.int16), np.zeros(shape, np.float32)
    margins = np.zeros(shape, np.float32)
    for block in blocks:
        where = np.ix_(block.edits + 1, np.searchsorted(index, block.index))
        predicted[where], loss[where], margins[where] = block.predicted, block.loss, block.margin
    rows = np.arange(-1, len(edits))
    before = Block(rows[:1], index, predicted[:1], loss[:1], margins[:1])
    return Outcomes(tuple(edits), index, before, Block(rows[1:], index, predicted[1:], loss[1:], margins[1:]), path)
