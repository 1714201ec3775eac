"""Samples as FiftyOne reads them from disk: its FiftyOneImageClassificationDataset, a format of two JSON files.

`labels.json` holds the class of each sample and further attributes. `data.json` says where its image is. The format is
described in FiftyOne's user guide, "Importing data". FiftyOne itself is not needed.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..atomic import atomic_folder
from ..datasets.image_files import Folder
from ..datasets.sources import Images
from ..reporting.tables.number_formats import is_missing


def write_fiftyone(table: pd.DataFrame, classes: tuple[str, ...], images: Images, out: Path) -> None:
    """Write samples for FiftyOne. Images that lie in larger files are written as files of their own.

    Arguments:
        table: of `sample_table`.
        classes: names, in the order of the network's outputs.
        images: of the data set.
        out: a new folder.

    Raises:
        UserError: the folder is not empty, or can't be written; an image can't be read.
    """
    fields = field_names([str(name) for name in table])
    with atomic_folder(out) as folder:
        places, labels = {}, {}
        for row in table.to_dict(orient="records"):
            name = f"{row['sample']:07d}"
            places[name] = _place(images, row["sample"], folder, name)
            labels[name] = {"label": classes.index(row["label"]), "attributes": _attributes(row, fields)}
        (folder / "data.json").write_text(json.dumps(places, indent=0), encoding="utf-8")
        content = {"classes": classes, "labels": labels}
        (folder / "labels.json").write_text(json.dumps(content, indent=0, allow_nan=False), encoding="utf-8")


def _place(images: Images, sample: int, folder: Path, name: str) -> str:
    """Where the image of a sample is: its own file, or a copy below `folder`."""
    path = images.paths[sample]
    if isinstance(images.files, Folder):
        return str((images.files.root / path).resolve())
    with images.opened(sample) as image:
        copy = Path("data") / f"{name}.{str(image.format).lower()}"
    (folder / "data").mkdir(exist_ok=True)
    with images.files.open(path) as stream, (folder / copy).open("wb") as file:
        shutil.copyfileobj(stream, file)
    return str(copy)


def field_names(columns: Sequence[str]) -> dict[str, str]:
    """The field of each column. FiftyOne's names of fields have neither spaces nor dots: these become "_".

    Columns whose names become the same are numbered from the second one on, so that every field has a name of its own.
    """
    fields: dict[str, str] = {}
    for column in columns:
        plain = field = re.sub(r"\W", "_", column)
        number = 1
        while field in fields.values():
            number += 1
            field = f"{plain}_{number}"
        fields[column] = field
    return fields


def _attributes(row: dict[Any, Any], fields: Mapping[str, str]) -> dict[str, Any]:
    """The known values of a sample, by the names of their fields."""
    values = {name: value.item() if isinstance(value, np.generic) else value for name, value in row.items()}
    known = {name: value for name, value in values.items() if name != "label" and not is_missing(value)}
    return {fields[name]: value for name, value in known.items()}
