"""Transforms from an image to the network's input, for evaluation and for training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torchvision.transforms import v2

from ..settings import MAX_IMAGE_SIZE

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MAX_RESIZE = 4 * MAX_IMAGE_SIZE
INTERPOLATIONS = tuple(mode.value for mode in v2.InterpolationMode)

Pixels = NDArray[np.uint8]  # [3, height, width]


class ImageTransform(BaseModel):
    """How images become inputs of shape [3, image_size, image_size], normalized by `mean` and `std`.

    In evaluation: a resize, then a center crop. The resize gives a square of `resize` pixels. With `keep_aspect`, it
    gives the shorter side `resize` pixels instead. With `pad`, it gives the longer side `resize` pixels, and the rest
    of the square is filled with the color `mean`. timm calls these crop modes squash, center and border. With `bgr`,
    the order of the colors is blue, green, red; `mean` and `std` are in this order, too.

    In training: a random resized crop (scale 0.7 to 1, aspect ratio 3/4 to 4/3, bilinear), then a horizontal flip with
    probability 0.5. The research code of You et al. (2025) uses `resize` 256 and `image_size` 224.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_size: int = Field(ge=1, le=MAX_IMAGE_SIZE)
    resize: int = Field(ge=1, le=MAX_RESIZE)
    keep_aspect: bool = False
    pad: bool = False
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    bgr: bool = False

    def evaluation(self) -> v2.Transform:
        """The deterministic transform from an image to an image of `image_size`, the input of `normalized`."""
        mode = v2.InterpolationMode(self.interpolation)
        if self.pad:
            from timm.data.transforms import CenterCropOrPad, ResizeKeepRatio  # slow to import, and rarely needed

            red, green, blue = (round(255 * value) for value in self.mean)
            longer_side = ResizeKeepRatio(  # type: ignore[no-untyped-call]
                self.resize, longest=1.0, interpolation=self.interpolation
            )
            return v2.Compose([longer_side, CenterCropOrPad(self.image_size, fill=(red, green, blue))])
        size = self.resize if self.keep_aspect else (self.resize, self.resize)
        return v2.Compose([v2.Resize(size, interpolation=mode, antialias=True), v2.CenterCrop(self.image_size)])

    def geometry(self) -> dict[str, Any]:
        """The fields on which the result of `evaluation` depends."""
        return self.model_dump(exclude={"std", "bgr"} if self.pad else {"mean", "std", "bgr"})

    def __str__(self) -> str:
        """As a log line says it: means, standard deviations, resize and crop."""
        shape = "longer side of" if self.pad else "shorter side of" if self.keep_aspect else "square of"
        mean, std = (" ".join(f"{value:.3g}" for value in values) for values in (self.mean, self.std))
        crop = f"{self.interpolation} resize to a {shape} {self.resize} pixels, center crop of {self.image_size}"
        return f"mean {mean}, std {std}, {crop}{', colors in the order BGR' if self.bgr else ''}"

    def normalized(self, images: Sequence[Pixels]) -> Tensor:
        """Pixels as inputs of the network: float32, [images, 3, image_size, image_size].

        The result is bitwise equal to that of `v2.ToDtype` and `v2.Normalize`, but faster. One image at a time fits
        into the processor's cache, and NumPy allocates memory in huge pages, which cause fewer page faults.
        """
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        inputs = torch.from_numpy(np.empty((len(images), 3, self.image_size, self.image_size), np.float32))
        for out, pixels in zip(inputs, images, strict=True):
            out.copy_(torch.from_numpy(pixels[::-1].copy() if self.bgr else pixels)).mul_(1 / 255).sub_(mean).div_(std)
        return inputs

    def training(self) -> v2.Transform:
        """The random transform from an image to an input, [3, image_size, image_size]. It uses torch's random state."""
        crop = v2.RandomResizedCrop(
            self.image_size, scale=(0.7, 1.0), ratio=(3 / 4, 4 / 3), interpolation=v2.InterpolationMode.BILINEAR
        )
        to_tensor = [
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            *([_reversed_colors] if self.bgr else []),
            v2.Normalize(list(self.mean), list(self.std)),
            v2.ToPureTensor(),
        ]
        return v2.Compose([crop, v2.RandomHorizontalFlip(), *to_tensor])


def _reversed_colors(image: Tensor) -> Tensor:
    return image.flip(0)


def check_crop(resize: int, image_size: int) -> None:
    """Raise a `ValueError` if the crop is larger than the resized image, which would add black borders.

    A few networks of timm do so on purpose. In a description it is an error.
    """
    if resize < image_size:
        raise ValueError(f"resize {resize} is below image_size {image_size}: the crop needs at least its own size")


def augmented(transform: v2.Transform, image: Image.Image, seed: int) -> Tensor:
    """Apply a random transform. Its random numbers depend only on `seed`; torch's own random state is not changed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformed: Tensor = transform(image)
    return transformed
