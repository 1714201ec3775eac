"""Decode image files to RGB with 8 bits, or say why a file can't be decoded without a guess."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ..errors import UserError, first_line
from .image_files import ImageFiles

FULL_RANGE = 2**16 - 1
LARGEST_OF_14_BITS = 2**14 - 1
"""Cameras and scanners often store 10, 12 or 14 bits in 16. No image tells so, but its values end here."""

_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262
_WHITE_IS_ZERO = 0


@contextmanager
def opened_image(files: ImageFiles, name: str) -> Iterator[Image.Image]:
    """An image file whose pixels are not decoded yet.

    Raises:
        UserError: the reason why the file can't be read, for any error that a decoder raises within the block. The
            message doesn't name the file.
    """
    try:
        with files.open(name) as stream, Image.open(stream) as image:
            if image.format == "EPS":
                raise UserError("EPS files are programs: save it as PNG")
            yield image
    except UserError:
        raise
    except UnidentifiedImageError as error:
        raise UserError("it is not an image of a known format") from error
    except OSError as error:
        raise UserError(error.strerror or first_line(error)) from error
    except MemoryError as error:
        raise UserError("its pixels don't fit into memory") from error
    except Exception as error:  # decoders raise errors of many types for a damaged file
        raise UserError(first_line(error)) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Decode an image completely to RGB with 8 bits, as torchvision's loader does. Alpha and EXIF rotation are ignored.

    Gray images of 16 bits are scaled by the range that the file states. Float images are scaled if all values are in
    0..1. The loader of torchvision would cut both off.

    Raises:
        UserError: the range of the values is ambiguous, so that a guess could give a black or white image.
    """
    has_16_bits = _states_16_bits(image)
    image.load()
    image.info.pop("transparency", None)  # it changes no pixel here, but Pillow warns of some of its values
    if image.mode == "F":
        return _from_float(image)
    if image.mode == "I" and image.format != "PPM":
        raise _ambiguous(image, np.asarray(image), "integers of 32 bits have no known range")
    if image.mode.startswith("I"):
        return _from_16_bits(image, may_be_less=has_16_bits)
    if has_16_bits and max(_highest(image)) <= LARGEST_OF_14_BITS >> 8:
        raise UserError(
            f"mode {image.mode} with 16 bits per color, but no value exceeds {LARGEST_OF_14_BITS} of {FULL_RANGE}: "
            "that is as if fewer bits were stored in 16; save it with 8 bits"
        )
    return image.convert("RGB")


def _states_16_bits(image: Image.Image) -> bool:
    """Whether the file states 16 bits per value. Pillow keeps the 8 highest of them if the image has colors."""
    layouts = [tile.args if isinstance(tile.args, tuple) else (tile.args,) for tile in image.tile]  # type: ignore[attr-defined]
    if image.format == "PPM":
        return any(";16" in str(layout[0]) or layout[-1] == FULL_RANGE for layout in layouts)
    return any(";16" in str(layout[0]) for layout in layouts) or (image.format == "JPEG2000" and image.mode == "I;16")


def _highest(image: Image.Image) -> list[float]:
    """The largest value of each color."""
    bands = image.convert("RGB").getextrema()
    return [highest for _, highest in bands]  # type: ignore[misc]  # RGB has a pair per band


def _from_16_bits(image: Image.Image, may_be_less: bool) -> Image.Image:
    tags = getattr(image, "tag_v2", {})
    full = 2**12 - 1 if tags.get(_BITS_PER_SAMPLE) == (12,) else FULL_RANGE
    values = np.asarray(image)
    if may_be_less and 0 < values.max() <= LARGEST_OF_14_BITS and not _was_8_bits(values):
        raise _ambiguous(image, values, f"that is as if fewer bits were stored in 16, and of {full} it would be dark")
    levels = np.rint(np.arange(full + 1) * (255 / full)).astype(np.uint8)
    return _gray(image, levels[values])


def _was_8_bits(values: NDArray[np.generic]) -> bool:
    """Whether 8 bits were spread over all 16, by repeating them or by adding zeros."""
    return any(not (values % step).any() for step in (257, 256))


def _from_float(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if not (values.min() >= 0 and values.max() <= 1):
        raise _ambiguous(image, values, "floats are read only if all are in 0..1")
    return _gray(image, np.rint(values * 255).astype(np.uint8))


def _gray(image: Image.Image, levels: NDArray[np.uint8]) -> Image.Image:
    white_is_zero = getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    return Image.fromarray(255 - levels if white_is_zero else levels).convert("RGB")


def _ambiguous(image: Image.Image, values: NDArray[np.generic], why: str) -> UserError:
    lowest, highest = values.min(), values.max()
    return UserError(f"mode {image.mode} with values {lowest:.6g} to {highest:.6g}: {why}; save it with 8 bits")
