"""Peak memory of a study, with more edited networks and with more images: `python -m benchmarks.memory`.

Each study runs in a process of its own, on a tiny network and images of 16x16. Memory that files share is not counted.
"""

from __future__ import annotations

import argparse
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

import numpy as np
import pandas as pd
from PIL import Image
from torch import nn

import spurious_memorization as sm

EDITS = (1_000, 10_000, 100_000)
IMAGES = (100, 1_000, 10_000)
SIZES, CONTROLS = 10, 19
SIZE = 16


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


def tiny_run(folder: Path, n_images: int) -> sm.Run:
    """The network, trained for an epoch on random images of two classes and two colors."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    y = np.arange(n_images) % 2
    a = np.where(rng.random(n_images) < 0.8, y, 1 - y)
    for number in range(n_images):
        pixels = rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
    paths = [f"images/{number}.png" for number in range(n_images)]
    pd.DataFrame({"path": paths, "y": y, "a": a, "split": "train"}).to_csv(folder / "metadata.csv", index=False)
    settings = sm.TrainSettings(model="benchmarks.memory:tiny_network", epochs=1, image_size=SIZE)
    return sm.train(folder, folder / "run", settings)


def peak_of_study(folder: Path, n_edits: int) -> tuple[float, float]:
    """Peak memory in MiB, and seconds, of a study of about so many edited networks on all images of a run."""
    repeats = max(1, n_edits // (SIZES * (CONTROLS + 1)))
    settings = sm.StudySettings(
        criterion=("weight_norm",),
        size=(f"1..{SIZES}",),
        edit=("random_noise:std=0.1",),
        repeats=repeats,
        controls=CONTROLS,
        split=("train",),
    )
    command = [sys.executable, "-m", "benchmarks.memory", "--child", str(folder), settings.model_dump_json()]
    with tempfile.TemporaryFile("w+") as errors:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        errors.seek(0)
        if done.returncode:
            raise RuntimeError(errors.read())
    peak, seconds = json.loads(done.stdout.splitlines()[-1])
    return peak, seconds


def _measure(folder: Path, settings: sm.StudySettings) -> None:
    started = time.perf_counter()
    with watched_memory() as peak:
        sm.study(sm.Run(folder / "run"), settings)
    print(json.dumps([peak.mib, time.perf_counter() - started]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edits", type=int, nargs="+", default=EDITS)
    parser.add_argument("--images", type=int, nargs="+", default=IMAGES)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        folder, settings = options.child
        _measure(Path(folder), sm.StudySettings.model_validate_json(settings))
        return
    cases = [(n, options.images[0]) for n in options.edits] + [(options.edits[0], n) for n in options.images[1:]]
    first = 0.0
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["SPURMEM_CACHE"] = str(Path(temporary) / "cache")
        for n_edits, n_images in cases:
            folder = Path(temporary) / f"{n_images}"
            if not folder.exists():
                tiny_run(folder, n_images)
            peak, seconds = peak_of_study(folder, n_edits)
            first = first or peak
            print(
                f"{n_edits:>7} edited networks x {n_images:>5} images: peak {peak:.0f} MiB ({peak / first - 1:+.0%}), "
                f"{seconds:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
