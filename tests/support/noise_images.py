"""Square images of noise that differ, and the network inputs that they are."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

SIDE = 8
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def noise_image(number: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))


def png(number: int) -> bytes:
    stream = BytesIO()
    noise_image(number).save(stream, "PNG")
    return stream.getvalue()


def inputs_of(images: Iterable[Image.Image]) -> Tensor:
    """The images with ImageNet's mean and standard deviation, [images, 3, side, side]."""
    pixels = torch.stack([torch.tensor(np.array(image.convert("RGB"))).permute(2, 0, 1) for image in images]) / 255
    return (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
