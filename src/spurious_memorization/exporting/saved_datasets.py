"""Samples as a data set of Hugging Face's library `datasets`, saved with their images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from ..atomic import atomic_folder
from ..datasets.image_files import Folder
from ..datasets.sources import Images, Source
from ..extras import imported

SPLIT_NAMES = {"train": "train", "val": "validation", "test": "test"}
"""The names of splits on the hub."""


def write_datasets(table: pd.DataFrame, classes: tuple[str, ...], source: Source, out: Path) -> None:
    """Write samples as `save_to_disk` does: one data set per split. Images become a column `image`.

    Arguments:
        table: of `sample_table`.
        classes: names, in the order of the network's outputs.
        source: of the inputs; only images are written.
        out: a new folder.

    Raises:
        UserError: the library is not installed; the folder is not empty, or can't be written; an image is missing.
    """
    datasets = imported("datasets", "datasets")
    class_label = datasets.ClassLabel(names=list(classes))
    splits = datasets.DatasetDict()
    for split, rows in table.groupby("split", sort=False):
        of_split = datasets.Dataset.from_pandas(rows.drop(columns="split"), preserve_index=False)
        for column in ("label", "predicted"):
            of_split = of_split.cast_column(column, class_label)
        if isinstance(source, Images):
            images = [_image(source, sample) for sample in rows["sample"]]
            column = datasets.Dataset.from_dict({"image": images}, features=datasets.Features(image=datasets.Image()))
            of_split = datasets.concatenate_datasets([column, of_split], axis=1)
        splits[SPLIT_NAMES[str(split)]] = of_split
    with atomic_folder(out) as folder:
        splits.save_to_disk(str(folder))


def _image(images: Images, sample: int) -> dict[str, Any]:
    """An image as the feature `Image` stores it: `save_to_disk` reads the file."""
    path = images.paths[sample]
    if images.files.size(path) is None:
        with images.opened(sample):  # raises the error for a missing file
            pass
    if isinstance(images.files, Folder):
        return {"path": str(images.files.root / path), "bytes": None}
    with images.files.open(path) as stream:
        return {"path": None, "bytes": stream.read()}
