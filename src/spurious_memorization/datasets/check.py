"""Check a data folder: counts, missing and broken images, and images that are in two splits."""

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
from ..datasets import celeba, waterbirds
from ..errors import UserError
from .folder import assemble, attribute_column, read_table
from .groups import group_counts
from .samples import SPLITS, Dataset
from .sources import Images
from .tables import AnnotatedTable, leads_outside

KNOWN_COUNTS = {"waterbirds": waterbirds.KNOWN_COUNTS, "celeba": celeba.KNOWN_COUNTS}
KNOWN_ATTRIBUTES = ("a", celeba.ATTRIBUTE)

CHUNK = 256
TRIED = 8
LONG_SECONDS = 10.0


@dataclass(frozen=True)
class Difference:
    """A group whose number of samples in a split isn't the known one."""

    split: str
    group: str
    found: int
    known: int


@dataclass(frozen=True)
class Report:
    """What a check found.

    Arguments:
        folder: the data folder.
        name: of the data set.
        layout: that was recognized ("table", "waterbirds", "celeba").
        attribute: the attribute column.
        groups: name of each group.
        counts: samples of each group, for each split.
        lift: training lift of each group; nan where nothing is expected.
        minority: the minority groups.
        majority: the majority groups.
        split_seed: seed of the split that was made because the table has none.
        compared: whether the counts of this data set are known.
        differences: where the counts aren't the known ones.
        images: number of image files that the table names.
        decoded: whether every image was decoded.
        searched: whether copies between splits were looked for.
        missing: files that don't exist.
        broken: why each of these files can't be read whole.
        outside: paths that lead outside the folder; these samples aren't counted.
        leaks: sets of byte-identical files of different splits: {split: paths}.
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
    differences: tuple[Difference, ...]
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
        """Everything, in JSON's types."""
        return {
            **asdict(self),
            "sound": self.sound,
            "counts": {split: dict(zip(self.groups, n, strict=True)) for split, n in self.counts.items()},
            "lift": {g: None if math.isnan(x) else x for g, x in zip(self.groups, self.lift, strict=True)},
        }


def check(folder: str | Path, attribute: str | None = None, decode: bool = True, duplicates: bool = True) -> Report:
    """Check a data folder of any known layout.

    Counts are compared with the known ones where the layout is Waterbirds' or CelebA's own, unless a `dataset.yaml`
    gives the data another name or `spurmem data make` made them.

    Arguments:
        folder: the data folder.
        attribute: attribute column, as for `read_data`.
        decode: decode every image whole.
        duplicates: look for byte-identical images of different splits.

    Returns:
        The report; `report.sound` is true where nothing is wrong.

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
    data = assemble(root, table, attribute, None, (), 0)
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


def _differences(root: Path, data: Dataset, table: AnnotatedTable, column: str) -> tuple[Difference, ...] | None:
    """Where the counts differ from the known ones; None where none are known, as for what `data make` has recorded."""
    known = KNOWN_COUNTS.get(table.layout)
    if known is None or table.description.name != table.layout or (root / f"{table.layout}.json").is_file():
        return None
    if column not in KNOWN_ATTRIBUTES or len(data.groups) != len(known["train"]):
        return None
    return tuple(
        Difference(split, group, found, expected)
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
    """The files that may have a copy in another split: only these are hashed."""
    splits_of_size: dict[int, set[str]] = defaultdict(set)
    for path, size in sizes.items():
        splits_of_size[size] |= splits[path]
    return {path for path, size in sizes.items() if len(splits_of_size[size]) > 1}


def _inspected(
    root: Path, paths: list[str], decode: bool, hashed: set[str]
) -> Iterator[tuple[str, str | None, bytes | None]]:
    """Path, why it is broken, and digest, for each file; decoding releases Python's lock, so threads are enough."""
    workers = os.cpu_count() or 1
    start = perf_counter()
    for number in np.linspace(0, len(paths) - 1, TRIED).astype(int) if len(paths) > CHUNK else ():
        _inspect(root / paths[number], decode, True)
    seconds = (perf_counter() - start) / TRIED * len(paths) / workers
    verb = "decoding" if decode else "comparing"
    if seconds > LONG_SECONDS:
        log(f"{verb} {len(paths)} images, which takes about {seconds / 60:.1f} minutes")

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
    except Exception as error:  # a damaged file makes the decoders raise almost anything
        return _reason(error), digest
    return None, digest


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is no image"
    return " ".join(str(error).split()) or type(error).__name__


def _leaks(copies: dict[bytes, list[str]], splits: dict[str, set[str]]) -> tuple[dict[str, tuple[str, ...]], ...]:
    leaks = []
    for paths in copies.values():
        by_split = {split: tuple(path for path in paths if split in splits[path]) for split in SPLITS}
        if sum(map(bool, by_split.values())) > 1:
            leaks.append({split: members for split, members in by_split.items() if members})
    return tuple(leaks)
