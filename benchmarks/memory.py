"""Peak memory with more edited networks and with more images: `python -m benchmarks.memory`.

Outcomes are measured block by block, and by a study. Each case runs in a process of its own, on random images. Memory
that files share is not counted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image
from torch import nn

import spurious_memorization as sm
from spurious_memorization.lazy_sequences import LazySequence

from .measures import uniform_channels

SIZES, CONTROLS = 10, 19


class Case(NamedTuple):
    """One row of the table.

    Arguments:
        what: is measured.
        network: see `NETWORKS`.
        n_edits: edited networks.
        n_images: on which they are measured.
    """

    what: str
    network: str
    n_edits: int
    n_images: int


NETWORKS = {"tiny": ("benchmarks.memory:tiny_network", 16), "ResNet-18": ("resnet18", 128)}
"""The network, and the size of its images."""

SERIES = (
    [Case("outcomes", "tiny", n_edits, 100) for n_edits in (1_000, 10_000, 100_000)],
    [Case("outcomes", "tiny", 100, n_images) for n_images in (100, 1_000, 10_000)],
    [Case("outcomes", "ResNet-18", 10, n_images) for n_images in (100, 1_000, 10_000)],
    [Case("study", "tiny", n_edits, 100) for n_edits in (1_000, 10_000, 100_000)],
)
"""More edited networks or more images. Each series is compared with its first case."""


class Peak:
    """The largest anonymous memory of this process, in MiB, since it is watched."""

    def __init__(self) -> None:
        self.mib = 0.0


@contextmanager
def watched_memory() -> Iterator[Peak]:
    """Watch the memory of this process within the block."""
    peak, ended = Peak(), threading.Event()

    def watch() -> None:
        while not ended.wait(0.01):
            peak.mib = max(peak.mib, anonymous_mib())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        ended.set()
        watcher.join()


def anonymous_mib() -> float:
    """The memory of this process that no file holds, in MiB."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    return 0.0


def tiny_network(num_classes: int) -> nn.Module:
    """Three convolutions of 16 channels."""
    layers: list[nn.Module] = []
    for channels in (3, 16, 16):
        layers += [nn.Conv2d(channels, 16, 3, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes))


def run_on_random_images(folder: Path, network: str, n_images: int) -> None:
    """A network before any training, with random images of two classes and two colors."""
    model, image_size = NETWORKS[network]
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    y = np.arange(n_images) % 2
    a = np.where(rng.random(n_images) < 0.8, y, 1 - y)
    paths = [f"images/{number}.png" for number in range(n_images)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (image_size, image_size, 3), np.uint8)).save(folder / path)
    pd.DataFrame({"path": paths, "y": y, "a": a, "split": "train"}).to_csv(folder / "metadata.csv", index=False)
    sm.train(folder, folder / "run", sm.TrainSettings(model=model, epochs=0, image_size=image_size))


class NoisyChannels(LazySequence[sm.Edit]):
    """Noise in one channel after the other, with a seed of its own each."""

    def __init__(self, model: nn.Module, n: int) -> None:
        self._channels = [edit.units for edit in uniform_channels(model, 10)]
        self._n = n

    def __len__(self) -> int:
        return self._n

    def make(self, position: int) -> sm.Edit:
        return sm.edits.random_noise(self._channels[position % len(self._channels)], 0.1, seed=position)


def measure_outcomes(run: sm.Run, n_edits: int) -> None:
    """Measure outcomes block by block, and sum how many are right."""
    model, samples = run.network(run.choose_epoch("last")), run.read_data().train
    right = 0
    for _, after in sm.outcome_blocks(model, NoisyChannels(model, n_edits), samples):
        right += int((after.predicted == samples.dataset.y[after.index]).sum())
    print(f"{right / (n_edits * len(samples)):.1%} right", file=sys.stderr)


def measure_study(run: sm.Run, n_edits: int) -> None:
    """A study of about so many edited networks: sizes x repeats of selected sets and of null sets."""
    settings = sm.StudySettings(
        criterion=("weight_norm",),
        size=(f"1..{SIZES}",),
        edit=("random_noise:std=0.1",),
        repeats=max(1, n_edits // (SIZES * (CONTROLS + 1))),
        controls=CONTROLS,
        split=("train",),
    )
    sm.study(run, settings)


WHAT = {"outcomes": measure_outcomes, "study": measure_study}


def rows() -> Iterator[tuple[str, str]]:
    """What each case needs, row by row, beside the first case of its series."""
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["SPURMEM_CACHE"] = str(Path(temporary) / "cache")
        for series in SERIES:
            peaks: list[float] = []
            for case in series:
                folder = Path(temporary) / f"{case.network}-{case.n_images}"
                if not folder.exists():
                    run_on_random_images(folder, case.network, case.n_images)
                peak, seconds = _measured(case, folder)
                peaks.append(peak)
                yield (
                    f"{case.what}, {case.network}: {case.n_edits:,} edited networks x {case.n_images:,} images",
                    f"peak {peak:.0f} MiB ({peak / peaks[0] - 1:+.0%}), {seconds:.0f} s",
                )


def _measured(case: Case, folder: Path) -> tuple[float, float]:
    """Peak memory in MiB, and seconds, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.memory", case.what, str(folder), str(case.n_edits)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    peak, seconds = json.loads(done.stdout.splitlines()[-1])
    return peak, seconds


def _measure(what: str, folder: Path, n_edits: int) -> None:
    started = time.perf_counter()
    with watched_memory() as peak:
        WHAT[what](sm.Run(folder / "run"), n_edits)
    print(json.dumps([peak.mib, time.perf_counter() - started]))


if __name__ == "__main__":
    if arguments := sys.argv[1:]:
        _measure(arguments[0], Path(arguments[1]), int(arguments[2]))
    else:
        for name, found in rows():
            print(f"{name:<68} {found}", flush=True)
