"""Colored digits: scikit-learn's scanned digits with a planted correlation between digit and color."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from .generated import begin_folder, finish_folder, save_images, spread_evenly
from .samples import SPLITS
from .settings import COLORS, ColoredDigitsSettings, parse_digits
from .tables import DatasetDescription

FULL_INK = 16.0
"""The largest pixel value in a scan of `load_digits`."""


def make_colored_digits(out: Path, settings: ColoredDigitsSettings | None = None) -> pd.DataFrame:
    """Color scanned digits, save them in `out`, then write its table.

    The usual color of class c (in the order of the digits) is color number c mod `colors`. In training, exactly the
    share `correlation` of each class (rounded) has its usual color, and the rest is divided equally among the other
    colors. In val and test, each class is divided equally among all colors. Equal parts differ by at most one image.
    No scan is used twice.

    Arguments:
        out: the data folder. An incomplete folder of an interrupted call is continued; a complete one is unchanged.
        settings: digits, colors, shares, size and seed.

    Returns:
        The table with the columns path, y (the digit's index among `digits`), a (its color) and split, one row per
        image.

    Raises:
        UserError: `out` contains something else, or the same data with other settings,
            or it can't be written.

    Example:
        ```python
        make_colored_digits(Path("digits"), ColoredDigitsSettings(digits="3,5,8", colors=4))
        data = read_data("digits")
        ```
    """
    settings = settings or ColoredDigitsSettings()
    scans, labels = _scans()
    digits = parse_digits(settings.digits)
    plan = _plan(labels, digits, settings)
    begin_folder(out, "colored-digits", settings.model_dump(mode="json"))

    def draw(row: Any) -> Image.Image:
        return _colored(scans[row.scan], row.a, np.random.default_rng([settings.seed, row.scan]), settings.image_size)

    save_images(out, list(plan.itertuples()), draw, label="coloring digits", seconds_each=0.002)
    description = DatasetDescription(
        name="colored-digits",
        image_size=settings.image_size,
        classes=tuple(map(str, digits)),
        attributes={"a": tuple(COLORS)[: settings.colors]},
        group_name="{attribute} {label}",
    )
    return finish_folder(out, plan[["path", "y", "a", "split"]], description)


def _scans() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The scans with pixel values from 0 to 1, [scans, 8, 8], and their digits, [scans]."""
    from sklearn.datasets import load_digits  # slow to import

    bundled = load_digits()
    return bundled.images / FULL_INK, bundled.target.astype(np.int64)


def _plan(labels: NDArray[np.int64], digits: list[int], settings: ColoredDigitsSettings) -> pd.DataFrame:
    """One row per image: scan, y (index of the digit), a (name of the color), split and path."""
    names = list(COLORS)[: settings.colors]
    parts = []
    for y, digit in enumerate(digits):
        members = np.random.default_rng([settings.seed, digit]).permutation(np.flatnonzero(labels == digit))
        n_val, n_test = round(len(members) * settings.val_share), round(len(members) * settings.test_share)
        ends = np.cumsum([len(members) - n_val - n_test, n_val])
        usual = y % settings.colors
        for split, scans in zip(SPLITS, np.split(members, ends), strict=True):
            color = (usual + np.arange(len(scans))) % settings.colors
            if split == "train":
                color = np.full(len(scans), usual)
                rare = np.flatnonzero(~spread_evenly(len(scans), Fraction(str(settings.correlation))))
                color[rare] = (usual + 1 + np.arange(len(rare)) % (settings.colors - 1)) % settings.colors
            part = pd.DataFrame({"scan": scans, "y": y, "a": np.take(names, color), "split": split})
            parts.append(part.sort_values("scan"))
    plan = pd.concat(parts, ignore_index=True)
    plan["path"] = [f"{row.split}/{digits[row.y]}/{row.scan:04d}.png" for row in plan.itertuples()]
    return plan


def _colored(scan: NDArray[np.float64], color: str, rng: np.random.Generator, image_size: int) -> Image.Image:
    """A scan, [8, 8], enlarged to `image_size` pixels, in a tint of the color on a dark background."""
    ink = Image.fromarray((scan * 255).astype(np.uint8)).resize((image_size, image_size), Image.Resampling.BICUBIC)
    tint = (np.array(COLORS[color]) * rng.uniform(0.75, 1.05) + rng.normal(0, 10, 3)).clip(0, 255)
    ground = rng.uniform(12, 40) + rng.normal(0, 4, 3)
    share = np.asarray(ink, dtype=np.float64)[..., None] / 255
    pixels = ground + (tint - ground) * share + rng.normal(0, 3, (image_size, image_size, 1))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
