"""The layout for your own data: a table next to the images, and an optional dataset.yaml with names and image size."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ..atomic import write_text
from ..errors import UserError, first_line
from ..yaml_files import read_yaml
from .samples import SPLITS
from .transforms import IMAGENET_MEAN, IMAGENET_STD, ImageTransform

TABLE_FILES = ("metadata.csv", "metadata.parquet")
DESCRIPTION_FILE = "dataset.yaml"
_OUTSIDE = re.compile(r"[/\\]|[A-Za-z]:|(.*[/\\])?\.\.([/\\]|$)", re.DOTALL)


class DatasetDescription(BaseModel):
    """The entries of `dataset.yaml`, all of them optional.

    `attributes` lists the names of the values of each attribute column, in order. `group_name` is a template with
    `{label}` and `{attribute}`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str | None = None
    image_size: int | None = Field(None, ge=1)
    resize: int | None = Field(None, ge=1)
    keep_aspect: bool = False
    interpolation: Literal["nearest", "nearest-exact", "bilinear", "bicubic", "box", "hamming", "lanczos"] = "bilinear"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    classes: tuple[str, ...] | None = None
    attributes: dict[str, tuple[str, ...]] = {}
    minority: tuple[str, ...] = ()
    group_name: str = "{label} with {attribute}"

    @field_validator("group_name")
    @classmethod
    def _only_known_parts(cls, template: str) -> str:
        try:
            template.format(label="", attribute="")
        except (LookupError, ValueError, AttributeError) as error:
            raise ValueError("use {label} and {attribute}, and no other braces") from error
        return template

    def transform(self) -> ImageTransform | None:
        """The transform that these entries define. None if no image size is given."""
        if self.image_size is None:
            return None
        return ImageTransform(
            image_size=self.image_size,
            resize=self.resize or self.image_size,
            keep_aspect=self.keep_aspect,
            interpolation=self.interpolation,
            mean=self.mean,
            std=self.std,
        )

    def stated_transform(self, image_size: int | None) -> dict[str, Any]:
        """The entries of the transform that are written, with this image size if there is one."""
        names = ImageTransform.model_fields.keys() & self.model_fields_set
        size = {} if image_size is None else {"image_size": image_size}
        return {**{name: getattr(self, name) for name in sorted(names)}, **size}


@dataclass(frozen=True, eq=False)
class AnnotatedTable:
    """The table and the description of a data set as they are in its folder, before names become indices.

    Arguments:
        layout: name of the layout ("table", "waterbirds", "celeba").
        frame: one row per sample, with the columns `path` (relative to the data folder), `y`, any number of attribute
            columns, and optionally `split` (names or codes, as for `split_names`).
        description: names, transform and minority groups.
    """

    layout: str
    frame: pd.DataFrame
    description: DatasetDescription


def read_own_table(folder: Path) -> AnnotatedTable | None:
    """Read `metadata.csv` or `metadata.parquet` with the columns path, y, an attribute and optionally split.

    Returns:
        The table. None if the folder has no such file.

    Raises:
        UserError: the table can't be read, or a column is missing.
    """
    file = next((folder / name for name in TABLE_FILES if (folder / name).is_file()), None)
    if file is None:
        return None
    frame = read_frame(file)
    for column in ("path", "y"):
        if column not in frame:
            raise UserError(
                f"{file} has no column {column!r} (it has {', '.join(map(str, frame.columns))}): "
                "it needs path, y, an attribute column such as a, and optionally split"
            )
    return AnnotatedTable("table", frame, read_description(folder))


def read_frame(file: Path, **csv: Any) -> pd.DataFrame:
    """Read a Parquet file, or a CSV file. For CSV, `csv` are further arguments of `pandas.read_csv`.

    Raises:
        UserError: the file can't be read.
    """
    try:
        return pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file, **csv)
    except (OSError, ValueError) as error:
        raise UserError(f"{file} can't be read as a table: {first_line(error)}") from error


def read_description(folder: Path, default: DatasetDescription | None = None) -> DatasetDescription:
    """Read `dataset.yaml`. Its entries replace those of `default`.

    Raises:
        UserError: the file is not valid YAML, an entry is unknown, or a value has the wrong type.
    """
    file = folder / DESCRIPTION_FILE
    default = default or DatasetDescription()
    if not file.exists():
        return default
    entries = read_yaml(file, "image_size: 64")
    try:
        return DatasetDescription(**{**default.model_dump(exclude_unset=True), **entries})
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def write_own_table(folder: Path, frame: pd.DataFrame, description: DatasetDescription) -> None:
    """Write `dataset.yaml`, then `metadata.csv`. The table comes last, so a folder with a table is complete."""
    entries = description.model_dump(mode="json", exclude_unset=True)
    write_text(folder / DESCRIPTION_FILE, yaml.safe_dump(entries, sort_keys=False, allow_unicode=True))
    write_text(folder / TABLE_FILES[0], frame.to_csv(index=False))


def table_columns(folder: Path) -> tuple[str, ...]:
    """The columns of the folder's `metadata.csv`. The result is empty if there is no such file.

    Raises:
        UserError: the file can't be read.
    """
    file = folder / TABLE_FILES[0]
    return tuple(map(str, read_frame(file, nrows=0).columns)) if file.is_file() else ()


def leads_outside(path: str) -> bool:
    """Whether a path leads outside its folder: it is absolute, has a drive letter, or contains `..`.

    Only the text of the path is tested, not the files on disk. A symbolic link in a data folder is allowed, because
    its owner made it.
    """
    return _OUTSIDE.match(path) is not None


def split_names(column: pd.Series, file: Path) -> pd.Series:
    """The splits as "train", "val" and "test", from these names or from the codes 0, 1 and 2.

    Raises:
        UserError: the column contains another value.
    """
    codes = {**{name: name for name in SPLITS}, **{str(code): name for code, name in enumerate(SPLITS)}}
    names = column.astype(str).str.removesuffix(".0").map(codes)
    if names.isna().any():
        unknown = column[names.isna()].iloc[0]
        raise UserError(f"{file}: unknown split {unknown!r}: use train, val, test or 0, 1, 2")
    return names
