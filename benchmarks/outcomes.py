"""Peak memory of a query over the outcomes of a study, and of one over ten times as many.

`python -m benchmarks.outcomes` makes both folders of blocks, and counts the right answers of each edited network in a
process of its own: by Polars and by DuckDB, as docs/studies.md shows, and by pandas.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

BLOCKS = 200
TIMES = 10
EDITS = 256
SAMPLES = 128
"""Edited networks and samples of a block: those of a network as large as a ResNet-50."""


def by_polars(folder: Path) -> int:
    import polars as pl

    outcomes = pl.scan_parquet(folder / "*.parquet")
    counts = outcomes.group_by("variant").agg(correct=(pl.col("margin") > 0).sum()).collect(engine="streaming")
    return int(counts["correct"].sum())


def by_duckdb(folder: Path) -> int:
    import duckdb

    outcomes = duckdb.read_parquet(f"{folder}/*.parquet")
    counts = outcomes.aggregate("variant, count(*) FILTER (margin > 0) AS correct", "variant")
    return int(counts.df()["correct"].sum())


def by_pandas(folder: Path) -> int:
    outcomes = pd.concat([pd.read_parquet(file) for file in sorted(folder.iterdir())], ignore_index=True)
    return int((outcomes["margin"] > 0).groupby(outcomes["variant"]).sum().sum())


QUERIES: dict[str, Callable[[Path], int]] = {"polars": by_polars, "duckdb": by_duckdb, "pandas": by_pandas}


def make_blocks(folder: Path, n: int) -> Path:
    """Blocks of outcomes with random values: each has edited networks of its own."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(n):
        columns = {
            "variant": np.repeat(np.arange(EDITS) + number * EDITS, SAMPLES).astype(np.int32),
            "sample": np.tile(np.arange(SAMPLES), EDITS).astype(np.int32),
            "predicted": rng.integers(0, 2, EDITS * SAMPLES).astype(np.int16),
            "loss": rng.exponential(size=EDITS * SAMPLES).astype(np.float32),
            "margin": rng.normal(size=EDITS * SAMPLES).astype(np.float32),
        }
        pd.DataFrame(columns).to_parquet(folder / f"test_selected_{number:05d}.parquet", write_page_checksum=True)
    return folder


def measured(query: str, folder: Path) -> str:
    """What a process of its own says of a query: its answer, seconds and peak memory."""
    command = [sys.executable, "-m", "benchmarks.outcomes", query, str(folder)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        for n in (BLOCKS, TIMES * BLOCKS):
            folder = make_blocks(Path(scratch, str(n)), n)
            size = sum(file.stat().st_size for file in folder.iterdir())
            print(f"{n} blocks, {n * EDITS * SAMPLES / 1e6:.1f} million outcomes, {size / 1e6:.0f} MB")
            for query in QUERIES:
                print(f"  {query:<8} {measured(query, folder)}", flush=True)


def _peak_bytes() -> int:
    """The largest memory that this process has had, with the pages of mapped files."""
    return 1024 * int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0])


if __name__ == "__main__":
    if len(sys.argv) == 3:
        before, started = _peak_bytes(), time.perf_counter()
        correct = QUERIES[sys.argv[1]](Path(sys.argv[2]))
        seconds, peak = time.perf_counter() - started, _peak_bytes()
        print(f"peak {peak / 1e6:.0f} MB ({before / 1e6:.0f} before), {seconds:.1f} s, {correct} right")
    else:
        main()
