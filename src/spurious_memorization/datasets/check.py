"""Check a data folder: counts, missing and broken images, and images or texts that occur more than once."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from ..errors import UserError
from . import celeba, waterbirds
from .file_facts import FileFacts, inspect_files
from .folder import assemble, attribute_columns, own_columns, read_table
from .groups import group_counts
from .image_files import ImageFiles
from .near_duplicates import nearest_matches
from .samples import SPLITS, Dataset
from .settings import FOUND_COLUMNS, NO_ATTRIBUTE, Columns
from .sources import Images
from .tables import AnnotatedTable, leads_outside
from .texts import Texts

KNOWN_COUNTS = {"waterbirds": waterbirds.KNOWN_COUNTS, "celeba": celeba.KNOWN_COUNTS}
KNOWN_ATTRIBUTES = ("a", celeba.ATTRIBUTE)

RARE_SHARE = 0.01
"""A mode or size is unusual if a single image has it, or at most this share of all images."""


@dataclass(frozen=True, kw_only=True)
class CountDifference:
    """A group whose number of samples in a split differs from the known number."""

    split: str
    group: str
    found: int
    known: int


@dataclass(frozen=True, kw_only=True)
class Contradiction:
    """One image, under one or several paths with the same bytes, that belongs to several groups."""

    paths: tuple[str, ...]
    groups: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class NearDuplicate:
    """An image that looks like one of an earlier split: only `distance` of 256 bits differ in their hashes."""

    path: str
    split: str
    match: str
    match_split: str
    distance: int


@dataclass(frozen=True, kw_only=True)
class RareValue:
    """A class or attribute value that occurs once or never in a split."""

    kind: str
    value: str
    split: str
    count: int


@dataclass(frozen=True, kw_only=True)
class Report:
    """The result of a check.

    Arguments:
        folder: the data folder.
        name: name of the data set.
        layout: the recognized layout ("table", "waterbirds", "celeba").
        kind: what the samples are.
        attribute: the attribute column, or several, such as "a,b".
        classes: name of each class.
        groups: name of each group.
        counts: number of samples of each group, for each split.
        lift: training lift of each group; nan if the expected count is 0.
        minority: names of the minority groups.
        majority: names of the majority groups.
        merged: names of the attribute values that were too small and became one value.
        split_seed: seed of the split, if the table has no split; otherwise None.
        compared: whether the counts were compared with known counts.
        differences: the counts that differ from the known counts.
        images: number of image files, or of texts, in the table.
        decoded: whether every image was decoded.
        searched: whether images that occur more than once were searched for.
        missing: files that don't exist.
        broken: for each file that can't be read completely, the reason.
        outside: paths that lead outside the folder. Their samples aren't counted.
        leaks: sets of byte-identical files in different splits: {split: paths}.
        contradictions: images with several labels or attributes.
        repeated: for each path with rows that repeat exactly, how often. The following are notes, too, and no errors.
        copies: sets of byte-identical files in the same split and group.
        near_duplicates: images that look like an image of an earlier split. Flat images are left out.
        modes: number of decoded images of each mode ("RGB", "L", "I;16", ...).
        sizes: number of decoded images of each size ("width x height").
        unusual: for each image with a rare mode or size, what is unusual. Empty if most images differ.
        rotated: images with an EXIF rotation, which isn't applied.
        rare: classes and attribute values that occur once or never in a split.
    """

    folder: str
    name: str
    layout: str
    kind: Literal["images", "texts"]
    attribute: str
    classes: tuple[str, ...]
    groups: tuple[str, ...]
    counts: dict[str, tuple[int, ...]]
    lift: tuple[float, ...]
    minority: tuple[str, ...]
    majority: tuple[str, ...]
    merged: tuple[str, ...]
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
    contradictions: tuple[Contradiction, ...]
    repeated: dict[str, int]
    copies: tuple[tuple[str, ...], ...]
    near_duplicates: tuple[NearDuplicate, ...]
    modes: dict[str, int]
    sizes: dict[str, int]
    unusual: dict[str, str]
    rotated: tuple[str, ...]
    rare: tuple[RareValue, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        wrong = (self.differences, self.missing, self.broken, self.outside, self.leaks, self.contradictions)
        return not any(wrong)

    def facts(self) -> dict[str, Any]:
        """All results as JSON types."""
        return {
            **asdict(self),
            "sound": self.sound,
            "counts": {split: dict(zip(self.groups, n, strict=True)) for split, n in self.counts.items()},
            "lift": {g: None if math.isnan(x) else x for g, x in zip(self.groups, self.lift, strict=True)},
        }


def check(
    folder: str | Path,
    attribute: str | None = None,
    decode: bool = True,
    duplicates: bool = True,
    min_group_size: int = 1,
    columns: Columns = FOUND_COLUMNS,
) -> Report:
    """Check a data folder of any known layout.

    If the layout is that of Waterbirds or CelebA, the counts are compared with the known counts. They are not
    compared if a `dataset.yaml` gives the data set another name, or if `spurmem data make` made the data.

    Arguments:
        folder: the data folder.
        attribute: attribute column, or several, as for `read_data`.
        decode: decode every image completely. This finds truncated images.
        duplicates: search for images that occur more than once, and, if they are decoded, for near-duplicates.
        min_group_size: training samples that an attribute value needs, as for `read_data`.
        columns: the columns of image, label and split, as for `read_data`.

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
    table = read_table(root, columns)
    outside = tuple(path for path in map(str, table.frame["path"]) if leads_outside(path))
    if outside:
        inside = table.frame[[not leads_outside(str(path)) for path in table.frame["path"]]]
        if inside.empty:
            raise UserError(f"{root}: all paths lead outside the folder, such as {outside[0]!r}: use paths within it")
        table = replace(table, frame=inside.reset_index(drop=True))
    data = assemble(
        root, table, attribute=attribute, image_size=None, minority=(), split_seed=0, min_group_size=min_group_size
    )
    column = attribute or (attribute_columns(table, None)[0] if own_columns(table) else NO_ATTRIBUTE)
    differences = _differences(root, data, table, column)
    source = data.source
    if isinstance(source, Texts):
        files = _check_texts(source, data, duplicates)
    else:
        assert isinstance(source, Images), "a folder has images or texts"
        files = _check_files(source.files, source.paths, data, decode, duplicates)
    paths = source.paths
    names = data.groups.names
    return Report(
        folder=str(root),
        name=data.name,
        layout=data.layout,
        kind="texts" if table.texts else "images",
        attribute=column,
        classes=data.groups.classes,
        groups=names,
        counts={split: tuple(_counts(data, split)) for split in data.splits},
        lift=tuple(data.lift.tolist()),
        minority=tuple(names[g] for g in data.minority),
        majority=tuple(names[g] for g in data.majority),
        merged=data.merged,
        split_seed=data.split_seed,
        compared=differences is not None,
        differences=differences or (),
        images=len(set(paths)),
        decoded=decode,
        searched=duplicates,
        outside=outside,
        repeated=_repeated_rows(paths, data) if duplicates else {},
        rare=_rare_values(data),
        **files._asdict(),
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
    contradictions: tuple[Contradiction, ...]
    copies: tuple[tuple[str, ...], ...]
    near_duplicates: tuple[NearDuplicate, ...]
    modes: dict[str, int]
    sizes: dict[str, int]
    unusual: dict[str, str]
    rotated: tuple[str, ...]


def _check_files(files: ImageFiles, paths: Sequence[str], data: Dataset, decode: bool, duplicates: bool) -> _Files:
    splits, groups = _splits_and_groups(paths, data)
    sizes = {path: files.size(path) for path in splits}
    unreadable = {path: reason for path in sizes if (reason := _unreadable(files, path, sizes[path]))}
    present = {path: size for path, size in sizes.items() if size and path not in unreadable}
    alike = _of_equal_size(present) if duplicates else set()
    read = list(present) if decode else sorted(alike)
    facts = inspect_files(files, read, decode=decode, digested=alike, compare=duplicates)
    copies = _copies(splits, facts) if duplicates else []
    leaks = _leaks(copies, splits)
    leaked = {path for leak in leaks for members in leak.values() for path in members}
    decoded = {path: fact for path, fact in facts.items() if fact.mode is not None}
    contradictions = _contradictions(copies, groups, data)
    return _Files(
        missing=tuple(path for path, size in sizes.items() if size is None),
        broken=unreadable | {path: fact.broken for path, fact in facts.items() if fact.broken is not None},
        leaks=leaks,
        contradictions=contradictions,
        copies=_mere_copies(copies, leaked, contradictions),
        near_duplicates=_near_duplicates(decoded, splits, leaked),
        modes=_most_common(str(fact.mode) for fact in decoded.values()),
        sizes=_most_common(_shown(fact.size) for fact in decoded.values()),
        unusual=_unusual(decoded),
        rotated=tuple(path for path, fact in decoded.items() if fact.is_rotated),
    )


def _check_texts(source: Texts, data: Dataset, duplicates: bool) -> _Files:
    splits, groups = _splits_and_groups(source.paths, data)
    same: dict[tuple[str, ...], list[str]] = defaultdict(list)
    parts = [part for part in (source.texts, source.pairs) if part is not None]
    for path, text in dict(zip(source.paths, zip(*parts, strict=True), strict=True)).items():
        same[text].append(path)
    copies = list(same.values()) if duplicates else []
    leaks = _leaks(copies, splits)
    contradictions = _contradictions(copies, groups, data)
    leaked = {path for leak in leaks for members in leak.values() for path in members}
    return _Files((), {}, leaks, contradictions, _mere_copies(copies, leaked, contradictions), (), {}, {}, {}, ())


def _splits_and_groups(paths: Sequence[str], data: Dataset) -> tuple[dict[str, set[str]], dict[str, set[int]]]:
    splits: dict[str, set[str]] = defaultdict(set)
    groups: dict[str, set[int]] = defaultdict(set)
    for path, split, group in zip(paths, data.split.tolist(), data.g.tolist(), strict=True):
        splits[path].add(split)
        groups[path].add(group)
    return splits, groups


def _contradictions(copies: list[list[str]], groups: dict[str, set[int]], data: Dataset) -> tuple[Contradiction, ...]:
    names = data.groups.names
    return tuple(
        Contradiction(paths=tuple(members), groups=tuple(names[g] for g in sorted(found)))
        for members in copies
        if len(found := set[int]().union(*(groups[path] for path in members))) > 1
    )


def _mere_copies(
    copies: list[list[str]], leaked: set[str], contradictions: tuple[Contradiction, ...]
) -> tuple[tuple[str, ...], ...]:
    """The copies within one split and group."""
    wrong = leaked.union(*(contradiction.paths for contradiction in contradictions))
    return tuple(tuple(members) for members in copies if len(members) > 1 and wrong.isdisjoint(members))


def _unreadable(files: ImageFiles, path: str, size: int | None) -> str | None:
    if size is None:
        return None
    if not files.is_regular(path):
        return "it is not a regular file"
    return "the file is empty" if size == 0 else None


def _of_equal_size(sizes: dict[str, int]) -> set[str]:
    """The files that may have a copy. Only these files are hashed."""
    number = Counter(sizes.values())
    return {path for path, size in sizes.items() if number[size] > 1}


def _copies(paths: Iterable[str], facts: dict[str, FileFacts]) -> list[list[str]]:
    """The paths of each image: files with the same bytes belong together."""
    copies: dict[bytes | str, list[str]] = defaultdict(list)
    for path in paths:
        digest = facts[path].digest if path in facts else None
        copies[path if digest is None else digest].append(path)
    return list(copies.values())


def _leaks(copies: list[list[str]], splits: dict[str, set[str]]) -> tuple[dict[str, tuple[str, ...]], ...]:
    leaks = []
    for paths in copies:
        by_split = {split: tuple(path for path in paths if split in splits[path]) for split in SPLITS}
        if sum(map(bool, by_split.values())) > 1:
            leaks.append({split: members for split, members in by_split.items() if members})
    return tuple(leaks)


def _near_duplicates(
    decoded: dict[str, FileFacts], splits: dict[str, set[str]], leaked: set[str]
) -> tuple[NearDuplicate, ...]:
    """For each image, the image of an earlier split that looks most like it."""
    hashes = {path: fact.hash for path, fact in decoded.items() if fact.hash is not None and path not in leaked}
    of_split = {split: [path for path in hashes if split in splits[path]] for split in SPLITS}
    found = []
    for number, split in enumerate(SPLITS):
        later = of_split[split]
        earlier = [(name, path) for name in SPLITS[:number] for path in of_split[name]]
        if later and earlier:
            nearest, distance = nearest_matches(
                np.stack([hashes[path] for path in later]), np.stack([hashes[path] for _, path in earlier])
            )
            for n in np.flatnonzero(nearest >= 0):
                match_split, match = earlier[nearest[n]]
                found.append(
                    NearDuplicate(
                        path=later[n], split=split, match=match, match_split=match_split, distance=int(distance[n])
                    )
                )
    return tuple(sorted(found, key=lambda pair: pair.distance))


def _shown(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _most_common(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


def _unusual(decoded: dict[str, FileFacts]) -> dict[str, str]:
    """The images with a rare mode or size, where most images agree in it."""
    modes, sizes = Counter(fact.mode for fact in decoded.values()), Counter(fact.size for fact in decoded.values())
    most = max(1, RARE_SHARE * len(decoded))
    unusual = {}
    for path, fact in decoded.items():
        odd = [f"mode {fact.mode}"] if _agree(modes) and modes[fact.mode] <= most else []
        if _agree(sizes) and sizes[fact.size] <= most:
            odd.append(f"{_shown(fact.size)} pixels")
        if odd:
            unusual[path] = ", ".join(odd)
    return unusual


def _agree(counts: Counter[Any]) -> bool:
    return bool(counts) and max(counts.values()) > counts.total() / 2


def _repeated_rows(paths: Sequence[str], data: Dataset) -> dict[str, int]:
    rows = Counter(zip(paths, data.split.tolist(), data.g.tolist(), strict=True))
    return {path: n for (path, _, _), n in rows.items() if n > 1}


def _rare_values(data: Dataset) -> tuple[RareValue, ...]:
    columns = (("class", data.groups.classes, data.y), ("attribute value", data.groups.attributes, data.a))
    return tuple(
        RareValue(kind=kind, value=value, split=split, count=int(n))
        for kind, values, codes in columns
        for split in data.splits
        for value, n in zip(values, np.bincount(codes[data.split == split], minlength=len(values)), strict=True)
        if n <= 1
    )
