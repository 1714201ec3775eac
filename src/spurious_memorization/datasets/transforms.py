"""From a image to the network's input, in evaluation and in training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torchvision.transforms import v2

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Pixels = NDArray[np.uint8]  # [3, height, width]


class ImageTransform(BaseModel):
    """How images become inputs of shape [3, image_size, image_size], normalized by `mean` and `std`.

    In evaluation: resize (to a square of `resize` pixels, or its shorter side to `resize` where `keep_aspect`), then
    center crop. In training: random resized crop of scale 0.7-1 and aspect 3/4-4/3, bilinear, then a horizontal flip
    in half of the cases. The research code of You et al. (2025) does this with `resize` 256 and `image_size` 224.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_size: int = Field(ge=1)
    resize: int = Field(ge=1)
    keep_aspect: bool = False
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def evaluation(self) -> v2.Transform:
        """The deterministic transform: from a image to one of `image_size`, whose pixels `normalized` takes."""
        mode = v2.InterpolationMode(self.interpolation)
        size = self.resize if self.keep_aspect else (self.resize, self.resize)
        return v2.Compose([v2.Resize(size, interpolation=mode, antialias=True), v2.CenterCrop(self.image_size)])

    def normalized(self, images: Sequence[Pixels]) -> Tensor:
        """Pixels as inputs: float32, [images, 3, image_size, image_size].

        Bitwise what `v2.ToDtype` and `v2.Normalize` give; one image at a time stays in the processor's cache,
        and NumPy's memory comes in huge pages, each of which faults once.
        """
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        inputs = torch.from_numpy(np.empty((len(images), 3, self.image_size, self.image_size), np.float32))
        for out, pixels in zip(inputs, images, strict=True):
            out.copy_(torch.from_numpy(pixels)).mul_(1 / 255).sub_(mean).div_(std)
        return inputs

    def training(self) -> v2.Transform:
        """The augmenting transform, drawing from torch's random state: from a image to an input [3, side, side]."""
        crop = v2.RandomResizedCrop(
            self.image_size, scale=(0.7, 1.0), ratio=(3 / 4, 4 / 3), interpolation=v2.InterpolationMode.BILINEAR
        )
        to_tensor = [
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(list(self.mean), list(self.std)),
            v2.ToPureTensor(),
        ]
        return v2.Compose([crop, v2.RandomHorizontalFlip(), *to_tensor])


def augmented(transform: v2.Transform, image: Image.Image, seed: int) -> Tensor:
    """Apply a random transform with draws that depend on `seed` alone, leaving torch's random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformed: Tensor = transform(image)
    return transformed
