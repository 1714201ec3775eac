"""Folders of generated data. A generation that was stopped continues where it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from fractions import Fraction
from math import floor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from ..atomic import atomic_write, write_text
from ..console import log, progress
from ..errors import UserError
from ..locks import check_holds_only
from ..resources import check_disk, check_memory
from .samples import SPLITS
from .tables import TABLE_FILES, DatasetDescription, read_frame, write_own_table

BYTES_PER_ROW = 500
"""Of the table of all images, while they are drawn."""

BYTES_PER_FILE = 4096
"""The least that a file takes on most disks."""

BALANCED = Fraction(1, 2)
WATERBIRDS_COLUMNS = ("img_id", "img_filename", "y", "split", "place", "place_filename")


def spread_evenly(n: int, share: Fraction) -> NDArray[np.bool_]:
    """Choose the share `share` of `n` items, evenly spread. The choice for an item does not depend on `n`.

    Returns:
        Whether each item is chosen, [n]. Exactly `n * share` items are chosen (rounded, halves up).
    """
    return np.diff([floor(number * share + BALANCED) for number in range(n + 1)]).astype(bool)


def check_room(out: Path, n: int) -> None:
    """Check, before anything is planned or drawn, that `n` images fit into memory and on the disk of `out`.

    Raises:
        UserError: they do not.
    """
    check_memory(n * BYTES_PER_ROW, f"the table of {n:,} images", "make fewer images")
    check_disk(out, n * BYTES_PER_FILE, f"{n:,} images", "make fewer images, or choose another place")


def begin_folder(out: Path, source: str, settings: dict[str, Any]) -> None:
    """Begin the data folder `out`, or continue it: the settings are recorded in `<source>.json`.

    Arguments:
        out: the data folder.
        source: name of the generator.
        settings: everything that the data depends on, as JSON types.

    Raises:
        UserError: `out` is not a folder, contains something else, or was made with other settings.
    """
    record = out / f"{source}.json"
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: choose a folder for the data")
    if not record.is_file():
        check_holds_only(out)
        write_text(record, json.dumps(settings, indent=2) + "\n")
        return
    try:
        recorded = json.loads(record.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{record} can't be read: remove {out}, or choose another folder") from error
    if not isinstance(recorded, dict):
        raise UserError(f"{record} contains no settings: remove {out}, or choose another folder")
    for name in sorted(settings.keys() | recorded.keys()):
        if settings.get(name) != recorded.get(name):
            raise UserError(
                f"{out} was made with {name} {recorded.get(name)}, not {settings.get(name)}: "
                "choose another folder, or the same settings"
            )


def save_images(
    out: Path, rows: Sequence[Any], draw: Callable[[Any], Image.Image], *, label: str, seconds_each: float
) -> None:
    """Draw and save the image of each row that has no file yet.

    Arguments:
        out: the data folder.
        rows: what to draw. Each row has a `path` relative to `out`, which ends in .jpg or .png.
        draw: draws the image of a row.
        label: text of the progress bar.
        seconds_each: approximate time per image, in seconds.

    Raises:
        UserError: a file can't be written.
    """
    missing = [row for row in rows if not (out / row.path).is_file()]
    if not missing:
        return
    seconds = len(missing) * seconds_each
    duration = f"{seconds / 60:.0f} min" if seconds > 90 else f"{max(seconds, 1):.0f} s"
    log(f"{label}: {len(missing)} images into {out}, about {duration}")
    for row in progress(missing, len(missing), label):
        image = draw(row)
        with atomic_write(out / row.path, flush=False) as temporary:
            if row.path.endswith(".png"):
                image.save(temporary, format="PNG")
            else:
                image.save(temporary, format="JPEG", quality=92, subsampling=0)


def finish_folder(out: Path, table: pd.DataFrame, description: DatasetDescription | None) -> pd.DataFrame:
    """Write the description, then the table. A folder that already has a table is left unchanged.

    Returns:
        The table of the folder.

    Raises:
        UserError: a file can't be written.
    """
    file = out / TABLE_FILES[0]
    if file.is_file():
        return read_frame(file)
    if description is not None:
        write_own_table(out, table, description)
    else:
        write_text(file, table.to_csv(index=False))
    return table.reset_index(drop=True)


def waterbirds_table(plan: pd.DataFrame) -> pd.DataFrame:
    """The table in Waterbirds' own columns, from the columns path, y, split (a name), place (1: water) and
    place_filename."""
    table = plan.rename(columns={"path": "img_filename"}).assign(
        img_id=np.arange(1, len(plan) + 1), split=[SPLITS.index(split) for split in plan["split"]]
    )
    return table[list(WATERBIRDS_COLUMNS)]
