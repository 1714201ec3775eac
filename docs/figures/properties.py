"""Print the numbers of docs/properties.md: `python docs/figures/properties.py`. It takes some minutes.

How often is a planted property found, how often does a property go with the label by chance alone, and how long does
it take to measure 5,000 images?
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from planted_properties import PLANTS, make_planted

import spurious_memorization as sm
from spurious_memorization.intervals import wilson_interval


def found_properties(folder: Path, seed: int) -> set[str]:
    """The properties that go with the label."""
    associations = sm.property_associations(folder, sm.image_properties(folder), seed=seed)
    return set(associations.query("goes_with_label")["property"])


def counted(plant: str | None, data_sets: int, place: Path) -> tuple[int, int]:
    """In how many data sets the planted property is found, and in how many anything is found."""
    hits = anything = 0
    for seed in range(data_sets):
        with tempfile.TemporaryDirectory(dir=place) as folder:
            found = found_properties(make_planted(Path(folder) / "data", plant, seed=seed), seed)
        hits += plant is not None and bool(found & PLANTS[plant].found_as)
        anything += bool(found)
    return hits, anything


def share(count: int, n: int) -> str:
    """A share in percent with Wilson's interval."""
    low, high = wilson_interval(count, n)
    return f"{count} of {n} = {100 * count / n:.1f} % (95 % interval {100 * low:.1f} to {100 * high:.1f} %)"


def seconds_for(n: int, side: int, place: Path) -> float:
    """Seconds to measure the properties of `n` noisy JPEG files, of which 50 differ."""
    rng = np.random.default_rng(0)
    for number in range(50):
        values = rng.integers(0, 256, (side // 4, side // 4, 3), dtype=np.uint8)
        Image.fromarray(values).resize((side, side), Image.Resampling.BICUBIC).save(place / f"{number}.jpg")
    table = pd.DataFrame({"path": [f"{i % 50}.jpg" for i in range(n)], "y": np.arange(n) % 2, "split": "train"})
    table.to_csv(place / "metadata.csv", index=False)
    started = time.perf_counter()
    properties = sm.image_properties(place)
    measured = time.perf_counter()
    sm.property_associations(place, properties)
    print(f"of them {time.perf_counter() - measured:.0f} s for the permutations")
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plain", type=int, default=100, help="data sets without a planted property")
    parser.add_argument("--planted", type=int, default=20, help="data sets for each planted property")
    parser.add_argument("--images", type=int, default=5000, help="images whose time is measured")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        _, alarms = counted(None, options.plain, Path(folder))
        print("false alarms:", share(alarms, options.plain))
        for plant in PLANTS:
            hits, _ = counted(plant, options.planted, Path(folder))
            print(f"{plant}: found in", share(hits, options.planted))
    with tempfile.TemporaryDirectory() as folder:
        print(f"{options.images} images of 224 x 224: {seconds_for(options.images, 224, Path(folder)):.0f} s")


if __name__ == "__main__":
    main()
