"""Images that are decoded once: their pixels stay on disk, and later passes read them from there."""

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
import platformdirs
import torchvision
from numpy.typing import NDArray

from ..console import log
from ..errors import UserError
from .transforms import ImageTransform, Pixels

FORMAT = 1
PAGE = 4096
SUFFIX = ".pixels"


class ImageCache:
    """The pixels of one data set's images, all of one size, in one sparse file with a record for each sample.

    The words of a record (uint64) add up to the stamp of the image file that it was made from: the first word makes
    it so, the pixels follow, then zeros up to a whole page. What was never written, was written in part or is of a file
    that has changed since adds up to something else, and is decoded again. So records may be written by several
    processes at once, in any order, and a process, the power or the disk may fail at any time.

    The file is read by system calls and not mapped into memory, because a mapped file that another process or machine
    deletes or that the disk can't deliver would end the process.

    Arguments:
        file: of the records.
        limit: bytes that all such files in its folder may take on disk.
        root: the data folder.
        paths: image file of each sample, relative to `root`.
        side: height and width of the images.
    """

    def __init__(self, file: Path, limit: float, root: Path, paths: Sequence[str], side: int) -> None:
        self.file = file
        self._limit = limit
        self._root = root
        self._paths = paths
        self._shape = (3, side, side)
        self._record_bytes = math.ceil((8 + math.prod(self._shape)) / PAGE) * PAGE
        self._storing = True

    def images(self, index: NDArray[np.int64], decode: Callable[[int], Pixels]) -> list[Pixels]:
        """The images of these samples, read where they are stored; otherwise decoded, and stored where they can be.

        Arguments:
            index: samples.
            decode: gives the pixels of one sample from its file.
        """
        samples = index.tolist()
        stamps = [_stamp(self._root / self._paths[i]) for i in samples]
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
        """Write the images (sample, stamp, pixels) that there is room for."""
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            wanted = len(new) * self._record_bytes
            room = int(max(0, min(self._make_room(wanted), wanted)) // self._record_bytes)
            with _opened(self.file, os.O_WRONLY | os.O_CREAT) as handle:
                for i, stamp, pixels in new[:room]:
                    self._write(handle, i, stamp, pixels)
        except OSError as error:
            self._storing = False
            _say_once(
                f"decoded images can't be stored in {self.file.parent} ({error.strerror or error}): they are decoded "
                "anew each time (SPURMEM_CACHE is the folder)"
            )
        else:
            if room < len(new):
                _say_once(
                    f"decoded images take {self._limit / 1e9:g} GB in {self.file.parent}: the others are decoded "
                    "anew each time (SPURMEM_CACHE_GB is the limit)"
                )

    def _write(self, handle: int, i: int, stamp: int, pixels: Pixels) -> None:
        record = np.zeros(self._record_bytes // 8, np.uint64)
        record[1:].view(np.uint8)[: pixels.size] = pixels.reshape(-1)
        record[0] = (stamp - int(record.sum())) % 2**64
        if os.pwrite(handle, record.data, i * self._record_bytes) < self._record_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _make_room(self, wanted: int) -> float:
        """Delete the other files that were used least recently until `wanted` bytes are left; what is left then."""
        files = sorted(_files(self.file.parent))
        left = self._limit - sum(file.taken for file in files)
        for other in files:
            if left >= wanted:
                break
            if other.path != self.file:
                other.path.unlink(missing_ok=True)
                left += other.taken
        return left


def image_cache(root: Path, paths: tuple[str, ...], transform: ImageTransform) -> ImageCache | None:
    """The cache of these images, transformed so, in the folder that `SPURMEM_CACHE` names.

    Returns:
        None where `SPURMEM_CACHE_GB` is 0, and on Windows, which lacks the system calls.

    Raises:
        UserError: `SPURMEM_CACHE_GB` is no number from 0.
    """
    limit = _limit()
    if not limit or not hasattr(os, "preadv"):
        return None
    versions = [FORMAT, PIL.__version__, torchvision.__version__]
    geometry = transform.model_dump(exclude={"mean", "std"})
    identity = json.dumps([versions, str(root.resolve()), paths, geometry], sort_keys=True)
    name = hashlib.sha256(identity.encode()).hexdigest()[:32] + SUFFIX
    return ImageCache(_folder() / name, limit, root, paths, transform.image_size)


def _folder() -> Path:
    named = os.environ.get("SPURMEM_CACHE")
    return Path(named).absolute() if named else platformdirs.user_cache_path("spurious-memorization")


def _limit() -> float:
    """Bytes that the cache may take."""
    text = os.environ.get("SPURMEM_CACHE_GB") or "20"
    try:
        limit = float(text) * 1e9
    except ValueError:
        limit = math.nan
    if not limit >= 0:
        raise UserError(f"SPURMEM_CACHE_GB is {text!r}: give the limit in GB, such as 20, or 0 for no cache")
    return limit


@contextlib.contextmanager
def _opened(file: Path, flags: int) -> Iterator[int]:
    handle = os.open(file, flags, 0o666)
    try:
        yield handle
    finally:
        os.close(handle)


def _stamp(file: Path) -> int:
    """A number that changes when the file does; 0 where there is none."""
    try:
        facts = file.stat()
    except (OSError, ValueError):
        return 0
    identity = f"{facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns}"
    return int.from_bytes(hashlib.blake2b(identity.encode(), digest_size=8).digest())


class _File(NamedTuple):
    used: int
    taken: int
    path: Path


def _files(folder: Path) -> Iterator[_File]:
    """The cache files in this folder: when each was last used, and the bytes that it takes on disk."""
    for path in folder.glob(f"*{SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):
            facts = path.stat()
            yield _File(facts.st_mtime_ns, facts.st_blocks * 512, path)


# Shared with the processes that are forked from this one, such as those that load batches.
_said = mmap.mmap(-1, 1)


def _say_once(line: str) -> None:
    if not _said[0]:
        _said[0] = 1
        log(line)
