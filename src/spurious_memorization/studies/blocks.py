"""Outcomes measured block by block and kept in a store, so that stopped work continues where it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..console import duration, log, progress
from ..datasets.samples import Samples
from ..edits.edit import Edit
from ..engine.evaluate import compiled_where_it_pays, on_one_thread_where_it_pays, passes_needed
from ..engine.outcomes import Block, block_plan, outcomes_per_block, paired_with_unedited
from ..engine.protocol import Engine
from ..errors import UserError
from ..settings import Execution, place_of
from .block_workers import BlockWorkers
from .store import FolderStore, Store
from .time_to_go import TimeToGo, Work

LONGEST = 365 * 24 * 3600
"""A study that takes more seconds than a year was not meant."""

LONG = 600
"""From this number of seconds on, a study says how long it takes on several workers."""

NUMBERS_OF_WORKERS = (1, 4, 16, 64)

BUSY = 0.9
"""A thread that runs for a smaller share of the time shares its core with other programs."""

CLEARLY_SLOWER = 1.2
"""From this ratio on, a longer time than that of float32 is no chance."""


class Part(NamedTuple):
    """Edits to measure on some samples.

    Arguments:
        label: for what is logged.
        edits: to measure.
        samples: on which.
        numbers: under which the edits are stored, [edits]; counted from 0 if None.
    """

    label: str
    edits: Sequence[Edit]
    samples: Samples
    numbers: NDArray[np.int64] | None = None

    @property
    def variants(self) -> NDArray[np.int64]:
        """The number of each edit, [edits]."""
        return np.arange(len(self.edits)) if self.numbers is None else self.numbers


def announce_engine(engine: Engine, parts: Mapping[str, Part], execution: Execution) -> tuple[Engine, TimeToGo]:
    """Log what will be measured and about how long it takes; give the engine, compiled if that pays, and the time.

    The log names the number of edited networks and samples, the path of the engine, the share of the computation that
    it saves compared with full passes, and the time. If another precision than float32 is chosen, the log also says
    whether float32 would be faster; that is measured. A note says if other programs keep the machine busy meanwhile.

    Arguments:
        engine: of this process.
        parts: what will be measured, by the name of the blocks; see `measured_blocks`.
        execution: says whether to compile, and where blocks are measured.

    Raises:
        UserError: it takes longer than a year.
    """
    work = planned_work(engine, parts)
    needed = sum(of.passes for of in work.values())
    full = sum((len(part.edits) + 1) * len(part.samples) for part in parts.values())
    samples = next(iter(parts.values())).samples
    threads = ""
    if place_of(execution) == "here":
        given, edits = engine, next(iter(parts.values())).edits
        engine = on_one_thread_where_it_pays(engine, edits, samples, execution)
        threads = "" if engine is given else ", on one thread, since more save no time"
    a_pass, running = engine.pass_time(samples)
    exact = a_pass if engine.precision == "float32" else engine.pass_time(samples, "float32").seconds
    engine = compiled_where_it_pays(engine, needed, execution)
    for part in parts.values():
        log(f"{part.label}: {len(part.edits)} on {len(part.samples)} {part.samples.dataset.noun}s")
    saved, seconds = max(0, 1 - needed / full), needed * a_pass
    if seconds > LONGEST:
        raise UserError(
            f"this study takes about {duration(seconds)}, and more than {duration(LONGEST)} is refused: ask for fewer "
            "edited networks with --size, --controls or --repeats, or for fewer samples with --per-group"
        )
    log(f"engine: {engine.description}{threads}; {saved:.0%} of the computation saved, about {duration(seconds)}")
    if running < BUSY:
        log(
            f"note: other programs keep this machine busy: while it was timed, this one ran for {running:.0%} of the "
            "time. The study takes less if they end; the log corrects the time as blocks are measured"
        )
    n_blocks = sum(of.blocks for of in work.values())
    if place_of(execution) != "here" or seconds > LONG:
        log(f"{n_blocks} blocks: {_by_workers(seconds, n_blocks)}, if each is as fast as this process")
    if a_pass > CLEARLY_SLOWER * exact:
        log(f"bf16 takes {a_pass / exact:.1f} times as long as float32 on this machine: --precision float32 is faster")
    return engine, TimeToGo(work, a_pass)


def planned_work(engine: Engine, parts: Mapping[str, Part]) -> dict[str, Work]:
    """What each part needs, by the name of its blocks."""
    n_outcomes = outcomes_per_block(engine.pass_multiplications)
    return {
        name: Work(
            passes_needed(engine, part.edits, len(part.samples)),
            len(list(block_plan(len(part.edits), len(part.samples), n_outcomes))),
        )
        for name, part in parts.items()
    }


def _by_workers(seconds: float, n_blocks: int) -> str:
    """How long so many blocks take on some numbers of workers; more workers than blocks are of no use."""
    numbers = sorted({min(n, n_blocks) for n in NUMBERS_OF_WORKERS})
    times = [duration(seconds * -(-n_blocks // n) / n_blocks) for n in numbers]
    return ", ".join(f"{time} on {n} worker{'' if n == 1 else 's'}" for n, time in zip(numbers, times, strict=True))


def measured_blocks(
    store: Store, name: str, workers: BlockWorkers, part: Part, time_to_go: TimeToGo
) -> Iterator[tuple[Block, Block]]:
    """Measure every block, or read it from the store.

    A block is stored when its worker has finished it. The blocks are given in the order of the plan all the same.

    Arguments:
        store: where blocks are kept as frames NAME_00000 and so on.
        name: of these blocks.
        workers: for the network.
        part: what to measure.
        time_to_go: counts the blocks that are measured.

    Yields:
        For each block, the outcomes before any edit and those after the edits, under the part's numbers.

    Raises:
        UserError: a stored block is broken.
    """
    steps = list(block_plan(len(part.edits), len(part.samples), workers.n_outcomes))
    keys = [f"{name}_{number:05d}" for number in range(len(steps))]
    missing = [number for number, key in enumerate(keys) if not store.has_frame(key)]
    fractions = workers.engine.pass_fractions(part.edits)
    work = np.array([(1 + fractions[max(0, rows.start) : rows.stop].sum()) * len(columns) for rows, columns in steps])
    time_to_go.begin(name, part.label, Work(float(work[missing].sum()), len(missing)), workers.n)

    def measured() -> Iterator[tuple[int, Block]]:
        found = workers.run(part.edits, part.samples, [steps[number] for number in missing])
        for at, (block, seconds, _) in found:
            number = missing[at]
            store.save_frame(keys[number], _frame_of(block, part.variants))
            time_to_go.block_done(float(work[number]), seconds)
            yield number, block

    def blocks() -> Iterator[tuple[range, Block]]:
        arriving, stored = measured(), set(range(len(steps))) - set(missing)
        for number, (rows, columns) in enumerate(progress(steps, len(steps), part.label)):
            at, block = number, None
            while number not in stored:
                at, block = next(arriving)
                stored.add(at)
            if at != number or block is None:
                place = store.path / keys[number] if isinstance(store, FolderStore) else keys[number]
                block = _block_of(store.frame(keys[number]), rows, part.samples.part(columns), part.variants, place)
            yield rows, block

    yield from paired_with_unedited(blocks(), part.variants)


def _frame_of(block: Block, variants: NDArray[np.int64]) -> pd.DataFrame:
    numbers = np.where(block.edits < 0, -1, variants[block.edits])
    return replace(block, edits=numbers).frame().rename(columns={"edit": "variant"})


def _block_of(
    frame: pd.DataFrame | None, rows: range, part: Samples, variants: NDArray[np.int64], key: object
) -> Block:
    shape, edits = (len(rows), len(part)), np.array(rows)
    numbers = np.where(edits < 0, -1, variants[edits])
    if (
        frame is None
        or len(frame) != len(rows) * len(part)
        or not np.array_equal(frame["variant"], np.repeat(numbers, len(part)))
        or not np.array_equal(frame["sample"], np.tile(part.index, len(rows)))
        or (frame["predicted"] >= len(part.dataset.groups.classes)).any()
    ):
        raise UserError(f"{key}.parquet is broken or of other edits: delete it and run the same command again")
    arrays = {name: frame[name].to_numpy().reshape(shape) for name in ("predicted", "loss", "margin")}
    return Block(edits=edits, index=part.index, **arrays)
