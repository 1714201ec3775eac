"""Simulate a study on 1 to 1,000 workers, with block times measured here: `python -m benchmarks.cluster`.

A study is a sequence of rounds. Within a round, blocks are independent; the next round starts when the last block is
stored, because its edits depend on what was found. One driver hands out blocks, and stores and counts each result.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import simpy
import timm
import torch

import spurious_memorization as sm
from spurious_memorization.engine.evaluate import engine_for
from spurious_memorization.settings import WorkerExecution
from spurious_memorization.studies.block_workers import BlockWorkers, MeasuredBlock, block_workers
from spurious_memorization.studies.blocks import Part, measured_blocks
from spurious_memorization.studies.store import FolderStore
from spurious_memorization.studies.time_to_go import TimeToGo

WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
HOUR = 3600.0


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What the workers and the driver need, in seconds.

    Arguments:
        n_workers: number of workers.
        start: until a new worker has loaded the network and traced it.
        store: the driver's time per block, to receive, store and count it.
        lost_per_hour: how often a worker is lost; another one starts in its place.
        slow_share: share of the workers that are slow.
        slow_factor: how much longer they take.
    """

    n_workers: int
    start: float
    store: float
    lost_per_hour: float = 0.0
    slow_share: float = 0.0
    slow_factor: float = 3.0


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """What a simulation gives.

    Arguments:
        seconds: until the last block is stored.
        efficiency: time that the blocks need, over the time of all workers.
        driver: share of the time in which the driver is busy.
    """

    seconds: float
    efficiency: float
    driver: float


def simulate(rounds: Sequence[Sequence[float]], cluster: Cluster, seed: int = 0) -> Simulated:
    """A study on a cluster.

    Arguments:
        rounds: seconds of every block, round by round.
        cluster: the workers and the driver.
        seed: of the losses, and of which workers are slow.
    """
    environment = simpy.Environment()
    rng = np.random.default_rng(seed)
    driver = simpy.Resource(environment)
    waiting, stored = simpy.Store(environment), simpy.Store(environment)
    slow = set(rng.permutation(cluster.n_workers)[: round(cluster.slow_share * cluster.n_workers)].tolist())

    def worker(number: int) -> Iterator[Any]:
        factor = cluster.slow_factor if number in slow else 1.0
        yield environment.timeout(cluster.start)
        next_loss = environment.now + _until_loss(rng, cluster)
        while True:
            seconds = yield waiting.get()
            needed = seconds * factor
            if environment.now + needed > next_loss:
                yield environment.timeout(max(0.0, next_loss - environment.now))
                yield waiting.put(seconds)
                yield environment.timeout(cluster.start)
                next_loss = environment.now + _until_loss(rng, cluster)
                continue
            yield environment.timeout(needed)
            environment.process(store())

    def store() -> Iterator[Any]:
        with driver.request() as turn:
            yield turn
            yield environment.timeout(cluster.store)
        yield stored.put(True)

    def study() -> Iterator[Any]:
        for blocks in rounds:
            for seconds in blocks:
                yield waiting.put(seconds)
            for _ in blocks:
                yield stored.get()

    for number in range(cluster.n_workers):
        environment.process(worker(number))
    finished = environment.process(study())
    environment.run(finished)
    work = sum(map(sum, rounds))
    return Simulated(
        seconds=environment.now,
        efficiency=work / (environment.now * cluster.n_workers),
        driver=sum(map(len, rounds)) * cluster.store / environment.now,
    )


def _until_loss(rng: np.random.Generator, cluster: Cluster) -> float:
    return float(rng.exponential(HOUR / cluster.lost_per_hour)) if cluster.lost_per_hour else math.inf


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One part of a study, as it was measured. All times are in seconds.

    Arguments:
        blocks: time of each block on its worker.
        seconds: time until the last block was counted.
    """

    blocks: tuple[float, ...]
    seconds: float


class _Noted:
    """Workers for blocks. The time of each block is noted."""

    def __init__(self, workers: BlockWorkers) -> None:
        self.engine, self.n, self.n_outcomes = workers.engine, workers.n, workers.n_outcomes
        self.times: list[float] = []
        self._workers = workers

    def run(self, *arguments: Any) -> Iterator[tuple[int, MeasuredBlock]]:
        for number, measured in self._workers.run(*arguments):
            self.times.append(measured.seconds)
            yield number, measured


def measured(part: Part, model: torch.nn.Module, on: str) -> Measured:
    """Measure one part, with its workers in a place such as "processes:2"."""
    engine = engine_for(model, part.samples)
    begun = time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as scratch,
        block_workers(engine, model, part.samples, loss="cross_entropy", execution=WorkerExecution(on=on)) as workers,
    ):
        noted = _Noted(workers)
        store = FolderStore(Path(scratch))
        for _ in measured_blocks(store, "outcomes/part", noted, part, TimeToGo()):  # type: ignore[arg-type]
            pass
        return Measured(blocks=tuple(noted.times), seconds=time.perf_counter() - begun)


def example_part(model: torch.nn.Module, n_edits: int, n_images: int, image_size: int = 64) -> Part:
    """Single channels of a network, set to zero, on random images."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(n_images, 3, image_size, image_size)).astype(np.float32))
    data = sm.from_tensors(x, rng.integers(0, 2, n_images), rng.integers(0, 2, n_images))
    return Part("bench", [sm.edits.zero(units) for units in _channels(model, n_edits, rng)], data.train)


def _channels(model: torch.nn.Module, n: int, rng: np.random.Generator) -> list[sm.Units]:
    scores = sm.criteria.random(model, seed=int(rng.integers(2**31)))
    names = str(sm.top(scores, n)).split(",")
    return [sm.parse_units(model, [name]) for name in names]


def rounds_of(blocks: Sequence[float], n_blocks: Sequence[int], seed: int = 0) -> list[list[float]]:
    """Rounds with these numbers of blocks, whose times are drawn from measured ones."""
    rng = np.random.default_rng(seed)
    return [rng.choice(blocks, size=n).tolist() for n in n_blocks]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edits", type=int, default=1000)
    parser.add_argument("--images", type=int, default=400)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = timm.create_model("resnet18", num_classes=2).eval()
    part = example_part(model, options.edits, options.images)
    here, one, two = (measured(part, model, on) for on in ("here", "processes:1", "processes:2"))
    store = (here.seconds - sum(here.blocks)) / len(here.blocks)
    start = one.seconds - sum(one.blocks) - store * len(one.blocks)
    usual = Cluster(n_workers=1, start=start, store=store)
    median = float(np.median(one.blocks))
    print(f"{len(one.blocks)} blocks of {median:.2f} s (median), each stored in {store:.3f} s, {start:.1f} s to start")
    expected = simulate([two.blocks], replace(usual, n_workers=2)).seconds
    print(f"one process {one.seconds:.1f} s; two processes {two.seconds:.1f} s, simulated {expected:.1f} s")
    study = rounds_of(one.blocks, (20, 60, 120, 240, 480, 1000, 9000))
    cases = {
        "as measured": usual,
        "a worker lost every 10 hours": replace(usual, lost_per_hour=0.1),
        "a tenth of the workers 3 times slower": replace(usual, slow_share=0.1),
        "storage 10 times slower": replace(usual, store=10 * store),
    }
    print(f"| workers | {' | '.join(cases)} | driver busy | hours |")
    print("| --- |" + " --- |" * (len(cases) + 2))
    for n_workers in WORKERS:
        simulated = [simulate(study, replace(case, n_workers=n_workers)) for case in cases.values()]
        cells = [f"{one.efficiency:.0%}" for one in simulated]
        print(f"| {n_workers} | {' | '.join(cells)} | {simulated[0].driver:.0%} | {simulated[0].seconds / HOUR:.2f} |")


if __name__ == "__main__":
    main()
