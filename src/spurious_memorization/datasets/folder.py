"""Read a data folder in any known layout into a `Dataset`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..console import log_once
from ..errors import UserError
from ..input_files import shown
from ..settings import MAX_IMAGE_SIZE
from . import (
    celeba,
    chest_xrays,
    civilcomments,
    hugging_face,
    image_folder,
    isic,
    multinli,
    subpopbench,
    waterbirds,
    web_dataset,
)
from .attributes import Attribute, ValueNoun, column_names, combined, merged
from .candidate_groups import GROUP_NAME, rows_of_samples, with_candidate_roles
from .groups import Groups
from .image_files import Folder
from .samples import Dataset
from .settings import FOUND_COLUMNS, NO_ATTRIBUTE, Columns, DataSettings
from .sources import Images
from .tables import (
    AnnotatedTable,
    DatasetDescription,
    own_table_file,
    path_within,
    read_own_table,
    split_names,
    with_columns,
)
from .text_tables import header_of
from .texts import Texts
from .transforms import ImageTransform, check_crop
from .value_names import check_filled, encode

if TYPE_CHECKING:
    import datasets

SPLIT_SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}
RESERVED_COLUMNS = ("path", "y", "split")


def read_data(
    folder: str | Path,
    *,
    attribute: str | None = None,
    image_size: int | None = None,
    minority: tuple[str, ...] = (),
    split_seed: int = 0,
    min_group_size: int = 1,
    image_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    max_tokens: int | None = None,
) -> Dataset:
    """Read a folder of images or texts with labels and spurious attributes.

    These layouts are recognized, and a line says which one was:

    - `metadata.csv` (or `.parquet`) with the columns `path`, `y`, an attribute column and optionally `split`;
    - the same with the column `text`, or `text` and `text_pair`, instead of `path`: a data set of texts;
    - a folder per class, as for torchvision's `ImageFolder`;
    - data sets of Hugging Face's `datasets`: saved by `save_to_disk`, as Parquet files, or on the hub;
    - shards of WebDataset;
    - the published layouts of Waterbirds, CelebA, MetaShift, ImageNet-9, CheXpert, MIMIC-CXR and ISIC, and the tables
      of SubpopBench.

    A `dataset.yaml` in the folder replaces names and the transform.

    Arguments:
        folder: the data folder, or `hf:owner/name` for a data set on the Hugging Face hub.
        attribute: attribute column; by default "a", or the only attribute column. With several, such as "a,b", the
            attribute of a sample is the combination of its values. Only combinations that occur count.
        image_size: side of the square input in pixels; by default that of dataset.yaml or of the layout. It sets only
            the size. What dataset.yaml leaves open is the network's own in `train` and `import_network`; here it is
            ImageNet's mean and std.
        minority: names of the minority groups; by default those with a training lift under 0.5.
        split_seed: seed of the stratified split, which is made if the table has no split.
        min_group_size: combinations (of one column, values) with fewer training samples, of all labels together, become
            one: "other combinations" ("other values"). A line says which.
        image_column: column of the image or of its path; by default it is found.
        label_column: column of the label; by default it is found.
        split_column: column of the split; by default it is found.
        text_column: column of the text; by default `text`, if there is no column `path`.
        text_pair_column: column of the second text of a pair; by default `text_pair`.
        max_tokens: tokens of a text, at most; by default 128. What is longer is cut.

    Returns:
        The data set. Its images are opened when they are needed. Its texts are tokenized by a network's tokenizer.

    Raises:
        UserError: the layout is unknown, a column is missing, a split is unknown, a path leads outside the folder,
            a label or attribute is missing, there are fewer than two classes, or no attribute value has
            `min_group_size` training samples.

    Example:
        ```python
        data = sm.read_data("my_images/")
        data.groups.names, data.train_counts
        ```
    """
    root = Path(folder)
    columns = Columns(
        image_column=image_column,
        label_column=label_column,
        split_column=split_column,
        text_column=text_column,
        text_pair_column=text_pair_column,
    )
    return assemble(
        root,
        read_table(root, columns),
        columns=columns,
        attribute=attribute,
        image_size=image_size,
        minority=minority,
        split_seed=split_seed,
        min_group_size=min_group_size,
        max_tokens=max_tokens,
    )


def from_hugging_face(
    rows: datasets.Dataset | datasets.DatasetDict,
    *,
    attribute: str | None = None,
    image_size: int | None = None,
    minority: tuple[str, ...] = (),
    split_seed: int = 0,
    min_group_size: int = 1,
    image_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
) -> Dataset:
    """A data set of Hugging Face's `datasets` that you have in Python.

    For a run, save it by `save_to_disk`: then `train` and every other command reads its folder.

    Arguments:
        rows: the rows, or the rows of each split. Images are opened when they are needed.
        attribute: attribute column, as for `read_data`; so are the others.

    Raises:
        UserError: it is no such data set; otherwise as for `read_data`.

    Example:
        ```python
        data = sm.from_hugging_face(datasets.load_from_disk("birds"), attribute="place")
        ```
    """
    columns = Columns(image_column=image_column, label_column=label_column, split_column=split_column)
    root, table = hugging_face.read_live(rows, columns)
    return assemble(
        root,
        table,
        columns=columns,
        attribute=attribute,
        image_size=image_size,
        minority=minority,
        split_seed=split_seed,
        min_group_size=min_group_size,
    )


def read_with_settings(folder: Path, settings: DataSettings) -> Dataset:
    """Read a data folder with the settings of a command. Raises the errors of `read_data`."""
    return read_data(folder, **{name: getattr(settings, name) for name in DataSettings.model_fields})


def assemble(
    root: Path,
    table: AnnotatedTable,
    *,
    attribute: str | None,
    image_size: int | None,
    minority: tuple[str, ...],
    split_seed: int,
    min_group_size: int = 1,
    columns: Columns = FOUND_COLUMNS,
    max_tokens: int | None = None,
) -> Dataset:
    """Build the data set from a table that was read from `root`. Arguments and errors are those of `read_data`."""
    description, is_discovered = table.description, _is_other_table(table, attribute)
    if is_discovered:
        table = _with_other_table(root, table, Path(str(attribute)))
        attribute, description = "attribute", description.model_copy(update={"group_name": GROUP_NAME})
    frame = table.frame
    if unknown := [name for name in description.attributes if name not in frame or name in RESERVED_COLUMNS]:
        raise UserError(f"{root}: dataset.yaml names values of {unknown[0]!r}, which is no attribute column")
    y, classes = encode(frame["y"], description.classes)
    chosen = _chosen_attribute(root, table, attribute)
    every = chosen or Attribute("none", ("all",), np.zeros(len(frame), np.int64))
    if len(np.unique(y)) < 2:
        raise UserError(f"{root}: all samples have the label {classes[y[0]]!r}: at least two classes are needed")
    check_filled(frame["path"])
    paths = tuple(path_within(root, path) for path in frame["path"])
    if "split" in frame:
        split, seed = split_names(frame["split"]).to_numpy(dtype=str), None
    else:
        split, seed = stratified_split(y * len(every.values) + every.codes, split_seed), split_seed
    noun: ValueNoun = "combinations" if every.is_combined else "values"
    kept, too_small = merged(every, split == "train", min_group_size, noun)
    groups = Groups(classes, kept.values, description.group_name if chosen else "{label}")
    name = description.name or root.resolve().name
    data = Dataset(
        name=name,
        groups=groups,
        y=y,
        a=kept.codes,
        split=split,
        source=_texts(root, table, paths, max_tokens, image_size)
        if table.texts
        else _images(root, table, paths, image_size, max_tokens),
        layout=table.layout,
        columns=columns,
        split_seed=seed,
        merged=too_small,
    )
    if is_discovered:
        data = with_candidate_roles(data)
        return data.with_minority(minority) if minority else data
    if minority or attribute is None:
        return data.with_minority(minority or description.minority)
    return data.with_minority([name for name in description.minority if name in groups.names])


def read_attributes(data: Dataset, wanted: str) -> tuple[Attribute, ...]:
    """Attribute columns of the table that a data set was read from, also those that it does not use.

    Arguments:
        data: as `read_data` returns it.
        wanted: the columns, such as "a,b".

    Raises:
        UserError: the data set comes from no table, a column does not exist or has an empty cell, or the table has
            changed since.
    """
    if not isinstance(data.source, Images | Texts):
        raise UserError("a data set of tensors has no table: give the values of each attribute, {name: values}")
    root = data.source.root
    if not is_there(root):
        raise UserError(f"{root} is no folder with a table: give the values of each attribute, {{name: values}}")
    table = read_table(root, data.columns)
    if tuple(path_within(root, path) for path in table.frame["path"]) != data.source.paths:
        raise UserError(f"the table of {root} has changed since the data were read: read them again")
    return tuple(_attribute(table, column) for column in attribute_columns(table, wanted))


def read_table(folder: Path, columns: Columns = FOUND_COLUMNS) -> AnnotatedTable:
    """Recognize the layout of a data folder.

    Raises:
        UserError: the folder is missing, empty, or in no known layout.
    """
    if not is_there(folder):
        raise UserError(f"data folder {folder} does not exist: create one by `spurmem data make` or `data prepare`")
    table = _table(folder, columns)
    if table is None:
        raise UserError(
            f"{folder} is not in a known layout: it needs metadata.csv with the columns path (or text), y, a and "
            "optionally split, a folder of images for each class, or the files of a known data set or library"
        )
    if table.frame.empty:
        raise UserError(f"{folder}: the table has no rows")
    return table


def is_there(folder: Path) -> bool:
    """Whether a data folder exists. The name of a data set on the hub may."""
    return hugging_face.is_on_hub(folder) or folder.is_dir()


def full_path(folder: Path) -> Path:
    """The folder by its full path. The name of a data set on the hub stays as it is."""
    return folder if hugging_face.is_on_hub(folder) else folder.resolve()


def _table(folder: Path, columns: Columns) -> AnnotatedTable | None:
    if hugging_face.is_on_hub(folder):
        return hugging_face.read_hub(folder, columns)
    own = own_table_file(folder)
    is_own = own is not None and (own.suffix == ".parquet" or not {"path", "text"}.isdisjoint(header_of(own)))
    others = () if is_own else (subpopbench, chest_xrays, isic, multinli, civilcomments)
    for published in (waterbirds, celeba, *others):
        if known := published.read_table(folder):
            return with_columns(known, columns)
    if own is not None:
        return image_folder.read_with_table(folder, columns) or read_own_table(folder, columns)
    return (
        hugging_face.read_table(folder, columns)
        or web_dataset.read_table(folder, columns)
        or image_folder.read_table(folder)
    )


def stratified_split(g: NDArray[np.int64], seed: int) -> NDArray[np.str_]:
    """Split each group at random into 70% train, 10% val and 20% test.

    Arguments:
        g: group of each sample, [samples].
        seed: seed of the split.

    Returns:
        "train", "val" or "test" for each sample, [samples].
    """
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


def own_columns(table: AnnotatedTable) -> list[str]:
    """The columns of a table that may hold attributes."""
    return [str(name) for name in table.frame.columns if name not in (*RESERVED_COLUMNS, *table.texts)]


def attribute_columns(table: AnnotatedTable, wanted: str | None) -> tuple[str, ...]:
    """The attribute columns to use: the wanted ones, otherwise "a", otherwise the only attribute column.

    Raises:
        UserError: a wanted column does not exist or is given twice, there is no attribute column, or there are several
            and none is chosen.
    """
    columns = own_columns(table)
    if wanted is not None:
        names = (wanted,) if wanted in columns else column_names(wanted) or (wanted,)
        if unknown := [name for name in names if name not in columns]:
            raise UserError(f"no attribute column {unknown[0]!r}: the table has {', '.join(columns) or 'none'}")
        return names
    if table.default_attribute is not None:
        return (table.default_attribute,)
    if "a" in columns:
        return ("a",)
    if len(columns) == 1:
        return (columns[0],)
    if not columns:
        raise UserError("the table has no attribute column: add one, or find candidate groups by `spurmem discover`")
    raise UserError(f"several attribute columns ({', '.join(columns)}): choose one with attribute (--attribute)")


def _is_other_table(table: AnnotatedTable, wanted: str | None) -> bool:
    """Whether `wanted` names the file of another table, rather than columns of this one."""
    return wanted is not None and wanted not in own_columns(table) and wanted.endswith((".csv", ".parquet"))


def _with_other_table(root: Path, table: AnnotatedTable, file: Path) -> AnnotatedTable:
    """The table with the columns `attribute` and, if it has none, `split` of another table, as `discover` writes it.

    Raises:
        UserError: a column is missing, or the other table lacks a sample or has it twice.
    """
    paths = [path_within(root, path) for path in table.frame["path"]]
    other = rows_of_samples(file, root, paths, ("attribute",))
    has_split = "split" in table.frame or "split" not in other
    columns = {name: other[name].to_numpy() for name in ("attribute", *(() if has_split else ("split",)))}
    return replace(table, frame=table.frame.assign(**columns))


def _chosen_attribute(root: Path, table: AnnotatedTable, wanted: str | None) -> Attribute | None:
    """The attribute of the samples: of one or several columns. None if the groups are the classes.

    Raises:
        UserError: as for `attribute_columns`.
    """
    columns = own_columns(table)
    if wanted not in columns and (wanted == NO_ATTRIBUTE or (wanted is None and not columns)):
        if wanted is None:
            log_once(f"{root}: the table has no attribute column, so the groups are the classes")
        return None
    return combined([_attribute(table, name) for name in attribute_columns(table, wanted)])


def _attribute(table: AnnotatedTable, column: str) -> Attribute:
    codes, values = encode(table.frame[column], table.description.attributes.get(column))
    return Attribute(column, values, codes)


def _images(
    root: Path, table: AnnotatedTable, paths: tuple[str, ...], image_size: int | None, max_tokens: int | None
) -> Images:
    if max_tokens is not None:
        raise UserError(f"{root} holds images, which have no tokens: leave max_tokens (--max-tokens) out")
    return Images(table.files or Folder(root), paths, *_transform(table.description, image_size))


def _texts(
    root: Path, table: AnnotatedTable, paths: tuple[str, ...], max_tokens: int | None, image_size: int | None
) -> Texts:
    if image_size is not None:
        raise UserError(f"{root} holds texts, which have no image size: leave image_size (--image-size) out")
    texts, *pairs = (tuple(table.frame[column]) for column in table.texts)
    return Texts(root, paths, texts, pairs[0] if pairs else None, max_tokens)


def _transform(
    description: DatasetDescription, image_size: int | None
) -> tuple[ImageTransform | None, dict[str, Any] | None]:
    """The transform, if the size is known, and the entries that are given if the rest is left to the network."""
    if image_size is not None and not 1 <= image_size <= MAX_IMAGE_SIZE:
        raise UserError(f"image_size {shown(str(image_size))} is not possible: choose 1 to {MAX_IMAGE_SIZE}")
    transform = description.transform()
    if transform is not None:
        return transform if image_size is None else _resized(transform, image_size), None
    given = description.given_entries(image_size)
    if image_size is None:
        return None, given
    try:
        check_crop(description.resize or image_size, image_size)
    except ValueError as error:
        raise UserError(f"dataset.yaml: {error}") from error
    return ImageTransform(**{"resize": image_size, **given}), given


def _resized(transform: ImageTransform, image_size: int) -> ImageTransform:
    ratio = transform.resize / transform.image_size
    return transform.model_copy(update={"image_size": image_size, "resize": round(image_size * ratio)})
