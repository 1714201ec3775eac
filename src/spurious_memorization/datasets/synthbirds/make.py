"""Synthbirds: generated images of two kinds of birds, on land or water, with a planted spurious correlation.

The two kinds differ only in shape (bill, neck, tail, feet). Plumage, pose, size and surroundings have the same
distribution for both kinds. As in Waterbirds, the background is much easier to learn than the kind.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from ..generated import BALANCED, begin_folder, check_room, finish_folder, save_images, spread_evenly, waterbirds_table
from ..samples import SPLITS
from ..settings import SynthbirdsSettings
from ..tables import DatasetDescription
from .drawing import Shape, draw_image

SYNTHBIRDS = "synthbirds"
"""The name of the data set."""
KINDS = ("landbird", "waterbird")
PLACES = ("land", "water")

SHAPES = (
    Shape(
        bill_length=(0.165, 0.225),
        bill_depth=(0.07, 0.10),
        bill_waist=0.59,
        bill_tip=(0.01, 0.018),
        neck=(0.06, 0.14),
        tail_length=(0.28, 0.44),
        tail_lift=(-0.17, 0.28),
        webbed_feet=False,
    ),
    Shape(
        bill_length=(0.235, 0.335),
        bill_depth=(0.054, 0.079),
        bill_waist=0.53,
        bill_tip=(0.025, 0.04),
        neck=(0.12, 0.26),
        tail_length=(0.18, 0.28),
        tail_lift=(0.02, 0.42),
        webbed_feet=True,
    ),
)
"""The shapes of the two kinds. Some of their ranges overlap, so that no single part of the bird tells the kind."""


def make_synthbirds(out: Path, settings: SynthbirdsSettings | None = None) -> pd.DataFrame:
    """Draw the images into `out`, then write its table.

    In each split, exactly the share `balance` of the images (rounded) are waterbirds. In training, exactly the share
    `correlation` of each kind has the matching background; in val and test, half of each kind has it. The random
    numbers of an image depend only on the seed, the split and the image's number. So a smaller data set is the
    beginning of a larger one.

    Arguments:
        out: the data folder. An incomplete folder of an interrupted call is continued; a complete one is unchanged.
        settings: counts, shares, size, seed and layout.

    Returns:
        The table in the columns of the layout, one row per image.

    Raises:
        UserError: `out` contains something else, or the same data with other settings, or it can't be written.

    Example:
        ```python
        make_synthbirds(Path("birds"), SynthbirdsSettings(train=240, val=60, test=120))
        data = read_data("birds")
        ```
    """
    settings = settings or SynthbirdsSettings()
    check_room(out, settings.train + settings.val + settings.test)
    plan = _plan(settings)
    begin_folder(out, SYNTHBIRDS, settings.model_dump(mode="json"))

    def draw(row: Any) -> Image.Image:
        return draw_image(
            settings.seed, SPLITS.index(row.split), row.number, SHAPES[row.y], row.place, settings.image_size
        )

    save_images(out, list(plan.itertuples()), draw, label="drawing birds", seconds_each=0.0045)
    if settings.layout == "waterbirds":
        description = DatasetDescription(name=SYNTHBIRDS, image_size=settings.image_size, resize=settings.image_size)
        return finish_folder(out, waterbirds_table(plan), description)
    description = DatasetDescription(
        name=SYNTHBIRDS,
        image_size=settings.image_size,
        classes=KINDS,
        attributes={"a": PLACES},
        group_name="{label} on {attribute}",
    )
    plan["y"] = np.take(KINDS, plan["y"])
    plan["a"] = np.take(PLACES, plan["place"])
    return finish_folder(out, plan[["path", "y", "a", "split"]], description)


def _plan(settings: SynthbirdsSettings) -> pd.DataFrame:
    """One row per image: split, number within the split, y, place and path."""
    parts = []
    for split in SPLITS:
        n = getattr(settings, split)
        y = spread_evenly(n, Fraction(str(settings.balance))).astype(np.int64)
        matches = np.zeros(n, dtype=bool)
        for kind in range(len(KINDS)):
            share = Fraction(str(settings.correlation)) if split == "train" else BALANCED
            matches[y == kind] = spread_evenly(int((y == kind).sum()), share)
        part = pd.DataFrame({"split": split, "number": range(n), "y": y, "place": np.where(matches, y, 1 - y)})
        parts.append(part)
    plan = pd.concat(parts, ignore_index=True)
    if settings.layout == "waterbirds":
        folders = [f"{kind + 1:03d}.{name.title()}/{name.title()}" for kind, name in enumerate(KINDS)]
        plan["path"] = [f"{folders[row.y]}_{row.split}_{row.number:05d}.jpg" for row in plan.itertuples()]
        plan["place_filename"] = [f"drawn/{PLACES[place]}" for place in plan["place"]]
    else:
        plan["path"] = [f"{row.split}/{row.number:05d}.jpg" for row in plan.itertuples()]
    return plan
