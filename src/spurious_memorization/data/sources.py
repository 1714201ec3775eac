"""Where inputs come from: picture files that are decoded when asked for, or tensors that are there already."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from ..errors import UserError
from .transforms import PictureTransform, augmented

Inputs = Tensor | Mapping[str, Tensor]


class Batch(NamedTuple):
    """Some samples: `inputs` [samples, ...] (a tensor, or a mapping of them), labels `y` [samples] and their `index`
    [samples] in the data set."""

    inputs: Inputs
    y: Tensor
    index: Tensor  # type: ignore[assignment]  # the field hides tuple.index


class Source(Protocol):
    """Where inputs come from: anything that gives the input of one sample."""

    def load(self, index: int) -> Inputs:
        """The evaluation input of the sample with this index, without a batch axis."""
        ...

    def load_augmented(self, index: int, seed: int) -> Inputs:
        """The training input: augmented with draws that depend on `seed` alone."""
        ...

    def fingerprint(self) -> str:
        """A digest that changes when the inputs do."""
        ...


@dataclass(frozen=True, eq=False)
class Tensors:
    """Inputs that are tensors already, used as they are: [samples, ...], or a mapping of such."""

    x: Inputs

    def load(self, index: int) -> Inputs:
        if isinstance(self.x, Tensor):
            return self.x[index]
        return {name: values[index] for name, values in self.x.items()}

    def load_augmented(self, index: int, seed: int) -> Inputs:
        return self.load(index)

    def fingerprint(self) -> str:
        parts = {"": self.x} if isinstance(self.x, Tensor) else dict(self.x)
        digest = hashlib.sha256()
        for name, values in sorted(parts.items()):
            digest.update(f"{name}{tuple(values.shape)}{values.dtype}".encode())
            digest.update(values.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Pictures:
    """Picture files below `root`, decoded when asked for.

    Arguments:
        root: the data folder.
        paths: file of each sample, relative to `root`.
        transform: from picture to input; None until a network or a picture size is chosen.
    """

    root: Path
    paths: tuple[str, ...]
    transform: PictureTransform | None

    def open(self, index: int) -> Image.Image:
        """The decoded picture, in RGB.

        Raises:
            UserError: the file is missing or can't be decoded whole.
        """
        path = self.root / self.paths[index]
        try:
            with Image.open(path) as picture:
                return picture.convert("RGB")
        except FileNotFoundError as error:
            raise UserError(f"picture {path} is missing: `spurmem data check` lists all that are") from error
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise UserError(
                f"picture {path} can't be read ({error}): replace the file; `spurmem data check` lists all such"
            ) from error

    def load(self, index: int) -> Tensor:
        transformed: Tensor = self._evaluation(self.open(index))
        return transformed

    def load_augmented(self, index: int, seed: int) -> Tensor:
        return augmented(self._training, self.open(index), seed)

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for path in self.paths:
            file = self.root / path
            digest.update(f"{path}\0{file.stat().st_size if file.exists() else -1}\0".encode())
        return digest.hexdigest()

    @cached_property
    def _evaluation(self) -> v2.Transform:
        return self._chosen_transform().evaluation()

    @cached_property
    def _training(self) -> v2.Transform:
        return self._chosen_transform().training()

    def _chosen_transform(self) -> PictureTransform:
        if self.transform is None:
            raise UserError("no picture size is chosen: give image_size (--image-size), or write it into dataset.yaml")
        return self.transform
