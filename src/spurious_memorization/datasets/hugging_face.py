"""Data sets of Hugging Face's `datasets`: saved on disk, as Parquet files, on the hub, or live."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow.compute as pc

from ..console import log_once
from ..errors import UserError, first_line
from ..extras import imported
from ..input_files import shown
from .image_files import Folder, Stream, file_version
from .settings import FOUND_COLUMNS, Columns
from .tables import AnnotatedTable, description_of, read_description, split_of_name
from .text_tables import cell_text

if TYPE_CHECKING:
    import datasets

LAYOUT = "hugging-face"
HUB = "hf:"
SAVED = ("dataset_dict.json", "state.json")
"""Files that `save_to_disk` writes: one for a `DatasetDict`, one for a `Dataset`."""
LABELS = ("label", "labels", "y")
"""Names of the label, if several columns have classes."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Images in the rows of data sets. The name of one is SPLIT/ROW.

    Arguments:
        root: where the data are, for messages.
        splits: {split: rows with the column of images}, not decoded.
        column: of the images.
        is_within: whether an image that is a file beside the rows must be below `root`.
    """

    root: Path
    splits: Mapping[str, datasets.Dataset]
    column: str
    is_within: bool

    @property
    def identity(self) -> str:
        return f"{self.root} {self._versions}"

    def open(self, name: str) -> Stream:
        stored = self._stored(name)
        if stored["bytes"] is not None:
            return io.BytesIO(stored["bytes"])
        if stored["path"] is None:
            raise UserError("the row has no image")
        if self.is_within and not (self.root / stored["path"]).resolve().is_relative_to(self.root.resolve()):
            raise UserError("its file is outside the data folder: save the data set with its images")
        return Folder(self.root).open(stored["path"])

    def size(self, name: str) -> int | None:
        split, row = _split_and_row(name)
        n_bytes: int | None = self._sizes[split][row]
        if n_bytes is not None:
            return n_bytes
        try:
            with self.open(name) as stream:
                return int(stream.seek(0, os.SEEK_END))
        except (OSError, UserError):
            return None

    def version(self, name: str) -> str:
        split, row = _split_and_row(name)
        return f"{self._versions[split]} {row}"

    def is_regular(self, name: str) -> bool:
        return True

    def place(self, name: str) -> str:
        return f"{shown(self.root)}: {name}"

    def _stored(self, name: str) -> dict[str, Any]:
        split, row = _split_and_row(name)
        stored: dict[str, Any] | None = self.splits[split][row][self.column]
        return stored or {"bytes": None, "path": None}

    @cached_property
    def _sizes(self) -> dict[str, list[int | None]]:
        """The number of bytes of each image, from the offsets of the Arrow table: no image is read."""

        def of_rows(rows: datasets.Dataset) -> list[int | None]:
            stored = rows.with_format("arrow")[:][self.column]
            sizes: list[int | None] = pc.binary_length(pc.struct_field(stored, "bytes")).to_pylist()
            return sizes

        return {split: of_rows(rows) for split, rows in self.splits.items()}

    @cached_property
    def _versions(self) -> dict[str, str]:
        return {
            split: " ".join([rows._fingerprint, *(file_version(Path(file["filename"])) for file in rows.cache_files)])
            for split, rows in self.splits.items()
        }


def is_on_hub(folder: Path) -> bool:
    """Whether the name of a data folder is that of a data set on the hub: `hf:owner/name`."""
    return str(folder).startswith(HUB)


def read_table(folder: Path, columns: Columns = FOUND_COLUMNS) -> AnnotatedTable | None:
    """Read a folder that `save_to_disk` has written, or a folder of Parquet files.

    The splits of Parquet files are those that `datasets.load_dataset` finds in the names of files and folders.

    Returns:
        The table. None if the folder has no such files.

    Raises:
        UserError: `datasets` is not installed, the files can't be read, or a column is missing or ambiguous.
    """
    if any((folder / name).is_file() for name in SAVED):
        found = _called(folder, lambda library: library.load_from_disk(str(folder.resolve())))
    elif next(folder.rglob("*.parquet"), None) is not None:
        log_once(f"{shown(folder)}: Parquet files are read by Hugging Face's datasets, which keeps a copy in its cache")
        found = _called(folder, lambda library: library.load_dataset(str(folder.resolve())))
    else:
        return None
    return table_of(folder, found, columns, is_within=True)


def read_hub(name: Path, columns: Columns = FOUND_COLUMNS) -> AnnotatedTable:
    """Read a data set from the Hugging Face hub, or from its copy in the cache of `datasets`.

    Arguments:
        name: `hf:owner/name`, or `hf:owner/name/configuration`.
        columns: as for `read_table`.

    Raises:
        UserError: as for `read_table`; there is no such data set, or no network.
    """
    owner, _, rest = str(name).removeprefix(HUB).partition("/")
    repository, _, configuration = rest.partition("/")
    if not owner or not repository:
        raise UserError(f"{name} is not the name of a data set on the hub: write it as hf:owner/name")
    found = _called(name, lambda library: library.load_dataset(f"{owner}/{repository}", name=configuration or None))
    return table_of(name, found, columns, is_within=False)


def read_live(
    rows: datasets.Dataset | datasets.DatasetDict, columns: Columns = FOUND_COLUMNS
) -> tuple[Path, AnnotatedTable]:
    """The name and the table of a data set that is already loaded.

    Raises:
        UserError: it is no `Dataset` or `DatasetDict`; otherwise as for `read_table`.
    """
    library = _library()
    if not isinstance(rows, library.Dataset | library.DatasetDict):
        raise UserError(f"a {type(rows).__name__} is no Dataset or DatasetDict of datasets: load one without streaming")
    first = next(iter(rows.values())) if isinstance(rows, Mapping) else rows
    name = Path(first.info.dataset_name or "dataset")
    return name, table_of(name, rows, columns, is_within=False)


def table_of(
    root: Path, found: datasets.Dataset | datasets.DatasetDict, columns: Columns, *, is_within: bool
) -> AnnotatedTable:
    """The table of a loaded data set. A line says what was decided about its columns and splits.

    Arguments:
        root: where the data set is, or its name.
        found: the rows, or the rows of each split.
        columns: those that a user has named.
        is_within: whether `root` is a folder: it may have a dataset.yaml, and images that are files must be within it.

    Raises:
        UserError: there is no column of images or labels, or there are several and none is named.
    """
    splits = _splits(root, found, columns)
    features = next(iter(splits.values())).features
    image = _image(root, features, columns)
    label = _label(root, features, columns)
    reserved = (image, label, columns.split_column, "path", "y", "split")
    others = [name for name, feature in features.items() if _is_single(feature) and name not in reserved]
    split = columns.split_column or ("split" if len(splits) == 1 and _is_single(features.get("split")) else None)
    source = {"y": label, **{name: name for name in others}, **({"split": split} if split else {})}
    frame = pd.concat([_cells(root, part, rows, source) for part, rows in splits.items()], ignore_index=True)
    if split is None and len(splits) > 1:
        frame["split"] = [split_of_name(part) for part, rows in splits.items() for _ in range(len(rows))]
    classes = {name: names for name in (label, *others) if (names := _class_names(features[name]))}
    _say(root, splits, image, label, others, split)
    entries: dict[str, Any] = {"attributes": {name: names for name, names in classes.items() if name != label}}
    if label in classes:
        entries["classes"] = classes[label]
    default = description_of(shown(root), entries)
    of_classes = list(default.attributes)
    return AnnotatedTable(
        LAYOUT,
        frame,
        read_description(root, default) if is_within else default,
        Rows(root, {part: _undecoded(rows, image) for part, rows in splits.items()}, image, is_within),
        of_classes[0] if len(of_classes) == 1 and "a" not in others else None,
    )


def _library() -> Any:
    return imported("datasets", "datasets")


def _called(place: Path, load: Callable[[Any], datasets.Dataset | datasets.DatasetDict]) -> Any:
    library = _library()
    library.disable_progress_bars()
    try:
        return load(library)
    except Exception as error:  # the library raises errors of many types for damaged files and for a missing network
        raise UserError(f"{shown(place)} can't be read by Hugging Face's datasets: {first_line(error)}") from error


def _splits(
    root: Path, found: datasets.Dataset | datasets.DatasetDict, columns: Columns
) -> dict[str, datasets.Dataset]:
    """The rows of each split that is used."""
    if not isinstance(found, Mapping):
        return {str(found.split or "rows"): found}
    used = {
        name: rows for name, rows in found.items() if split_of_name(name) or len(found) == 1 or columns.split_column
    }
    if not used:
        raise UserError(
            f"{shown(root)}: none of the splits {', '.join(map(shown, found))} is named train, validation or test: "
            "rename them"
        )
    if left_out := [shown(name) for name in found if name not in used]:
        log_once(f"{shown(root)}: left out, since they are not named train, validation or test: {', '.join(left_out)}")
    return used


def _image(root: Path, features: Mapping[str, Any], columns: Columns) -> str:
    images = [name for name, feature in features.items() if _is_image(feature)]
    if columns.image_column is not None:
        if columns.image_column not in images:
            raise UserError(
                f"{shown(root)} has no column {shown(columns.image_column)!r} of images: {_has(features, images)}"
            )
        return columns.image_column
    if len(images) != 1:
        raise UserError(
            f"{shown(root)}: {_has(features, images)}: name the column of images by image_column (--image-column)"
        )
    return images[0]


def _has(features: Mapping[str, Any], images: Sequence[str]) -> str:
    if images:
        return f"the columns {', '.join(map(shown, images))} are images"
    return f"none of its columns ({', '.join(map(shown, features))}) is of images"


def _label(root: Path, features: Mapping[str, Any], columns: Columns) -> str:
    single = [name for name, feature in features.items() if _is_single(feature)]
    if columns.label_column is not None:
        if columns.label_column not in single:
            raise UserError(
                f"{shown(root)} has no label column {columns.label_column!r}: choose among {', '.join(single)}"
            )
        return columns.label_column
    classes = [name for name in single if _class_names(features[name])]
    named = [name for name in LABELS if name in (classes or single)]
    candidates = named[:1] or classes or single
    if len(candidates) != 1:
        raise UserError(
            f"{shown(root)}: {'several columns' if candidates else 'no column'} may be the label "
            f"({', '.join(map(shown, candidates))}): name it by label_column (--label-column)"
        )
    return candidates[0]


def _is_image(feature: Any) -> bool:
    """Whether a feature holds images: it says so, or it holds bytes, alone or beside a path."""
    library = _library()
    if isinstance(feature, library.Image):
        return True
    stored = feature["bytes"] if isinstance(feature, dict) and feature.keys() <= {"bytes", "path"} else feature
    return isinstance(stored, library.Value) and stored.dtype in ("binary", "large_binary")


def _is_single(feature: Any) -> bool:
    """Whether a feature holds a name, a number or a truth value."""
    library = _library()
    kinds = ("string", "large_string", "bool", "int", "uint", "float")
    return isinstance(feature, library.ClassLabel) or (
        isinstance(feature, library.Value) and feature.dtype.rstrip("0123456789") in kinds
    )


def _class_names(feature: Any) -> tuple[str, ...]:
    return tuple(feature.names) if isinstance(feature, _library().ClassLabel) else ()


def _cells(root: Path, split: str, rows: datasets.Dataset, source: Mapping[str, str]) -> pd.DataFrame:
    """Path and cells of the rows as text. `source` is {column of the table: column of the rows}."""
    if lacking := next((name for name in source.values() if name not in rows.features), None):
        raise UserError(f"{shown(root)}: split {shown(split)} has no column {shown(lacking)!r}, but another has it")
    stored = rows.select_columns(sorted(set(source.values()))).with_format("arrow")[:]
    cells: dict[str, list[str]] = {"path": [f"{split}/{row}" for row in range(len(rows))]}
    for column, name in source.items():
        names = _class_names(rows.features[name])
        values = stored[name].to_pylist()
        cells[column] = [_class_name(names, code) for code in values] if names else [cell_text(v) for v in values]
    return pd.DataFrame(cells, dtype=object)


def _class_name(names: Sequence[str], code: int | None) -> str:
    """The name of a class; empty for the codes that mean none."""
    return names[code] if code is not None and code >= 0 else ""


def _undecoded(rows: datasets.Dataset, image: str) -> datasets.Dataset:
    images = rows.with_format(None).select_columns([image])
    if images._indices is not None:
        images = images.flatten_indices()
    return images.cast_column(image, _library().Image(decode=False))


def _say(
    root: Path,
    splits: Mapping[str, datasets.Dataset],
    image: str,
    label: str,
    others: Sequence[str],
    split: str | None,
) -> None:
    parts = [f"images are {shown(image)!r}", f"the label is {shown(label)!r}"]
    parts.append(
        f"columns for attributes are {', '.join(map(shown, others))}" if others else "no column is an attribute"
    )
    if split is not None:
        parts.append(f"the split is {shown(split)!r}")
    elif len(splits) > 1:
        parts.append(f"the splits are {', '.join(splits)}")
    else:
        parts.append("there is one part, so it is split")
    log_once(f"{shown(root)}: {'; '.join(parts)}")


def _split_and_row(name: str) -> tuple[str, int]:
    split, _, row = name.rpartition("/")
    return split, int(row)
