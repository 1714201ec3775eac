"""CelebA: its layouts, its known counts, and its preparation from an archive or a folder."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ..errors import UserError
from ..input_files import read_text
from .archives import place
from .tables import TABLE_FILES, AnnotatedTable, DatasetDescription, read_description, read_frame
from .text_tables import MAX_BYTES, read_text_table
from .waterbirds import names_celeba_images, read_metadata

ADDRESS = "https://www.kaggle.com/jessicali9530/celeba-dataset"
KNOWN_COUNTS = {"train": (71629, 66874, 22880, 1387), "val": (8535, 8276, 2874, 182), "test": (9767, 7535, 2480, 180)}
"""Samples of the groups non-blond female, non-blond male, blond female, blond male in each split."""

LABEL, ATTRIBUTE = "Blond_Hair", "Male"
IMAGES = "img_align_celeba"
ATTRIBUTES_FILE, SPLITS_FILE = "list_attr_celeba", "list_eval_partition"
SUBPOPBENCH_FILE = "metadata_celeba.csv"
"""The table of SubpopBench, which needs none of the lists."""
LIST_PLACES = ("", "data", "Anno", "Eval")
IMAGE_PLACES = tuple(f"{place}{IMAGES}/{nested}" for place in ("", "data/", "Img/") for nested in (f"{IMAGES}/", ""))
DESCRIPTION = DatasetDescription(
    name="celeba",
    image_size=224,
    resize=256,
    classes=("non-blond", "blond"),
    attributes={"a": ("female", "male")},
    group_name="{label} {attribute}",
)


def read_table(folder: Path) -> AnnotatedTable | None:
    """Read CelebA in any of its layouts; the label is blond hair.

    There are two kinds of layout:

    - `list_attr_celeba`, `list_eval_partition` (.csv or .txt) and `img_align_celeba/` (which may contain another
      folder of this name). They lie in the folder itself, in its `data/`, or in its `Anno/`, `Eval/` and `Img/`.
    - `metadata.csv` with Waterbirds' column names.

    Entries of a `dataset.yaml` in the folder replace the known names and the known transform.

    Returns:
        The table with the columns path, y, a (0 female, 1 male) and split. If the attribute file exists, each
        attribute except blond hair adds a column of 0 and 1 with its name. None if the folder has another layout.

    Raises:
        UserError: a file of the layout is missing (the message names it) or damaged.
    """
    ready = read_metadata(folder)
    if ready is None and any((folder / name).is_file() for name in TABLE_FILES):
        return None
    if ready is not None and not names_celeba_images(ready):
        return None
    attributes_file, splits_file = _list_file(folder, ATTRIBUTES_FILE), _list_file(folder, SPLITS_FILE)
    images = next((place for place in IMAGE_PLACES if (folder / place).is_dir()), None)
    is_table_enough = images is None or (folder / SUBPOPBENCH_FILE).is_file()
    if ready is None and attributes_file is None and splits_file is None and is_table_enough:
        return None
    attributes = None if attributes_file is None else _read_attributes(attributes_file)
    if ready is not None:
        frame = ready if attributes is None else _with_attributes(ready, attributes)
        frame["path"] = _prefix(folder, frame["path"]) + frame["path"]
    elif attributes is None or splits_file is None or images is None:
        found = {ATTRIBUTES_FILE: attributes_file, SPLITS_FILE: splits_file}
        missing = [f"{name}.csv (or .txt)" for name, file in found.items() if file is None]
        missing += [f"{IMAGES}/ with the images"] if images is None else []
        raise UserError(f"{folder} contains a part of CelebA, but not {' and not '.join(missing)}: add it")
    else:
        frame = _joined(attributes, _read_splits(splits_file), splits_file)
        frame["path"] = images + frame["path"]
    names = {name: _value_names(name) for name in frame.columns[4:]}
    default = {**DESCRIPTION.model_dump(exclude_unset=True), "attributes": {**DESCRIPTION.attributes, **names}}
    return AnnotatedTable("celeba", frame, read_description(folder, DatasetDescription(**default)))


def _list_file(folder: Path, name: str) -> Path | None:
    files = (folder / place / f"{name}{suffix}" for place in LIST_PLACES for suffix in (".csv", ".txt"))
    return next((file for file in files if file.is_file()), None)


def _read_attributes(file: Path) -> pd.DataFrame:
    """The attributes as 0 and 1: one column per attribute, with the image names as index."""
    if file.suffix == ".csv":
        values, announced = _by_image(read_text_table(file)), None
    else:
        announced, names = [*read_text(file, max_bytes=MAX_BYTES).splitlines()[:2], "", ""][:2]
        values = _by_image(_read_words(file, ["image_id", *names.split()], skiprows=2))
    if absent := [name for name in (LABEL, ATTRIBUTE) if name not in values]:
        raise UserError(f"{file} has no column {' and '.join(absent)}: download the file again")
    if not values.isin(["-1", "0", "1"]).all(axis=None) or (announced and announced.strip() != str(len(values))):
        raise UserError(f"{file} is truncated or damaged: download it again")
    return (values == "1").astype("int8").astype(str)


def _read_splits(file: Path) -> pd.Series:
    """The split codes, with the image names as index."""
    frame = read_text_table(file) if file.suffix == ".csv" else _read_words(file, ["image_id", "partition"])
    values = _by_image(frame)
    if values.shape[1] != 1:
        raise UserError(f"{file} needs two columns, image and split: download the file again")
    return values.iloc[:, 0]


def _read_words(file: Path, columns: list[str], skiprows: int = 0) -> pd.DataFrame:
    """A list whose cells are separated by blanks, as text."""
    return read_frame(
        file, sep=r"\s+", header=None, names=columns, skiprows=skiprows, index_col=False, dtype=str, na_filter=False
    )


def _by_image(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with the image names, its first column, as index."""
    return frame.set_index(frame.columns[0])


def _joined(attributes: pd.DataFrame, splits: pd.Series, splits_file: Path) -> pd.DataFrame:
    if not splits.index.is_unique:
        raise UserError(f"{splits_file} lists an image twice: download it again")
    if len(unmatched := attributes.index.symmetric_difference(splits.index)):
        raise UserError(
            f"{splits_file} and the attribute file don't list the same images ({len(unmatched)} are in only one of "
            f"them, such as {unmatched[0]}): download both again"
        )
    first = {"path": attributes.index.astype("str"), "y": attributes[LABEL], "a": attributes[ATTRIBUTE]}
    frame = pd.DataFrame({**first, "split": splits.reindex(attributes.index)}).reset_index(drop=True)
    return _and_columns(frame, attributes)


def _with_attributes(ready: pd.DataFrame, attributes: pd.DataFrame) -> pd.DataFrame:
    """The `metadata.csv` table, extended by the columns of the attribute file."""
    number = ready["path"].str.extract(r"(\d{6})\.", expand=False)
    by_number = attributes.set_axis(attributes.index.str.slice(0, 6))
    if unknown := set(number) - set(by_number.index):
        raise UserError(
            f"the attribute file has no image {min(unknown)}, which metadata.csv lists: download the attribute file "
            "again"
        )
    return _and_columns(ready, by_number.loc[number])


def _and_columns(frame: pd.DataFrame, attributes: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([frame, attributes.drop(columns=LABEL).set_axis(frame.index)], axis=1)


def _prefix(folder: Path, paths: pd.Series) -> str:
    """The folder of the images that `metadata.csv` lists: the data folder itself or one of the usual folders."""
    first = str(paths.iloc[0]) if len(paths) else ""
    places = [place for place in ("", *IMAGE_PLACES) if (folder / place / first).is_file()]
    if not places and "/" not in first:
        places = [place for place in IMAGE_PLACES if (folder / place).is_dir()]
    return places[0] if places else ""


def _value_names(attribute: str) -> tuple[str, str]:
    if attribute == ATTRIBUTE:
        return DESCRIPTION.attributes["a"][0], DESCRIPTION.attributes["a"][1]
    name = attribute.lower().replace("_", " ")
    return f"not {name}", name


def prepare_celeba(source: Path | None, out: Path | None = None) -> Path:
    """Prepare CelebA from a folder or an archive in any of its layouts.

    A folder is used in place; if `out` is given, it becomes a link to the folder. An archive is unpacked into `out`.

    Arguments:
        source: folder or archive. CelebA can't be downloaded automatically, because its address needs an account.
        out: the new folder or link; needed for an archive.

    Returns:
        The folder that holds the data set.

    Raises:
        UserError: the source is not given, missing, damaged or another data set; `out` is needed but not given, or
            it already exists.
    """
    if source is None:
        raise UserError(
            f"CelebA can't be downloaded without an account: get it at {ADDRESS} and run "
            "`spurmem data prepare celeba ARCHIVE --out DIR` with your archive or folder"
        )
    files = f"{ATTRIBUTES_FILE} and {SPLITS_FILE} (.csv or .txt) and {IMAGES}/, or a metadata.csv"
    return place(source, out, read_table, what="CelebA", files=files)
