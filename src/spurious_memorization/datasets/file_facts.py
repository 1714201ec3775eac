"""What is known of each image file: whether it can be read, its digest, mode, size and perceptual hash."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from ..console import log, progress
from ..errors import UserError
from .image_files import ImageFiles
from .images import opened_image, to_rgb
from .near_duplicates import perceptual_hash

T = TypeVar("T")
R = TypeVar("R")

CHUNK = 256
TIMED_IMAGES = 8
"""Number of images that are read first, to estimate the time for all images."""
LONG_SECONDS = 10.0
"""The estimate is logged only if it is longer than this."""


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """What is known of one image file.

    Arguments:
        broken: the reason why it can't be read; None if it can, or if this was not tried.
        digest: of its bytes; None if they were not read.
        mode: Pillow's name of the stored mode, such as "RGB" or "I;16"; None if the image was not decoded.
        size: width and height in pixels.
        is_rotated: whether EXIF states a rotation. It is not applied.
        hash: the perceptual hash; None if it was not computed or the image is flat.
    """

    broken: str | None = None
    digest: bytes | None = None
    mode: str | None = None
    size: tuple[int, int] = (0, 0)
    is_rotated: bool = False
    hash: NDArray[np.uint16] | None = None


def inspect_files(
    files: ImageFiles, paths: Sequence[str], *, decode: bool, digested: set[str], compare: bool
) -> dict[str, FileFacts]:
    """Read image files in several threads, which is enough because decoding releases Python's global lock.

    Arguments:
        files: the image files by name.
        paths: the names of those to read, which exist.
        decode: decode them completely.
        digested: the files whose digest is wanted.
        compare: compute the perceptual hash of decoded images.
    """

    def inspect(path: str) -> FileFacts:
        return _inspect(files, path, decode, path in digested, compare)

    return dict(zip(paths, in_threads(paths, inspect, "decoding" if decode else "comparing"), strict=True))


def in_threads(items: Sequence[T], read: Callable[[T], R], verb: str) -> list[R]:
    """Call `read` for each item in several threads, with a progress bar. A long time is announced.

    Arguments:
        items: one per image.
        read: reads one image.
        verb: what is done with the images, for messages.

    Returns:
        The results, in the order of the items.
    """
    workers = os.cpu_count() or 1
    start = perf_counter()
    for number in np.linspace(0, len(items) - 1, TIMED_IMAGES).astype(int) if len(items) > CHUNK else ():
        read(items[number])
    seconds = (perf_counter() - start) / TIMED_IMAGES * len(items) / workers
    if seconds > LONG_SECONDS:
        log(f"{verb} {len(items)} images, about {seconds / 60:.1f} min")

    def results(pool: ThreadPoolExecutor) -> Iterator[R]:
        for first in range(0, len(items), CHUNK):
            yield from pool.map(read, items[first : first + CHUNK])

    with ThreadPoolExecutor(workers) as pool:
        return list(progress(results(pool), len(items), verb))


def _inspect(files: ImageFiles, path: str, decode: bool, digested: bool, compare: bool) -> FileFacts:
    digest = None
    try:
        if digested:
            with files.open(path) as stream:
                digest = hashlib.file_digest(stream, "sha256").digest()
        if not decode:
            return FileFacts(digest=digest)
        with opened_image(files, path) as image:
            mode = image.mode
            rgb = to_rgb(image)
            return FileFacts(
                digest=digest,
                mode=mode,
                size=rgb.size,
                is_rotated=_is_rotated(image),
                hash=perceptual_hash(rgb) if compare else None,
            )
    except UserError as error:
        return FileFacts(broken=str(error), digest=digest)
    except OSError as error:
        return FileFacts(broken=error.strerror or str(error))


def _is_rotated(image: Image.Image) -> bool:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)
    except Exception:  # the pixels are right, even if this tag is damaged
        return False
