"""Outcomes measured block by block and stored, so that stopped work continues where it was."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..console import progress, say
from ..datasets.samples import Samples
from ..edits.edit import Edit
from ..engine.evaluate import compiled_where_it_pays, passes_needed
from ..engine.outcomes import Block, block_plan
from ..engine.protocol import Engine
from ..errors import UserError
from ..runs.run import write_parquet
from ..settings import Execution

OUTCOME_COLUMNS = ("variant", "sample", "predicted", "loss", "margin")

SLOWER = 1.2
"""So many times the seconds of float32 are not chance."""


class Part(NamedTuple):
    """Edits to measure on some samples, with a label for what is said and the number under which each is stored
    (counted from 0 if not given)."""

    label: str
    edits: Sequence[Edit]
    samples: Samples
    numbers: NDArray[np.int64] | None = None


def ready_engine(engine: Engine, parts: Sequence[Part], execution: Execution) -> Engine:
    """The engine for this work, compiled where that pays, after saying what it will do: how many edited networks on
    how many images, by which path, how much of the computation that saves against full passes, about how long; and
    where another precision than float32 is chosen, whether float32 would be faster, which is measured."""
    needed = sum(passes_needed(engine, edits, len(samples)) for _, edits, samples, _ in parts)
    full = sum((len(edits) + 1) * len(samples) for _, edits, samples, _ in parts)
    a_pass = engine.seconds_per_pass(parts[0].samples)
    exact = a_pass if engine.precision == "float32" else engine.seconds_per_pass(parts[0].samples, "float32")
    engine = compiled_where_it_pays(engine, needed, execution)
    for label, edits, samples, _ in parts:
        say(f"{label}: {len(edits)} on {len(samples)} images")
    saved, seconds = max(0, 1 - needed / full), needed * a_pass
    say(f"engine: {engine.description}; {saved:.0%} of the computation saved, about {duration(seconds)}")
    if a_pass > SLOWER * exact:
        say(f"bf16 takes {a_pass / exact:.1f} times as long as float32 on this machine: --precision float32 is faster")
    return engine


def duration(seconds: float) -> str:
    """ "40 s", "12 min" or "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def measured_blocks(folder: Path, name: str, engine: Engine, part: Part) -> Iterator[tuple[Block, Block]]:
    """Run or read every block; give, for each part of the samples, the outcomes before and after the edits.

    Arguments:
        folder: where blocks are stored, as NAME_00000.parquet and so on.
        part: what to measure; what is stored and given has its numbers of the edits.

    Raises:
        UserError: a stored block is broken.
    """
    label, edits, samples, stated = part
    numbers = np.arange(len(edits)) if stated is None else stated
    steps = list(block_plan(len(edits), len(samples)))
    fractions = engine.pass_fractions(edits)
    work = np.cumsum([(1 + fractions[max(0, rows.start) : rows.stop].sum()) * len(columns) for rows, columns in steps])
    started, skipped, told = time.monotonic(), 0.0, False

    def blocks() -> Iterator[tuple[range, Block]]:
        nonlocal skipped, told
        for number, (rows, columns) in enumerate(progress(steps, len(steps), label)):
            file = folder / f"{name}_{number:05d}.parquet"
            here = samples.part(columns)
            if file.is_file():
                block = _read_block(file, rows, here)
                skipped = float(work[number])
            else:
                block = engine.run(edits, rows, here)
                write_parquet(file, _block_frame(block, numbers))
                if not told and number + 1 < len(steps):
                    rate = (work[number] - skipped) / (time.monotonic() - started)
                    say(f"{label}: about {duration((work[-1] - work[number]) / rate)} to go")
                    told = True
            yield rows, block

    yield from beside_before(blocks(), numbers)


def beside_before(blocks: Iterable[tuple[range, Block]], numbers: NDArray[np.int64]) -> Iterator[tuple[Block, Block]]:
    """The outcomes before any edit and those after, for each block of edits, in the order of `block_plan`.

    Arguments:
        blocks: the range of edits and the outcomes of each; -1 stands for no edit.
        numbers: under which the edits are given.
    """
    before: Block | None = None
    for rows, block in blocks:
        if rows.start == -1:
            before = block.at(slice(0, 1))
            block = block.at(slice(1, None))
        if before is not None and len(block.edits):
            yield before, replace(block, edits=numbers[block.edits])


def _block_frame(block: Block, numbers: NDArray[np.int64]) -> pd.DataFrame:
    variants = np.where(block.edits < 0, -1, numbers[block.edits])
    columns = (
        np.repeat(variants, len(block.index)).astype(np.int32),
        np.tile(block.index, len(variants)).astype(np.int32),
        block.predicted.ravel(),
        block.loss.ravel(),
        block.margin.ravel(),
    )
    return pd.DataFrame(dict(zip(OUTCOME_COLUMNS, columns, strict=True)))


def _read_block(file: Path, rows: range, part: Samples) -> Block:
    try:
        frame = pd.read_parquet(file)
        shape = (len(rows), len(part))
        arrays = {name: frame[name].to_numpy().reshape(shape) for name in ("predicted", "loss", "margin")}
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{file} is broken: delete it and run the same command again") from error
    return Block(edits=np.array(rows), index=part.index, **arrays)
