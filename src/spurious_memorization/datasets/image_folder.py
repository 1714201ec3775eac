"""A folder of images for each class, as torchvision's `ImageFolder` reads it, with attributes from further folders."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import pandas as pd
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS

from ..console import log_once
from ..errors import UserError
from ..input_files import shown
from .samples import SPLITS
from .settings import Columns
from .tables import (
    AnnotatedTable,
    description_of,
    own_table_file,
    path_within,
    read_description,
    split_of_name,
    with_columns,
)
from .text_tables import read_text_table

LAYOUT = "image-folder"
FILE_COLUMNS = ("path", "file_name")
"""Columns of a table beside the folders that name the image files. The second is that of Hugging Face's `datasets`."""


def read_table(folder: Path) -> AnnotatedTable | None:
    """Read `CLASS/image` or `SPLIT/CLASS/image`, with any number of folders below the class.

    The first folders are splits if all of them have names of splits, one of them means train, each holds folders of
    images and no images, and no split has a class that train lacks. Folders below the class are attributes if all
    images lie equally deep and, at each level, a name occurs in more than one class. A line says what was decided.

    Classes and the order of the images are those of `torchvision.datasets.ImageFolder`, split by split.

    Returns:
        The table. None if no two folders hold images.
    """
    splits = _images_of_splits(folder)
    found = splits or {"": class_images(folder)}
    classes = list(dict.fromkeys(name for images in found.values() for name, _ in images))
    if len(classes) < 2:
        return None
    rows = [(prefix, name, path) for prefix, images in found.items() for name, path in images]
    frame = pd.DataFrame({"path": [str(PurePosixPath(prefix, path)) for prefix, _, path in rows]}, dtype=object)
    frame["y"] = [name for _, name, _ in rows]
    levels = _attribute_levels([name for _, name, _ in rows], [path for _, _, path in rows])
    for level, column in enumerate(levels):
        frame["a" if len(levels) == 1 else f"folder_{level + 1}"] = column
    if splits:
        frame["split"] = [split_of_name(prefix) for prefix, _, _ in rows]
    log_once(f"{shown(folder)}: {_decision(list(splits), classes, levels)}")
    default = description_of(shown(folder), {"classes": tuple(classes)})
    return AnnotatedTable(LAYOUT, frame, read_description(folder, default))


def read_with_table(folder: Path, columns: Columns) -> AnnotatedTable | None:
    """Read a folder per class whose `metadata.csv` (or `.parquet`) has no label: the attributes are its columns.

    The table names the images in its column `path` or `file_name`, relative to the folder. A column `split` is used if
    the folders are no splits.

    Returns:
        The table. None if the table has a label, or if no two folders hold images.

    Raises:
        UserError: an image has no row or several, or a row has no image.
    """
    file = own_table_file(folder)
    if file is None or columns.label_column is not None:
        return None
    beside = with_columns(AnnotatedTable(LAYOUT, read_text_table(file), read_description(folder)), columns).frame
    named = next((name for name in FILE_COLUMNS if name in beside), None)
    if named is None or "y" in beside or (table := read_table(folder)) is None:
        return None
    beside.index = pd.Index([path_within(folder, path) for path in beside[named]])
    if not beside.index.is_unique:
        raise UserError(f"{file} has the image {beside.index[beside.index.duplicated()][0]!r} twice: leave one row out")
    if len(other := table.frame["path"][~table.frame["path"].isin(beside.index)]):
        raise UserError(f"{file} has no row for {other.iloc[0]!r} ({len(other)} images have none): add it")
    if len(other := beside.index[~beside.index.isin(table.frame["path"])]):
        raise UserError(f"{file} names {other[0]!r}, but there is no such image in a folder of a class: remove the row")
    frame = table.frame
    for name in beside.columns.drop(named):
        if name not in frame or name == "a":
            frame[name] = beside.loc[frame["path"], name].to_numpy()
    log_once(f"{file}: it has no label, so the label is the folder and further columns are attributes")
    return table


def _images_of_splits(folder: Path) -> dict[str, list[tuple[str, str]]]:
    """{folder of a split: class and path of its images}; empty if the first folders are no splits."""
    below = sorted(place.name for place in folder.iterdir() if place.is_dir() and not place.name.startswith("."))
    splits = [split_of_name(name) for name in below]
    if not below or None in splits or "train" not in splits:
        return {}
    if any(_is_image(file) for name in below for file in (folder / name).iterdir()):
        return {}
    found = {name: class_images(folder / name) for split in SPLITS for name in below if split_of_name(name) == split}
    of_train = {label for name, images in found.items() if split_of_name(name) == "train" for label, _ in images}
    is_known = all(images and {label for label, _ in images} <= of_train for images in found.values())
    return found if is_known and len(of_train) > 1 else {}


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in IMG_EXTENSIONS


def class_images(folder: Path) -> list[tuple[str, str]]:
    """Class and path, relative to `folder`, of each image, as `ImageFolder` lists them."""
    try:
        found = ImageFolder(str(folder), allow_empty=True)
    except FileNotFoundError:
        return []
    return [(found.classes[label], Path(path).relative_to(folder).as_posix()) for path, label in found.samples]


def _attribute_levels(classes: Sequence[str], paths: Sequence[str]) -> list[list[str]]:
    """For each level of folders below the class, the folder of each image. Empty if they are no attribute."""
    below = [PurePosixPath(path).parts[1:-1] for path in paths]
    if len({len(parts) for parts in below}) != 1:
        return []
    levels = [list(level) for level in zip(*below, strict=True)]
    return levels if all(_is_shared(level, classes) for level in levels) else []


def _is_shared(values: Sequence[str], classes: Sequence[str]) -> bool:
    """Whether a value occurs in more than one class."""
    classes_of = defaultdict(set)
    for value, name in zip(values, classes, strict=True):
        classes_of[value].add(name)
    return any(len(found) > 1 for found in classes_of.values())


def _decision(splits: Sequence[str], classes: Sequence[str], levels: Sequence[Sequence[str]]) -> str:
    first = f"the folders {', '.join(splits)} are splits, and those below" if splits else "the folders"
    label = f"{first} are the {len(classes)} classes"
    if not levels:
        return f"{label}; no folders below them are attributes"
    values = "; ".join(_few(sorted(set(level))) for level in levels)
    return f"{label}; the folders below the classes are attributes ({values})"


def _few(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(map(shown, names[:most])) + (" ..." if len(names) > most else "")
