"""Sources of inputs: image files, which are decoded when they are needed, texts, or tensors in memory."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from ..errors import UserError
from .cache import ImageCache, image_cache
from .image_files import ImageFiles
from .images import opened_image, to_rgb
from .texts import Texts, Tokenization
from .transforms import ImageTransform, Pixels, augmented

Inputs = Tensor | Mapping[str, Tensor]

Noun = Literal["image", "text", "sample"]
"""What sentences call a sample."""


class Batch(NamedTuple):
    """A batch of samples, as a criterion receives it.

    Attributes:
        inputs: [samples, ...], a tensor or a mapping of tensors.
        y: labels, [samples].
        index: index of each sample in the data set, [samples].
    """

    inputs: Inputs
    y: Tensor
    index: Tensor  # type: ignore[assignment]  # the field hides tuple.index


class Source(Protocol):
    """Anything that returns the inputs of samples."""

    def load(self, index: NDArray[np.int64]) -> Inputs:
        """The evaluation inputs of the samples with these indices, [samples, ...]."""
        ...

    def load_augmented(self, index: int, seed: int) -> Inputs:
        """The augmented training input of one sample, without a batch axis. The augmentation depends only on `seed`."""
        ...

    def fingerprint(self) -> str:
        """A digest that changes when the inputs change."""
        ...


@dataclass(frozen=True, eq=False)
class Tensors:
    """Inputs that are already tensors and are used unchanged: [samples, ...], or a mapping of such tensors."""

    x: Inputs

    def load(self, index: NDArray[np.int64]) -> Inputs:
        return self._at(torch.tensor(index))

    def load_augmented(self, index: int, seed: int) -> Inputs:
        return self._at(index)

    def _at(self, index: int | Tensor) -> Inputs:
        if isinstance(self.x, Tensor):
            return self.x[index]
        return {name: values[index] for name, values in self.x.items()}

    def fingerprint(self) -> str:
        parts = {"": self.x} if isinstance(self.x, Tensor) else dict(self.x)
        digest = hashlib.sha256()
        for name, values in sorted(parts.items()):
            digest.update(f"{name}{tuple(values.shape)}{values.dtype}".encode())
            digest.update(values.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def sample_name(index: int, source: Source | None = None) -> str:
    """How a message names a sample: "sample 3", and for images also the file, for texts the row."""
    return f"sample {index} ({source.paths[index]})" if isinstance(source, Images | Texts) else f"sample {index}"


def noun_of(what: Source | ImageTransform | Tokenization) -> Noun:
    """What sentences call a sample from this source, or one with this transform."""
    match what:
        case Images() | ImageTransform():
            return "image"
        case Texts() | Tokenization():
            return "text"
    return "sample"


@dataclass(frozen=True, eq=False)
class Images:
    """Image files. For evaluation they are decoded once and cached; for augmentation, each time.

    Arguments:
        files: the image files by name.
        paths: name of the file of each sample. In a folder, its path relative to the folder.
        transform: from image to input; None until a network or an image size is chosen.
        given: the entries of the transform that are fixed, if a network chooses the others. None if all are fixed.
    """

    files: ImageFiles
    paths: tuple[str, ...]
    transform: ImageTransform | None
    given: Mapping[str, Any] | None = None

    @property
    def root(self) -> Path:
        """Where the data are."""
        return self.files.root

    def open(self, index: int) -> Image.Image:
        """The decoded image, in RGB.

        Raises:
            UserError: the file is missing, or it can't be decoded completely.
        """
        with self.opened(index) as image:
            return to_rgb(image)

    @contextmanager
    def opened(self, index: int) -> Iterator[Image.Image]:
        """The image file, whose pixels are not decoded yet.

        Raises:
            UserError: the file is missing, or a decoder raises an error within the block. The message names the file.
        """
        try:
            with opened_image(self.files, self.paths[index]) as image:
                yield image
        except UserError as error:
            name = self.files.place(self.paths[index])
            if isinstance(error.__cause__, FileNotFoundError):
                raise UserError(f"image {name} is missing: `spurmem data check` lists all missing files") from error
            raise UserError(
                f"image {name} can't be read ({error}): replace the file; `spurmem data check` lists all broken files"
            ) from error

    def load(self, index: NDArray[np.int64]) -> Tensor:
        if self._cache is None:
            images = [self._decoded(i) for i in index.tolist()]
        else:
            images = self._cache.images(index, self._decoded)
        return self._chosen_transform.normalized(images)

    def load_augmented(self, index: int, seed: int) -> Tensor:
        return augmented(self._training, self.open(index), seed)

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for path in self.paths:
            size = self.files.size(path)
            digest.update(f"{path}\0{-1 if size is None else size}\0".encode(errors="surrogatepass"))
        return digest.hexdigest()

    def _decoded(self, index: int) -> Pixels:
        image = self.open(index)
        if _is_too_narrow(image.size, self._chosen_transform):
            raise UserError(
                f"image {self.files.place(self.paths[index])} of {image.width} x {image.height} pixels is too narrow "
                "to keep its aspect ratio: crop it, or set keep_aspect: false in dataset.yaml"
            )
        return np.array(self._evaluation(image)).transpose(2, 0, 1)

    @cached_property
    def _cache(self) -> ImageCache | None:
        return image_cache(self.files, self.paths, self._chosen_transform)

    @cached_property
    def _evaluation(self) -> v2.Transform:
        return self._chosen_transform.evaluation()

    @cached_property
    def _training(self) -> v2.Transform:
        return self._chosen_transform.training()

    @property
    def _chosen_transform(self) -> ImageTransform:
        if self.transform is None:
            raise UserError("no image size is given: set image_size (--image-size), or write it into dataset.yaml")
        return self.transform


def _is_too_narrow(size: tuple[int, int], transform: ImageTransform) -> bool:
    """Whether a resize that keeps the aspect ratio would leave no pixel, or more than Pillow opens."""
    ratio = max(size) / min(size)
    if transform.pad:
        return transform.resize < ratio
    return transform.keep_aspect and ratio * transform.resize**2 > (Image.MAX_IMAGE_PIXELS or math.inf)
