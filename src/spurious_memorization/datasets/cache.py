"""A cache on disk for decoded images: each image is decoded once, and later passes read its pixels from the cache."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
import torchvision
from numpy.typing import NDArray

from ..cache_folder import cache_folder
from ..console import log
from ..errors import UserError
from .image_files import ImageFiles
from .transforms import ImageTransform, Pixels

FORMAT = 1
PAGE = 4096
SUFFIX = ".pixels"
KEPT = (SUFFIX, ".features")
"""Suffixes of all files that are kept in the folder; `networks.feature_files` writes the second kind."""


class ImageCache:
    """The pixels of a data set's images, all of one size, in one sparse file with one record per sample.

    A record consists of a checksum word, the pixels, and zeros up to the end of the page. The checksum word is chosen
    so that all words of the record (uint64) add up to the stamp of the image file. The sum is wrong if the record was
    never written, was written only in part, or belongs to an image file that has changed since. Such an image is
    decoded again. Therefore several processes may write at once, in any order, and a process, the power or the disk
    may fail at any time.

    The file is read by system calls. It is not mapped into memory, because a mapped file would crash the process if
    another process or machine deletes it, or if the disk fails.

    Arguments:
        file: file of the records.
        limit: maximum size of all cache files in the folder together, in bytes on disk.
        files: the image files by name.
        paths: name of the image file of each sample.
        side: height and width of the images in pixels.
    """

    def __init__(self, *, file: Path, limit: float, files: ImageFiles, paths: Sequence[str], side: int) -> None:
        self.file = file
        self._limit = limit
        self._files = files
        self._paths = paths
        self._shape = (3, side, side)
        self._record_bytes = math.ceil((8 + math.prod(self._shape)) / PAGE) * PAGE
        self._storing = True

    def images(self, index: NDArray[np.int64], decode: Callable[[int], Pixels]) -> list[Pixels]:
        """The images of these samples. Those that are not in the cache are decoded, and stored if there is room.

        Arguments:
            index: the samples, [samples].
            decode: returns the pixels of one sample, decoded from its file.

        Returns:
            The pixels of each sample, each [3, side, side].
        """
        samples = index.tolist()
        stamps = [_stamp(self._files.version(self._paths[i])) for i in samples]
        stored = self._read(samples, stamps)
        images = [decode(i) if pixels is None else pixels for i, pixels in zip(samples, stored, strict=True)]
        new = [n for n, pixels in enumerate(stored) if pixels is None]
        if new and self._storing:
            self._store([(samples[n], stamps[n], images[n]) for n in new])
        return images

    def _read(self, samples: Sequence[int], stamps: Sequence[int]) -> list[Pixels | None]:
        records = np.empty((len(samples), self._record_bytes // 8), np.uint64)
        try:
            with _opened(self.file, os.O_RDONLY) as handle:
                with contextlib.suppress(OSError):
                    os.utime(handle)
                sought = zip(records, samples, stamps, strict=True)
                return [self._read_into(record, handle, i, stamp) for record, i, stamp in sought]
        except OSError:
            return [None] * len(samples)

    def _read_into(self, record: NDArray[np.uint64], handle: int, i: int, stamp: int) -> Pixels | None:
        length = os.preadv(handle, [record.data], i * self._record_bytes)
        if length < self._record_bytes or not stamp or int(record.sum()) != stamp:
            return None
        pixels: Pixels = record.view(np.uint8)[8 : 8 + math.prod(self._shape)].reshape(self._shape)
        return pixels

    def _store(self, new: Sequence[tuple[int, int, Pixels]]) -> None:
        """Write images (sample, stamp, pixels) until the cache is full."""
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            wanted = len(new) * self._record_bytes
            free = make_room(self.file.parent, wanted, keep=self.file, limit=self._limit)
            room = int(max(0, min(free, wanted)) // self._record_bytes)
            with _opened(self.file, os.O_WRONLY | os.O_CREAT) as handle:
                for i, stamp, pixels in new[:room]:
                    self._write(handle, i, stamp, pixels)
        except OSError as error:
            self._storing = False
            _log_once(
                f"decoded images can't be stored in {self.file.parent} ({error.strerror or error}), so they are "
                "decoded again in each pass: set SPURMEM_CACHE to another folder"
            )
        else:
            if room < len(new):
                _log_once(
                    f"the image cache in {self.file.parent} has reached its limit of {self._limit / 1e9:g} GB, so the "
                    "other images are decoded again in each pass: raise SPURMEM_CACHE_GB"
                )

    def _write(self, handle: int, i: int, stamp: int, pixels: Pixels) -> None:
        record = np.zeros(self._record_bytes // 8, np.uint64)
        record[1:].view(np.uint8)[: pixels.size] = pixels.reshape(-1)
        record[0] = (stamp - int(record.sum())) % 2**64
        if os.pwrite(handle, record.data, i * self._record_bytes) < self._record_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def image_cache(files: ImageFiles, paths: tuple[str, ...], transform: ImageTransform) -> ImageCache | None:
    """The cache of these images with this transform, in the folder given by the environment variable `SPURMEM_CACHE`.

    Returns:
        The cache. None if `SPURMEM_CACHE_GB` is 0, if the user has no home directory and `SPURMEM_CACHE` is not set,
        and on Windows, which doesn't have the system calls.

    Raises:
        UserError: `SPURMEM_CACHE_GB` is not a number from 0.
    """
    limit = cache_limit()
    if not limit or not hasattr(os, "preadv"):
        return None
    versions = [FORMAT, PIL.__version__, torchvision.__version__]
    geometry = transform.geometry()
    identity = json.dumps([versions, files.identity, paths, geometry], sort_keys=True)
    name = hashlib.sha256(identity.encode()).hexdigest()[:32] + SUFFIX
    folder = cache_folder()
    if folder is None:
        _log_once("there is no home directory, so images are decoded again in each pass: set SPURMEM_CACHE to a folder")
        return None
    return ImageCache(file=folder / name, limit=limit, files=files, paths=paths, side=transform.image_size)


def cache_limit() -> float:
    """Maximum size of the cache in bytes.

    Raises:
        UserError: `SPURMEM_CACHE_GB` is not a number from 0.
    """
    text = os.environ.get("SPURMEM_CACHE_GB") or "20"
    try:
        limit = float(text) * 1e9
    except ValueError:
        limit = math.nan
    if not limit >= 0:
        raise UserError(f"SPURMEM_CACHE_GB is {text!r}: set it to the limit in GB, such as 20, or to 0 for no cache")
    return limit


def make_room(folder: Path, wanted: int, *, keep: Path, limit: float | None = None) -> float:
    """Delete files of the cache, least recently used first, until so many bytes are free.

    Arguments:
        folder: of the cache.
        wanted: bytes.
        keep: a file that is not deleted.
        limit: of the whole cache in bytes; by default `cache_limit`.

    Returns:
        The bytes that are free afterwards; negative if the files are still larger than the limit.
    """
    files = sorted(_files(folder))
    left = (cache_limit() if limit is None else limit) - sum(file.taken for file in files)
    for other in files:
        if left >= wanted:
            break
        if other.path != keep:
            other.path.unlink(missing_ok=True)
            left += other.taken
    return left


@contextlib.contextmanager
def _opened(file: Path, flags: int) -> Iterator[int]:
    handle = os.open(file, flags, 0o666)
    try:
        yield handle
    finally:
        os.close(handle)


def _stamp(version: str) -> int:
    """The number of a version of a file; 0 if the file does not exist."""
    return int.from_bytes(hashlib.blake2b(version.encode(), digest_size=8).digest()) if version else 0


class _File(NamedTuple):
    used: int
    taken: int
    path: Path


def _files(folder: Path) -> Iterator[_File]:
    """The cache files in this folder: time of last use, bytes on disk, and path."""
    for path in (path for path in folder.iterdir() if path.suffix in KEPT):
        with contextlib.suppress(FileNotFoundError):
            facts = path.stat()
            yield _File(facts.st_mtime_ns, facts.st_blocks * 512, path)


# Anonymous shared memory: processes forked from this one, such as those that load batches, see the same byte.
_logged = mmap.mmap(-1, 1)


def _log_once(line: str) -> None:
    if not _logged[0]:
        _logged[0] = 1
        log(line)
