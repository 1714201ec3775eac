"""A data folder with the group counts of Waterbirds' training split, in JPEGs of photo size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from PIL import Image

from spurious_memorization.datasets.synthbirds.drawing import draw_image
from spurious_memorization.datasets.synthbirds.make import SHAPES

SIZE = (460, 360)
COUNTS = (3498, 184, 56, 1057)
DRAWN = 60  # per group; the other images are crops and flips of these


def make_images(folder: Path) -> Path:
    """Write the JPEGs and their table; existing images are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rows = []
    for group, count in enumerate(COUNTS):
        y, a = divmod(group, 2)
        originals = [draw_image(0, 0, 1000 * group + n, SHAPES[y], a, 512) for n in range(min(DRAWN, count))]
        for n in range(count):
            name = f"{group}_{n:04d}.jpg"
            rows.append((name, y, a, "train"))
            crop, turned = rng.uniform(0, 40, 2), rng.random() < 0.5
            grain = rng.integers(0, 2**32)
            if not (folder / name).is_file():
                _photograph(originals[n % len(originals)], crop, bool(turned), int(grain)).save(
                    folder / name, quality=90
                )
    pd.DataFrame(rows, columns=["path", "y", "a", "split"]).to_csv(folder / "metadata.csv", index=False)
    names = {"image_size": 224, "resize": 256, "keep_aspect": False}
    (folder / "dataset.yaml").write_text(
        yaml.safe_dump({**names, "classes": ["landbird", "waterbird"], "attributes": {"a": ["land", "water"]}})
    )
    return folder


def _photograph(image: Image.Image, crop: np.ndarray, turned: bool, grain: int) -> Image.Image:
    left, upper = crop
    cropped = image.crop((int(left), int(upper), int(left) + 460, int(upper) + 360))
    cropped = cropped.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if turned else cropped
    noise = np.random.default_rng(grain).normal(0, 6, (360, 460, 1))
    return Image.fromarray((np.asarray(cropped) + noise).clip(0, 255).astype(np.uint8))
