"""Blocks of outcomes as independent pieces of work: what a worker gets, what it holds, and what it gives back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..datasets.samples import Dataset, Samples
from ..edits.edit import Edit
from ..engine.evaluate import compiled_where_it_pays, engine_for
from ..engine.outcomes import Block, outcomes_per_block
from ..engine.protocol import Engine
from ..networks.forward import working_copy
from ..networks.names import LossName, Precision
from ..schedulers.scheduler import InThisProcess, Scheduler, workers_for
from ..settings import Execution, place_of


class BlockPiece(NamedTuple):
    """One block to measure, without what every block of the study shares.

    Arguments:
        edits: those of the block alone.
        rows: positions among them; from -1 if the block also has the network before any edit.
        sample_index: of the samples in the data set, [samples].
        split: of the samples.
    """

    edits: Sequence[Edit]
    rows: range
    sample_index: NDArray[np.int64]
    split: str


class MeasuredBlock(NamedTuple):
    """A block, the seconds that it took, and how it was computed."""

    block: Block
    seconds: float
    engine: str


class BlockWorkers:
    """Measures blocks of one network, in this process or on workers.

    Arguments:
        engine: of this process.
        scheduler: where blocks are measured.
        n_outcomes: of a block; see `outcomes_per_block`.
    """

    def __init__(self, engine: Engine, scheduler: Scheduler[BlockPiece, MeasuredBlock], n_outcomes: int) -> None:
        self.engine = engine
        self.n_outcomes = n_outcomes
        self.description = self._description_before = engine.description
        self._scheduler = scheduler

    @property
    def n(self) -> int:
        """The largest number of blocks that are measured at the same time, now."""
        return self._scheduler.workers

    def run(
        self, edits: Sequence[Edit], samples: Samples, steps: Iterable[tuple[range, range]]
    ) -> Iterator[tuple[int, MeasuredBlock]]:
        """Measure blocks.

        Arguments:
            edits: all edits.
            samples: all samples.
            steps: positions of the edits and the samples of each block; see `block_plan`.

        Yields:
            The number of a block among the steps, and its outcomes, as they are finished: in any order.
        """
        steps = list(steps)
        pieces = (_piece(edits, rows, samples.part(columns)) for rows, columns in steps)
        for number, measured in self._scheduler.run(pieces):
            if measured.engine != self._description_before:
                self.description = measured.engine
            yield number, measured._replace(block=replace(measured.block, edits=np.array(steps[number][0])))


@contextmanager
def block_workers(
    engine: Engine,
    model: nn.Module,
    samples: Samples,
    *,
    loss: LossName,
    execution: Execution,
    n_outcomes: int | None = None,
) -> Iterator[BlockWorkers]:
    """Workers for the blocks of one network; they end with the block of code.

    Arguments:
        engine: for the network, in this process.
        model: the network, which stays as it is.
        samples: of the data set that is measured; the first few are examples of the inputs.
        loss: name of the loss to record.
        execution: where blocks are measured, and how.
        n_outcomes: of a block; by default it depends on the network.

    Raises:
        UserError: there is no room for a worker; see `workers_for`.
    """
    data = samples.dataset
    n_outcomes = n_outcomes or outcomes_per_block(engine.pass_multiplications)
    if place_of(execution) == "here":
        yield BlockWorkers(engine, InThisProcess(partial(_measured, engine, data)), n_outcomes)
        return
    execution = execution.model_copy(update={"compile": engine.description.endswith("compiled")})
    make = partial(
        _measuring, working_copy(model, torch.device("cpu")), samples.part(range(3)), loss, engine.precision, execution
    )
    with workers_for(execution, make) as scheduler:
        yield BlockWorkers(engine, scheduler, n_outcomes)


def _piece(edits: Sequence[Edit], rows: range, samples: Samples) -> BlockPiece:
    first = max(0, rows.start)
    some = [edits[position] for position in range(first, rows.stop)]
    return BlockPiece(some, range(rows.start - first, rows.stop - first), samples.index, samples.split)


def _measuring(
    model: nn.Module, example: Samples, loss: LossName, precision: Precision, execution: Execution
) -> Callable[[BlockPiece], MeasuredBlock]:
    """What a worker holds: the network's engine and the data set."""
    engine = engine_for(model, example, loss=loss, precision=precision, execution=execution)
    return partial(_measured, compiled_where_it_pays(engine, 0, execution), example.dataset)


def _measured(engine: Engine, data: Dataset, piece: BlockPiece) -> MeasuredBlock:
    started = time.monotonic()
    block = engine.run(piece.edits, piece.rows, Samples(data, piece.sample_index, piece.split))
    return MeasuredBlock(block, time.monotonic() - started, engine.description)
