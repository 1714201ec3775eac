"""Generated data folders in which one property of the images goes with the label, or none does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

SIDE = 64
QUALITY = 90
Draw = Callable[[Image.Image, np.random.Generator], Image.Image]


def plain(y: int, rng: np.random.Generator, side: int) -> Image.Image:
    """Stripes in a disk before a random background. The label is their direction: one is the mirror image of the other.

    So no property of the pixels can tell the classes apart.
    """
    rows, columns = np.indices((side, side)) * (SIDE / side) - SIDE / 2
    across = rows + (2 * y - 1) * columns
    stripes = np.sign(np.sin(across * 2 * np.pi / rng.uniform(6, 10) + rng.uniform(0, 2 * np.pi)))
    slope = rng.normal(0, 0.6, (3, 1, 1)) * columns + rng.normal(0, 0.6, (3, 1, 1)) * rows
    background = rng.uniform(60, 180, (3, 1, 1)) + slope
    bird = rng.uniform(60, 180, (3, 1, 1)) + rng.uniform(20, 50) * stripes
    image = np.where(np.hypot(rows, columns) < SIDE / 4, bird, background) + rng.normal(0, 6, (3, side, side))
    return Image.fromarray(image.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))


def brighter(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return image.point(lambda value: value + 30)


def framed(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    ImageDraw.Draw(image).rectangle((0, 0, image.width - 1, image.height - 1), outline=(40, 40, 40), width=2)
    return image


def tagged(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A few letters in the lower right corner."""
    text = "".join(rng.choice(list("ABCDEFGHKLMNRSTX"), 2))
    ImageDraw.Draw(image).text((image.width - 14, image.height - 12), text, fill=(250, 250, 250))
    return image


def blurred(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return image.resize((image.width * 3 // 4, image.height * 3 // 4), Image.Resampling.BILINEAR).resize(image.size)


def tinted(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    red, green, blue = image.split()
    return Image.merge("RGB", (red.point(lambda value: value + 70), green, blue))


def unchanged(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return image


@dataclass(frozen=True, kw_only=True)
class Plant:
    """A property that is planted.

    Arguments:
        found_as: the measured properties by which it must be found.
        draw: changes the image.
        side: of the image in pixels.
        quality: of JPEG.
        file_format: "JPEG" or "PNG".
    """

    found_as: frozenset[str]
    draw: Draw = unchanged
    side: int = SIDE
    quality: int = QUALITY
    file_format: str = "JPEG"


PLANTS = {
    "brightness": Plant(draw=brighter, found_as=frozenset({"brightness"})),
    "border": Plant(draw=framed, found_as=frozenset({"border_variation", "border_color", "border_brightness"})),
    "tag in a corner": Plant(draw=tagged, found_as=frozenset({"mark_bottom_right"})),
    "sharpness": Plant(draw=blurred, found_as=frozenset({"sharpness"})),
    "tint": Plant(draw=tinted, found_as=frozenset({"hue", "border_color", "colorfulness"})),
    "quality of JPEG": Plant(quality=75, found_as=frozenset({"file_size", "bytes_per_pixel"})),
    "image size": Plant(side=80, found_as=frozenset({"width", "height", "pixels"})),
    "file format": Plant(file_format="PNG", found_as=frozenset({"file_format"})),
}
NOTHING = Plant(found_as=frozenset())


def make_planted(
    folder: Path, plant: str | None, *, seed: int, train: int = 200, test: int = 0, correlation: float = 0.8
) -> Path:
    """Write a data folder of two classes, without an attribute column.

    Arguments:
        folder: a new folder.
        plant: a name of `PLANTS`; None for images whose properties have nothing to do with the label.
        seed: of every draw.
        train, test: number of images.
        correlation: share of the images of class "rising" that have the property; the others have it with the rest.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    rows = []
    for split, n in (("train", train), ("test", test)):
        for number in range(n):
            y = number % 2
            is_planted = plant is not None and rng.random() < (correlation if y else 1 - correlation)
            planted = PLANTS[plant] if plant is not None and is_planted else NOTHING
            image = planted.draw(plain(y, rng, planted.side), rng)
            path = f"{split}_{number:04d}.img"  # one extension for all, since the content tells the format
            with (folder / path).open("wb") as file:
                image.save(file, format=planted.file_format, quality=planted.quality)
            rows.append((path, ("falling", "rising")[y], split))
    pd.DataFrame(rows, columns=["path", "y", "split"]).to_csv(folder / "metadata.csv", index=False)
    return folder
