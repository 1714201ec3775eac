"""Waterbirds: its own layout, its known counts, and its preparation from an archive or a folder."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pandas as pd

from ..errors import UserError
from .archives import download, place
from .tables import TABLE_FILES, AnnotatedTable, DatasetDescription, read_description, table_columns
from .text_tables import read_text_table
from .value_names import check_filled

FOLDER = "waterbird_complete95_forest2water2"
URL = f"https://nlp.stanford.edu/data/dro/{FOLDER}.tar.gz"
KNOWN_COUNTS = {"train": (3498, 184, 56, 1057), "val": (467, 466, 133, 133), "test": (2255, 2255, 642, 642)}
"""Samples of the groups landbird/land, landbird/water, waterbird/land, waterbird/water in each split."""

COLUMNS = ("img_filename", "y", "split", "place")
DESCRIPTION = DatasetDescription(
    name="waterbirds",
    image_size=224,
    resize=256,
    classes=("landbird", "waterbird"),
    attributes={"a": ("land", "water")},
    group_name="{label} on {attribute}",
)
_CELEBA_IMAGE = re.compile(r"(.*/)?\d{6}\.(jpg|png)")


def read_table(folder: Path) -> AnnotatedTable | None:
    """Read Waterbirds from its folder, or from the folder that holds `waterbird_complete95_forest2water2/`.

    Entries of a `dataset.yaml` next to `metadata.csv` replace the known names and the known transform.

    Returns:
        The table with the columns path, y, a (0 land, 1 water) and split. None if the folder has another layout.

    Raises:
        UserError: `metadata.csv` can't be read, or a column is missing.
    """
    for prefix in ("", f"{FOLDER}/"):
        frame = read_metadata(folder / prefix)
        if frame is not None and not names_celeba_images(frame):
            check_filled(frame["path"])
            frame["path"] = prefix + frame["path"]
            return AnnotatedTable("waterbirds", frame, read_description(folder / prefix, DESCRIPTION))
    return None


def read_metadata(folder: Path) -> pd.DataFrame | None:
    """Read a `metadata.csv` with Waterbirds' column names, which CelebA may have too.

    Returns:
        The columns path, y, a and split. None if there is no such table.

    Raises:
        UserError: the table can't be read, or has `img_filename` but not all of the other columns.
    """
    columns = table_columns(folder)
    if COLUMNS[0] not in columns:
        return None
    file = folder / TABLE_FILES[0]
    if missing := [name for name in COLUMNS if name not in columns]:
        raise UserError(f"{file} has no column {', '.join(missing)}: it needs {', '.join(COLUMNS)}")
    return read_text_table(file)[list(COLUMNS)].rename(columns={"img_filename": "path", "place": "a"})


def names_celeba_images(frame: pd.DataFrame) -> bool:
    """Whether all file names are those of CelebA: six digits, then .jpg or .png."""
    return all(_CELEBA_IMAGE.fullmatch(str(path)) for path in frame["path"])


def prepare_waterbirds(source: Path | None = None, out: Path | None = None) -> Path:
    """Prepare Waterbirds from a folder or an archive, or download it from its official address.

    A folder is used in place; if `out` is given, it becomes a link to the folder. An archive is unpacked into `out`.

    Arguments:
        source: folder or archive; by default the data set is downloaded.
        out: the new folder or link; needed unless `source` is a folder.

    Returns:
        The folder that holds the data set.

    Raises:
        UserError: the source is missing, damaged or another data set; the download failed; `out` is needed but not
            given, or it already exists.
    """
    files = f"metadata.csv with the columns {', '.join(COLUMNS)}, and its images"
    if source is not None:
        return place(source, out, read_table, what="Waterbirds", files=files)
    if out is None:
        raise UserError("add --out DIR, the folder for Waterbirds, or give the folder or archive that you have")
    if out.is_dir() and read_table(out) is not None:
        return place(out, None, read_table, what="Waterbirds", files=files)
    archive = out.with_name(f".{out.name}.{FOLDER}.tar.gz")
    if not archive.is_file():
        _download(archive, out)
    try:
        folder = place(archive, out, read_table, what="Waterbirds", files=files)
    except UserError:
        archive.unlink()
        raise
    archive.unlink()
    return folder


def _download(archive: Path, out: Path) -> None:
    try:
        download(URL, archive)
    except UserError as error:
        raise UserError(
            f"{error}. If it fails again, get {FOLDER}.tar.gz from another source and run "
            f"`spurmem data prepare waterbirds {FOLDER}.tar.gz --out {shlex.quote(str(out))}`"
        ) from error
