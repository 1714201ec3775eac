"""Check a data folder: counts, missing and broken images, and images that occur in more than one split."""

from __future__ import annotations

import hashlib
import math
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..console import log, progress
from ..errors import UserError
from . import celeba, waterbirds
from .folder import assemble, attribute_column, read_table
from .groups import group_counts
from .samples import SPLITS, Dataset
from .sources import Images
from .tables import AnnotatedTable, leads_outside

KNOWN_COUNTS = {"waterbirds": waterbirds.KNOWN_COUNTS, "celeba": celeba.KNOWN_COUNTS}
KNOWN_ATTRIBUTES = ("a", celeba.ATTRIBUTE)

CHUNK = 256
TIMED_IMAGES = 8
"""Number of images that are read first, to estimate the time for all images."""
LONG_SECONDS = 10.0
"""The estimate is logged only if it is longer than this."""


@dataclass(frozen=True, kw_only=True)
class CountDifference:
    """A group whose number of samples in a split differs from the known number."""

    split: str
    group: str
    found: int
    known: int


@dataclass(frozen=True, kw_only=True)
class Report:
    """The result of a check.

    Arguments:
        folder: the data folder.
        name: name of the data set.
        layout: the recognized layout ("table", "waterbirds", "celeba").
        attribute: the attribute column.
        groups: name of each group.
        counts: number of samples of each group, for each split.
        lift: training lift of each group; nan if the expected count is 0.
        minority: names of the minority groups.
        majority: names of the majority groups.
        split_seed: seed of the split, if the table has no split; otherwise None.
        compared: whether the counts were compared with known counts.
        differences: the counts that differ from the known counts.
        images: number of image files in the table.
        decoded: whether every image was decoded.
        searched: whether copies in different splits were searched for.
        missing: files that don't exist.
        broken: for each file that can't be read completely, the reason.
        outside: paths that lead outside the folder. Their samples aren't counted.
        leaks: sets of byte-identical files in different splits: {split: paths}.
    """

    folder: str
    name: str
    layout: str
    attribute: str
    groups: tuple[str, ...]
    counts: dict[str, tuple[int, ...]]
    lift: tuple[float, ...]
    minority: tuple[str, ...]
    majority: tuple[str, ...]
    split_seed: int | None
    compared: bool
    differences: tuple[CountDifference, ...]
    images: int
    decoded: bool
    searched: bool
    missing: tuple[str, ...]
    broken: dict[str, str]
    outside: tuple[str, ...]
    leaks: tuple[dict[str, tuple[str, ...]], ...]

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.differences or self.missing or self.broken or self.outside or self.leaks)

    def facts(self) -> dict[str, Any]:
        """All results as JSON types."""
        return {
            **asdict(self),
            "sound": self.sound,
            "counts": {split: dict(zip(self.groups, n, strict=True)) for split, n in self.counts.items()},
            "lift": {g: None if math.isnan(x) else x for g, x in zip(self.groups, self.lift, strict=True)},
        }


def check(folder: str | Path, attribute: str | None = None, decode: bool = True, duplicates: bool = True) -> Report:
    """Check a data folder of any known layout.

    If the layout is that of Waterbirds or CelebA, the counts are compared with the known counts. They are not
    compared if a `dataset.yaml` gives the data set another name, or if `spurmem data make` made the data.

    Arguments:
        folder: the data folder.
        attribute: attribute column, as for `read_data`.
        decode: decode every image completely. This finds truncated images.
        duplicates: search for byte-identical images in different splits.

    Returns:
        The report. `report.sound` is true if nothing is wrong.

    Raises:
        UserError: the table can't be read, as for `read_data`.

    Example:
        ```python
        report = check("my_images/")
        report.counts["train"], report.missing
        ```
    """
    root = Path(folder)
    table = read_table(root)
    outside = tuple(path for path in map(str, table.frame["path"]) if leads_outside(path))
    if outside:
        inside = table.frame[[not leads_outside(str(path)) for path in table.frame["path"]]]
        if inside.empty:
            raise UserError(f"{root}: all paths lead outside the folder, such as {outside[0]!r}: use paths within it")
        table = replace(table, frame=inside.reset_index(drop=True))
    data = assemble(root, table, attribute=attribute, image_size=None, minority=(), split_seed=0)
    column = attribute_column(table, attribute)
    differences = _differences(root, data, table, column)
    paths = data.source.paths if isinstance(data.source, Images) else ()
    files = _check_files(root, paths, data.split.tolist(), decode, duplicates)
    names = data.groups.names
    return Report(
        folder=str(root),
        name=data.name,
        layout=data.layout,
        attribute=column,
        groups=names,
        counts={split: tuple(_counts(data, split)) for split in data.splits},
        lift=tuple(data.lift.tolist()),
        minority=tuple(names[g] for g in data.minority),
        majority=tuple(names[g] for g in data.majority),
        split_seed=data.split_seed,
        compared=differences is not None,
        differences=differences or (),
        images=len(set(paths)),
        decoded=decode,
        searched=duplicates,
        missing=files.missing,
        broken=files.broken,
        outside=outside,
        leaks=files.leaks,
    )


def _counts(data: Dataset, split: str) -> list[int]:
    counts: list[int] = group_counts(data.groups, data.g[data.split == split]).tolist()
    return counts


def _differences(root: Path, data: Dataset, table: AnnotatedTable, column: str) -> tuple[CountDifference, ...] | None:
    """The counts that differ from the known counts. None if no counts are known, or if `data make` made the data."""
    known = KNOWN_COUNTS.get(table.layout)
    if known is None or table.description.name != table.layout or (root / f"{table.layout}.json").is_file():
        return None
    if column not in KNOWN_ATTRIBUTES or len(data.groups) != len(known["train"]):
        return None
    return tuple(
        CountDifference(split=split, group=group, found=found, known=expected)
        for split, counts in known.items()
        for group, found, expected in zip(data.groups.names, _counts(data, split), counts, strict=True)
        if found != expected
    )


class _Files(NamedTuple):
    missing: tuple[str, ...]
    broken: dict[str, str]
    leaks: tuple[dict[str, tuple[str, ...]], ...]


def _check_files(root: Path, paths: Sequence[str], split: Sequence[str], decode: bool, duplicates: bool) -> _Files:
    splits: dict[str, set[str]] = defaultdict(set)
    for path, name in zip(paths, split, strict=True):
        splits[path].add(name)
    sizes = {path: _size(root / path) for path in splits}
    present = {path: size for path, size in sizes.items() if size}
    broken = {path: "the file is empty" for path, size in sizes.items() if size == 0}
    suspects = _same_size_in_two_splits(present, splits) if duplicates else set()
    copies: dict[bytes, list[str]] = defaultdict(list)
    for path, reason, digest in _inspected(root, list(present) if decode else sorted(suspects), decode, suspects):
        if reason is not None:
            broken[path] = reason
        if digest is not None:
            copies[digest].append(path)
    missing = tuple(path for path, size in sizes.items() if size is None)
    return _Files(missing, broken, _leaks(copies, splits))


def _size(file: Path) -> int | None:
    try:
        return file.stat().st_size if file.is_file() else None
    except (OSError, ValueError):
        return None


def _same_size_in_two_splits(sizes: dict[str, int], splits: dict[str, set[str]]) -> set[str]:
    """The files that may have a copy in another split. Only these files are hashed."""
    splits_of_size: dict[int, set[str]] = defaultdict(set)
    for path, size in sizes.items():
        splits_of_size[size] |= splits[path]
    return {path for path, size in sizes.items() if len(splits_of_size[size]) > 1}


def _inspected(
    root: Path, paths: list[str], decode: bool, hashed: set[str]
) -> Iterator[tuple[str, str | None, bytes | None]]:
    """For each file: its path, the reason if it is broken, and its digest if it is hashed.

    Threads are enough here, because decoding releases Python's global lock.
    """
    workers = os.cpu_count() or 1
    start = perf_counter()
    for number in np.linspace(0, len(paths) - 1, TIMED_IMAGES).astype(int) if len(paths) > CHUNK else ():
        _inspect(root / paths[number], decode, True)
    seconds = (perf_counter() - start) / TIMED_IMAGES * len(paths) / workers
    verb = "decoding" if decode else "comparing"
    if seconds > LONG_SECONDS:
        log(f"{verb} {len(paths)} images, about {seconds / 60:.1f} min")

    def results(pool: ThreadPoolExecutor) -> Iterator[tuple[str, str | None, bytes | None]]:
        for first in range(0, len(paths), CHUNK):
            chunk = paths[first : first + CHUNK]
            found = pool.map(lambda path: _inspect(root / path, decode, path in hashed), chunk)
            yield from ((path, *result) for path, result in zip(chunk, found, strict=True))

    with ThreadPoolExecutor(workers) as pool:
        yield from progress(results(pool), len(paths), verb)


def _inspect(file: Path, decode: bool, hashed: bool) -> tuple[str | None, bytes | None]:
    try:
        content = file.read_bytes()
    except OSError as error:
        return error.strerror or str(error), None
    digest = hashlib.sha256(content).digest() if hashed else None
    if not decode:
        return None, digest
    try:
        with Image.open(BytesIO(content)) as image:
            image.convert("RGB")
    except Exception as error:  # decoders raise many kinds of errors for a damaged file
        return _reason(error), digest
    return None, digest


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is not an image"
    return " ".join(str(error).split()) or type(error).__name__


def _leaks(copies: dict[bytes, list[str]], splits: dict[str, set[str]]) -> tuple[dict[str, tuple[str, ...]], ...]:
    leaks = []
    for paths in copies.values():
        by_split = {split: tuple(path for path in paths if split in splits[path]) for split in SPLITS}
        if sum(map(bool, by_split.values())) > 1:
            leaks.append({split: members for split, members in by_split.items() if members})
    return tuple(leaks)
