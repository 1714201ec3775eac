"""The layout for your own data: a table next to the images, and an optional dataset.yaml with names and image size."""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ..atomic import write_text
from ..errors import UserError, first_line
from ..input_files import regular_file, shown
from ..settings import MAX_IMAGE_SIZE
from ..yaml_files import read_yaml
from .groups import check_template
from .image_files import ImageFiles
from .samples import SPLITS
from .settings import FOUND_COLUMNS, Columns
from .text_tables import header_of, place, read_text_table
from .transforms import IMAGENET_MEAN, IMAGENET_STD, MAX_RESIZE, ImageTransform, check_crop
from .value_names import check_filled, check_names, name_key

TABLE_FILES = ("metadata.csv", "metadata.parquet")
DESCRIPTION_FILE = "dataset.yaml"
SPLIT_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""The names of splits that folders, shards and splits have, as Hugging Face's `datasets` knows them."""
MAX_FILE_NAME, MAX_PATH = 255, 4096
Mean = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Std = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_OUTSIDE = re.compile(r"[/\\]|[A-Za-z]:|(.*[/\\])?\.\.([/\\]|$)", re.DOTALL)


class DatasetDescription(BaseModel):
    """The entries of `dataset.yaml`, all of them optional.

    `attributes` lists the names of the values of each attribute column, in order. `group_name` is a template with
    `{label}` and `{attribute}`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str | None = None
    image_size: int | None = Field(None, ge=1, le=MAX_IMAGE_SIZE)
    resize: int | None = Field(None, ge=1, le=MAX_RESIZE)
    keep_aspect: bool = False
    interpolation: Literal["nearest", "nearest-exact", "bilinear", "bicubic", "box", "hamming", "lanczos"] = "bilinear"
    mean: tuple[Mean, Mean, Mean] = IMAGENET_MEAN
    std: tuple[Std, Std, Std] = IMAGENET_STD
    classes: tuple[str, ...] | None = None
    attributes: dict[str, tuple[str, ...]] = {}
    minority: tuple[str, ...] = ()
    group_name: str = "{label} with {attribute}"

    @field_validator("classes", "minority", mode="before")
    @classmethod
    def _whole_numbers_are_names(cls, names: Any) -> Any:
        return _as_text(names)

    @field_validator("attributes", mode="before")
    @classmethod
    def _whole_numbers_are_values(cls, attributes: Any) -> Any:
        return (
            {name: _as_text(names) for name, names in attributes.items()}
            if isinstance(attributes, dict)
            else attributes
        )

    @field_validator("classes", "minority")
    @classmethod
    def _different_names(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if names is None else check_names(names)

    @field_validator("attributes")
    @classmethod
    def _different_values(cls, attributes: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        return {column.strip(): check_names(names) for column, names in attributes.items()}

    @field_validator("name")
    @classmethod
    def _sensible_name(cls, name: str | None) -> str | None:
        return None if name is None else check_names([name])[0]

    @field_validator("mean", "std")
    @classmethod
    def _of_values_from_0_to_1(cls, values: tuple[float, float, float]) -> tuple[float, float, float]:
        if max(values) > 1:
            raise ValueError(f"{max(values):g} belongs to pixel values 0..255: divide mean and std by 255")
        return values

    @field_validator("group_name")
    @classmethod
    def _only_known_parts(cls, template: str) -> str:
        check_template(template)
        return template

    @model_validator(mode="after")
    def _crop_within_the_resize(self) -> DatasetDescription:
        if self.image_size is not None and self.resize is not None:
            check_crop(self.resize, self.image_size)
        return self

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

    def given_entries(self, image_size: int | None) -> dict[str, Any]:
        """The entries of the transform that are written, with this image size if there is one."""
        names = ImageTransform.model_fields.keys() & self.model_fields_set
        size = {} if image_size is None else {"image_size": image_size}
        return {**{name: getattr(self, name) for name in sorted(names)}, **size}


@dataclass(frozen=True, eq=False)
class AnnotatedTable:
    """The table and the description of a data set as they are in its folder, before names become indices.

    Arguments:
        layout: name of the layout ("table", "waterbirds", "celeba", ...).
        frame: one row per sample, with the columns `path` (name of the image file in `files`), `y`, any number of
            attribute columns, and optionally `split` (names or codes, as for `split_names`). For texts, `path` is any
            name of the sample.
        description: names, transform and minority groups.
        files: the image files; by default those of the data folder.
        default_attribute: the attribute column to use if none is chosen; by default "a", or the only one.
        texts: the columns of the text, or of the two texts, of each sample; empty for images.
    """

    layout: str
    frame: pd.DataFrame
    description: DatasetDescription
    files: ImageFiles | None = None
    default_attribute: str | None = None
    texts: tuple[str, ...] = ()


def own_table_file(folder: Path) -> Path | None:
    """`metadata.csv` or `metadata.parquet` of a data folder; None if it has neither."""
    return next((folder / name for name in TABLE_FILES if (folder / name).exists()), None)


def read_own_table(folder: Path, columns: Columns = FOUND_COLUMNS) -> AnnotatedTable | None:
    """Read `metadata.csv` or `metadata.parquet` with the columns path (or text), y, an attribute and optionally split.

    Returns:
        The table. None if the folder has no such file.

    Raises:
        UserError: the table can't be read, or a column is missing.
    """
    file = own_table_file(folder)
    if file is None:
        return None
    table = with_columns(AnnotatedTable("table", read_text_table(file), read_description(folder)), columns)
    if "text" in table.frame and ("path" not in table.frame or columns.text_column is not None):
        table = of_texts(table)
    frame = table.frame
    for column in ("path", "y"):
        if column not in frame:
            raise UserError(
                f"{file} has no column {column!r} (it has {', '.join(map(str, frame.columns))}): "
                "it needs path (or text), y, an attribute column such as a, and optionally split"
            )
    return table


def of_texts(table: AnnotatedTable) -> AnnotatedTable:
    """The table as one of texts: those in the column `text`, and in `text_pair` if there is one.

    Samples without a name in a column `path` get the number of their row, from 0.
    """
    frame = table.frame
    texts = tuple(name for name in ("text", "text_pair") if name in frame)
    if "path" not in frame:
        frame = frame.assign(path=[str(row) for row in range(len(frame))])
    return replace(table, frame=frame, texts=texts)


def with_columns(table: AnnotatedTable, columns: Columns) -> AnnotatedTable:
    """The table with the columns that a user has named as path, y and split. The label's values keep their names.

    Raises:
        UserError: a column does not exist.
    """
    frame, description = table.frame, table.description
    for column, name in columns.of_table.items():
        if name not in frame:
            raise UserError(f"no column {shown(name)!r}: the table has {', '.join(map(str, frame.columns))}")
        if name != column:
            frame = frame.drop(columns=column, errors="ignore").rename(columns={name: column})
    if columns.label_column not in (None, "y"):
        values = dict(description.attributes)
        description = description.model_copy(
            update={"classes": values.pop(columns.label_column, None), "attributes": values}
        )
    return replace(table, frame=frame, description=description)


def read_frame(file: Path, **csv: Any) -> pd.DataFrame:
    """Read a list in the format of CelebA or CUB. `csv` are further arguments of `pandas.read_csv`.

    Raises:
        UserError: the file can't be read.
    """
    try:
        return pd.read_csv(regular_file(file), **csv)
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
    return description_of(shown(file), {**default.model_dump(exclude_unset=True), **entries})


def description_of(place: str, entries: dict[str, Any]) -> DatasetDescription:
    """The description with these entries, which are from `place`.

    Raises:
        UserError: an entry is unknown, or a value has the wrong type or is no sensible name.
    """
    try:
        return DatasetDescription(**entries)
    except ValidationError as error:
        first = error.errors()[0]
        where = shown(".".join(map(str, first["loc"])) or "entries")
        raise UserError(
            f"{place}: {where}: {first_line(ValueError(first['msg'].removeprefix('Value error, ')))}"
        ) from error


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
    return header_of(file) if file.exists() else ()


def leads_outside(path: str) -> bool:
    """Whether a path leads outside its folder: it is absolute, has a drive letter, or contains `..`.

    Only the text of the path is tested, not the files on disk. A symbolic link in a data folder is allowed, because
    its owner made it.
    """
    return _OUTSIDE.match(path) is not None


def path_within(folder: Path, path: str) -> str:
    """A path of a table in its shortest form. A backslash separates folders, unless a file has it in its name.

    Raises:
        UserError: the path leads outside the folder, or no file can have it.
    """
    if leads_outside(path):
        raise UserError(f"path {shown(path)!r} leads outside the data folder: use paths relative to it, without '..'")
    if any(unicodedata.category(c) == "Cc" for c in path):
        raise UserError(f"path {shown(path)} contains a control character: correct it")
    if len(os.fsencode(path)) > MAX_PATH or any(len(os.fsencode(part)) > MAX_FILE_NAME for part in path.split("/")):
        raise UserError(f"path {shown(path)!r} is longer than a path may be ({MAX_FILE_NAME} bytes a name): correct it")
    literal = "\\" in path and (folder / path).exists()
    return posixpath.normpath(path if literal else path.replace("\\", "/"))


def split_of_name(name: str) -> str | None:
    """The split that the name of a folder or of a split means: "train" for "training". None if it is no such name."""
    return next((split for split, names in SPLIT_WORDS.items() if name.casefold() in names), None)


def split_names(column: pd.Series) -> pd.Series:
    """The splits as "train", "val" and "test", from these names or from the codes 0, 1 and 2.

    Raises:
        UserError: the column contains another value, or none.
    """
    check_filled(column)
    codes = {**{name: name for name in SPLITS}, **{str(code): name for code, name in enumerate(SPLITS)}}
    names = column.map(name_key).map(codes)
    if (unknown := names.isna().to_numpy(dtype=bool)).any():
        first = int(unknown.argmax())
        raise UserError(
            f"unknown split {shown(column.iloc[first])!r}: use train, val, test or 0, 1, 2 ({place(column, first)})"
        )
    return names


def _as_text(names: Any) -> Any:
    """Names with whole numbers as text. Other values stay, and are refused as names."""
    if not isinstance(names, list | tuple):
        return names
    return [str(name) if isinstance(name, int) and not isinstance(name, bool) else name for name in names]
