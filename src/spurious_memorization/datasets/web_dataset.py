"""WebDataset: shards that are tar files. Members whose names are equal up to the first dot are one sample."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from torchvision.datasets.folder import IMG_EXTENSIONS

from ..console import log_once
from ..errors import UserError, first_line
from ..input_files import regular_file, shown
from .image_files import Stream, file_version
from .settings import FOUND_COLUMNS, Columns
from .tables import AnnotatedTable, path_within, read_description, split_of_name, with_columns
from .text_tables import cell_text

LAYOUT = "webdataset"
LABELS = ("cls", "label", "y")
"""Keys of the label, the first one that there is."""
TEXTS = ("cls", "txt", "text")
MAX_TEXT = 1 << 20
_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)", re.DOTALL)
_META = re.compile(r"__.*__", re.DOTALL)


class Member(NamedTuple):
    """Where the bytes of a file are: in which shard, from which byte, and how many."""

    shard: str
    start: int
    size: int


@dataclass(frozen=True, eq=False)
class Members:
    """Image files within shards. The name of one is that of its shard, then its own name within the shard."""

    root: Path
    members: dict[str, Member]

    @property
    def identity(self) -> str:
        return str(self.root.resolve())

    def open(self, name: str) -> Stream:
        return io.BytesIO(_bytes(self.root, self.members[name]))

    def size(self, name: str) -> int | None:
        return self.members[name].size

    def version(self, name: str) -> str:
        member = self.members[name]
        return f"{self._versions[member.shard]} {member.start}"

    def is_regular(self, name: str) -> bool:
        return True

    def place(self, name: str) -> str:
        return shown(self.root / name)

    @cached_property
    def _versions(self) -> dict[str, str]:
        return {shard: file_version(self.root / shard) for shard in {member.shard for member in self.members.values()}}


def read_table(folder: Path, columns: Columns = FOUND_COLUMNS) -> AnnotatedTable | None:
    """Read the tar files in a folder and in the folders below it.

    Members of a shard that follow each other and whose names are equal up to the first dot of the file name are one
    sample; the rest of the name is the key, as in https://github.com/webdataset/webdataset. The image is the key that
    ends like an image file. The label is `cls`, or the entry `label` of `json`. Other entries of `json` are attribute
    columns. The split is a word of the shard's path, such as `train-000.tar` or `train/000.tar`.

    Returns:
        The table. None if there are no tar files with images.

    Raises:
        UserError: a shard is damaged or compressed, a sample has several images or none is chosen, there is no label,
            or some shards have a split in their name and others have none.
    """
    members: dict[str, Member] = {}
    rows: list[dict[str, str]] = []
    shards = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.tar"))
    for shard in shards:
        for name, parts in _samples(folder, shard):
            if key := _image_key(parts, columns.image_column, f"{shown(folder / shard)}: sample {shown(name)!r}"):
                path = path_within(folder, f"{shard}/{name}.{key}")
                members[path] = parts[key]
                rows.append({"path": path, "shard": shard, **_texts(folder, name, parts)})
    if not rows:
        return None
    if len(members) < len(rows):
        raise UserError(f"{shown(folder)}: a shard has the same sample twice: write the shards again")
    frame = pd.DataFrame(rows, dtype=object).fillna("")
    splits = {shard: _split_of(shard) for shard in frame["shard"].unique()}
    if any(splits.values()):
        if without := [shard for shard, split in splits.items() if split is None]:
            raise UserError(f"{shown(folder)}: shard {shown(without[0])} has no split in its name: rename it")
        frame["split"] = frame["shard"].map(splits)
    table = AnnotatedTable(LAYOUT, frame.drop(columns="shard"), read_description(folder), Members(folder, members))
    label = columns.label_column or next((name for name in LABELS if name in frame), None)
    if label is None:
        found = ", ".join(name for name in frame if name not in ("path", "shard", "split")) or "nothing else"
        raise UserError(
            f"{shown(folder)}: the samples have no cls (beside images they have {found}): "
            "name the label by label_column (--label-column)"
        )
    log_once(f"{shown(folder)}: {len(rows)} samples in {len(shards)} WebDataset shards; the label is {label!r}")
    return with_columns(table, Columns(label_column=label, split_column=columns.split_column))


def _samples(folder: Path, shard: str) -> Iterator[tuple[str, dict[str, Member]]]:
    """The samples of a shard in order: name, and {key: where its bytes are}."""
    file = regular_file(folder / shard)
    try:
        with tarfile.open(file, "r:") as archive:
            for name, found in groupby(_members(archive, shard), key=lambda member: member[0]):
                parts = [(key, member) for _, key, member in found]
                if len(dict(parts)) < len(parts):
                    raise UserError(f"{shown(file)}: sample {shown(name)!r} has a key twice: write the shard again")
                yield name, dict(parts)
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise UserError(
            f"{shown(file)} can't be read as a tar file ({first_line(error)}): a compressed one must be unpacked first"
        ) from error


def _members(archive: tarfile.TarFile, shard: str) -> Iterator[tuple[str, str, Member]]:
    """Sample, key and place of each regular file."""
    for entry in archive:
        match = _NAME.fullmatch(entry.name)
        if entry.isreg() and not entry.issparse() and match and not _META.fullmatch(entry.name):
            yield match[1], match[2].lower(), Member(shard, entry.offset_data, entry.size)


def _image_key(parts: Iterable[str], wanted: str | None, where: str) -> str | None:
    """The key of the image; None if the sample has none."""
    images = [key for key in parts if f".{key.rpartition('.')[2]}" in IMG_EXTENSIONS]
    if wanted is not None:
        images = [key for key in images if key == wanted]
    if len(images) > 1:
        raise UserError(f"{where} has several images ({', '.join(images)}): name one by image_column (--image-column)")
    return images[0] if images else None


def _texts(folder: Path, name: str, parts: dict[str, Member]) -> dict[str, str]:
    """The values of a sample by their names: texts, and the entries of json that are single values."""
    found = {}
    for key in ("json", *TEXTS):
        if key not in parts:
            continue
        where = f"{shown(folder / parts[key].shard)}: {shown(name)}.{key}"
        if parts[key].size > MAX_TEXT:
            raise UserError(f"{where} has {parts[key].size:,} bytes, more than the {MAX_TEXT:,} allowed: shorten it")
        try:
            text = _bytes(folder, parts[key]).decode()
            entries = json.loads(text) if key == "json" else {key: text}
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where} is not {'JSON' if key == 'json' else 'text in UTF-8'}: correct it") from error
        if not isinstance(entries, dict):
            raise UserError(f"{where} holds no names with values: write it as {{name: value}}")
        found.update(
            {
                shown(entry).strip(): cell_text(value)
                for entry, value in entries.items()
                if entry not in ("path", "shard") and (value is None or isinstance(value, str | int | float))
            }
        )
    return found


def _split_of(shard: str) -> str | None:
    """The split that a word of the shard's path means; that of the last such word."""
    words = re.split(r"[^A-Za-z]+", shard)
    return next((split for word in reversed(words) if (split := split_of_name(word))), None)


def _bytes(folder: Path, member: Member) -> bytes:
    with (folder / member.shard).open("rb") as shard:
        shard.seek(member.start)
        return shard.read(member.size)
