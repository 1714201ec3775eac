"""Read a data folder in any known layout into a `Dataset`."""

from __future__ import annotations

import posixpath
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..datasets import celeba, waterbirds
from ..errors import UserError
from .groups import Groups
from .samples import Dataset
from .settings import DataSettings
from .sources import Images
from .tables import AnnotatedTable, leads_outside, read_own_table, split_names
from .transforms import ImageTransform

SPLIT_SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}
RESERVED_COLUMNS = ("path", "y", "split")


def read_data(
    folder: str | Path,
    *,
    attribute: str | None = None,
    image_size: int | None = None,
    minority: tuple[str, ...] = (),
    split_seed: int = 0,
) -> Dataset:
    """Read a folder of images with labels and spurious attributes.

    Recognized are Waterbirds' and CelebA's own layouts and the own-data layout: `metadata.csv` (or `.parquet`) with
    the columns `path`, `y`, an attribute column and optionally `split`, and an optional `dataset.yaml`.

    Arguments:
        folder: the data folder.
        attribute: attribute column; "a", or the only one there is, if not given.
        image_size: side of the square input in pixels, in place of what dataset.yaml or the layout fixes.
        minority: names of the minority groups, in place of those with a training lift under 0.5.
        split_seed: seed of the stratified split made where the table has none.

    Raises:
        UserError: no known layout, a missing column, an unknown split, a path that leads outside the folder, a
            missing label or attribute, fewer than two classes.

    Example:
        ```python
        data = sm.read_data("my_images/")
        data.groups.names, data.train_counts
        ```
    """
    root = Path(folder)
    return assemble(root, read_table(root), attribute, image_size, minority, split_seed)


def read_with_settings(folder: Path, settings: DataSettings) -> Dataset:
    """Read a data folder with a command's settings. Errors are those of `read_data`."""
    return read_data(folder, **{name: getattr(settings, name) for name in DataSettings.model_fields})


def assemble(
    root: Path,
    table: AnnotatedTable,
    attribute: str | None,
    image_size: int | None,
    minority: tuple[str, ...],
    split_seed: int,
) -> Dataset:
    """The data set of a table that was read from `root`; the arguments and errors are those of `read_data`."""
    column = attribute_column(table, attribute)
    frame, description = table.frame, table.description
    y, classes = _encode(frame["y"], "y", description.classes)
    a, attributes = _encode(frame[column], column, description.attributes.get(column))
    if len(np.unique(y)) < 2:
        raise UserError(f"{root}: all samples have label {classes[y[0]]!r}: at least two classes are needed")
    groups = Groups(classes, attributes, description.group_name)
    _check_gaps(frame["path"], "path")
    paths = tuple(_confined(str(p)) for p in frame["path"])
    if "split" in frame:
        split, seed = split_names(frame["split"], root).to_numpy(dtype=str), None
    else:
        split, seed = stratified_split(groups.of(y, a), split_seed), split_seed
    transform = description.transform()
    if image_size is not None:
        transform = _resized(transform, image_size)
    name = description.name or root.resolve().name
    data = Dataset(name, groups, y, a, split, Images(root, paths, transform), layout=table.layout, split_seed=seed)
    if minority or attribute is None:
        return data.with_minority(minority or description.minority)
    return data.with_minority([name for name in description.minority if name in groups.names])


def read_table(folder: Path) -> AnnotatedTable:
    """Recognize the layout of a data folder.

    Raises:
        UserError: the folder is missing, empty, or in no known layout.
    """
    if not folder.is_dir():
        raise UserError(f"data folder {folder} does not exist: `spurmem data make` or `data prepare` makes one")
    table = waterbirds.read_table(folder) or celeba.read_table(folder) or read_own_table(folder)
    if table is None:
        raise UserError(
            f"{folder} holds no known layout: it needs metadata.csv with the columns path, y, a and optionally split, "
            "or Waterbirds' or CelebA's own files"
        )
    if table.frame.empty:
        raise UserError(f"{folder}: the table has no rows")
    return table


def stratified_split(g: NDArray[np.int64], seed: int) -> NDArray[np.str_]:
    """Split 70/10/20 into train, val and test within each group; `g` has shape [samples], so has the result."""
    rng = np.random.default_rng(seed)
    split = np.full(len(g), "train")
    for group in np.unique(g):
        members = rng.permutation(np.flatnonzero(g == group))
        n_val = round(len(members) * SPLIT_SHARES["val"])
        n_test = round(len(members) * SPLIT_SHARES["test"])
        split = split.astype("<U5")
        split[members[:n_val]] = "val"
        split[members[n_val : n_val + n_test]] = "test"
    return split


def attribute_column(table: AnnotatedTable, wanted: str | None) -> str:
    """The attribute column that is meant: the wanted one, "a", or the only one there is.

    Raises:
        UserError: there is no such column, or none, or several and none is chosen.
    """
    columns = [str(c) for c in table.frame.columns if c not in RESERVED_COLUMNS]
    if wanted is not None:
        if wanted not in columns:
            raise UserError(f"no attribute column {wanted!r}: the table has {', '.join(columns) or 'none'}")
        return wanted
    if "a" in columns:
        return "a"
    if len(columns) == 1:
        return columns[0]
    if not columns:
        raise UserError("missing column 'a': the table needs an attribute column beside path and y")
    raise UserError(f"several attribute columns ({', '.join(columns)}): choose one with attribute (--attribute)")


def _encode(column: pd.Series, name: str, fixed: tuple[str, ...] | None) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Names or numbers to indices: class index = y for 0..k-1, sorted order otherwise, or the order of `fixed`."""
    _check_gaps(column, name)
    numeric = pd.api.types.is_numeric_dtype(column)
    if numeric:
        numbers = column.to_numpy(dtype=float)
        if (odd := ~np.isfinite(numbers) | (np.floor(numbers) != numbers)).any():
            raise UserError(f"column {name!r} holds {numbers[odd][0]}: use whole numbers or names")
    if fixed is not None:
        if numeric:
            codes = column.to_numpy().astype(np.int64)
            bad = (codes < 0) | (codes >= len(fixed))
        else:
            codes = pd.Index(fixed).get_indexer(pd.Index(column.astype(str))).astype(np.int64)
            bad = codes < 0
        if bad.any():
            names = f"{', '.join(fixed)}, or 0..{len(fixed) - 1}"
            raise UserError(f"column {name!r} holds {column[bad].iloc[0]}, which is none of {names}: correct it")
        return codes, fixed
    values = column.astype(np.int64) if numeric else column.astype(str)
    codes, uniques = pd.factorize(values, sort=True)
    return codes.astype(np.int64), tuple(str(u) for u in uniques)


def _check_gaps(column: pd.Series, name: str) -> None:
    if column.isna().any():
        raise UserError(f"column {name!r} has no value in row {int(column.isna().to_numpy().argmax())}: fill it in")


def _confined(path: str) -> str:
    if leads_outside(path):
        raise UserError(f"path {path!r} leads outside the data folder: use paths relative to it, without ..")
    return posixpath.normpath(path.replace("\\", "/"))


def _resized(transform: ImageTransform | None, image_size: int) -> ImageTransform:
    if transform is None:
        return ImageTransform(image_size=image_size, resize=image_size)
    ratio = transform.resize / transform.image_size
    return transform.model_copy(update={"image_size": image_size, "resize": round(image_size * ratio)})
