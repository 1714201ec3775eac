"""A small data folder in the layout for your own data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

N = 24


def frame(**columns: Any) -> pd.DataFrame:
    """24 samples: two labels, two attribute values, three splits, in every combination."""
    number = np.arange(N)
    standard = {
        "path": [f"images/{i:02d}.png" for i in number],
        "y": np.where(number % 2, "gull", "finch"),
        "a": np.where(number // 2 % 2, "sea", "wood"),
        "split": np.array(["train", "val", "test"])[number // 8],
    }
    return pd.DataFrame({**standard, **columns})


def folder(
    place: Path, table: pd.DataFrame | None = None, parquet: bool = False, size: tuple[int, int] = (12, 9)
) -> Path:
    """A data folder with this table and its images."""
    table = frame() if table is None else table
    (place / "images").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(N):
        pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / "images" / f"{i:02d}.png")
    if parquet:
        table.to_parquet(place / "metadata.parquet")
    else:
        table.to_csv(place / "metadata.csv", index=False)
    return place
