"""Small images with a spurious correlation, as tensors. Many networks can be trained on them quickly."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from ..datasets.samples import Dataset
from ..datasets.tensors import from_tensors

SIZE = 24
CLASSES = ("upright", "lying")
TINTS = ("warm", "cold")
TINT = np.array([[0.4, 0.0, -0.4], [-0.4, 0.0, 0.4]])
TINT_STRENGTHS = (-0.6, 1.8)
"""Range of the strength of the tint. Where it is small or negative, the shortcut fails. So there are majority samples
that are as hard as minority samples, as in real data."""

COUNTS: Mapping[str, tuple[int, int, int, int]] = {
    "train": (240, 60, 60, 240),
    "val": (100, 100, 100, 100),
    "test": (60, 60, 60, 60),
}
"""Images per group in each split."""


def striped_images(
    seed: int, counts: Mapping[str, tuple[int, int, int, int]] = COUNTS, *, noise: float = 1.5
) -> Dataset:
    """Images of noisy stripes. The label is their direction; the attribute is the tint, which is far easier to see.

    Arguments:
        seed: seed of every draw.
        counts: images per group in each split.
        noise: standard deviation of the noise per pixel; the stripes have an amplitude of 0.5.
    """
    rng = np.random.default_rng([seed, 0xCA11B])
    splits = [split for split, here in counts.items() for n in here for _ in range(n)]
    group = np.array([g for here in counts.values() for g, n in enumerate(here) for _ in range(n)])
    images = np.stack([_image(rng, y, a, noise) for y, a in zip(group // 2, group % 2, strict=True)])
    x = torch.from_numpy(images)
    return from_tensors(x, group // 2, group % 2, splits, classes=CLASSES, attributes=TINTS)


def _image(rng: np.random.Generator, y: int, a: int, noise: float) -> NDArray[np.float32]:
    across = np.arange(SIZE)[None, :] if y == 0 else np.arange(SIZE)[:, None]
    wave = np.sin(2 * np.pi * across / rng.uniform(4, 8) + rng.uniform(0, 2 * np.pi))
    stripes = np.broadcast_to(0.5 * rng.choice([-1, 1]) * wave, (SIZE, SIZE))
    tint = TINT[a][:, None, None] * rng.uniform(*TINT_STRENGTHS)
    image: NDArray[np.float64] = stripes + tint + rng.normal(0, noise, (3, SIZE, SIZE))
    return image.astype(np.float32)
