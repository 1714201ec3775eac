"""Kinds of birds that differ in shape, drawn at random, and images of them on land and water."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spurious_memorization.datasets.synthbirds.drawing import Shape, draw_image

WHOLE_RANGES = {
    "bill_length": (0.10, 0.40),
    "bill_depth": (0.04, 0.115),
    "bill_tip": (0.0, 0.05),
    "neck": (0.02, 0.30),
    "tail_length": (0.12, 0.50),
    "tail_lift": (-0.25, 0.50),
}
"""Ranges of all birds."""
WIDTHS = {
    "bill_length": 0.04,
    "bill_depth": 0.015,
    "bill_tip": 0.008,
    "neck": 0.06,
    "tail_length": 0.08,
    "tail_lift": 0.20,
}
"""Widths of the ranges of one species."""

SPLIT_OF_SPECIES = 3
"""A number in the seed of every image. Those of synthbirds have 0, 1 or 2 there, so no image occurs in both."""


def random_species(n: int, seed: int) -> list[Shape]:
    """Draw the shapes of `n` species."""
    rng = np.random.default_rng([seed, 0x5EC1E5])
    return [_species(rng) for _ in range(n)]


def draw_species(
    numbers: Sequence[int], n_species: int, image_size: int, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """Draw images of birds. Each species is seen on land and on water equally often.

    Arguments:
        numbers: of the images. With the seed, they determine everything random, the species and the place.
        n_species: number of species.
        image_size: side in pixels.
        seed: of species and images.

    Returns:
        Images [n, image_size, image_size, 3], their species [n], and their places [n] (0 land, 1 water).
    """
    number = np.asarray(numbers)
    species, place = number % n_species, number // n_species % 2
    shapes = random_species(n_species, seed)
    drawn = [
        np.asarray(draw_image(seed, SPLIT_OF_SPECIES, i, shapes[s], p, image_size))
        for i, s, p in zip(number.tolist(), species.tolist(), place.tolist(), strict=True)
    ]
    return np.stack(drawn), species, place


def _species(rng: np.random.Generator) -> Shape:
    def part(name: str) -> tuple[float, float]:
        low, high = WHOLE_RANGES[name]
        start = rng.uniform(low, high - WIDTHS[name])
        return start, start + WIDTHS[name]

    return Shape(
        bill_length=part("bill_length"),
        bill_depth=part("bill_depth"),
        bill_waist=rng.uniform(0.45, 0.65),
        bill_tip=part("bill_tip"),
        neck=part("neck"),
        tail_length=part("tail_length"),
        tail_lift=part("tail_lift"),
        webbed_feet=bool(rng.random() < 0.5),
    )
