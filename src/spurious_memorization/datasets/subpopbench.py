"""The sets of SubpopBench (Yang et al. 2023): its tables, and MetaShift and ImageNet-9 as they are published."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ..console import log_once
from ..errors import UserError
from ..input_files import shown
from . import celeba, waterbirds
from .image_folder import class_images
from .samples import SPLITS
from .tables import AnnotatedTable, DatasetDescription, leads_outside, read_description
from .text_tables import header_of, read_text_table

COLUMNS = ("filename", "split", "y", "a")
PLACES = ("", "subpop_bench_meta/")
ANY_DESCRIPTION = DatasetDescription(image_size=224, resize=256, keep_aspect=True)
NO_FINDING_FILE = "metadata_no_finding.csv"

METASHIFT = "MetaShift-Cat-Dog-indoor-outdoor"
METASHIFT_DESCRIPTION = DatasetDescription(
    name="metashift",
    image_size=224,
    resize=256,
    keep_aspect=True,
    classes=("dog", "cat"),
    attributes={"a": ("outdoor", "indoor")},
    group_name="{label} {attribute}",
)
IMAGENET_9_FOLDERS = {"train": "in9l/train", "val": "in9l/val", "test": "bg_challenge/original/val"}
IMAGENET_9_DESCRIPTION = DatasetDescription(
    name="imagenet-9",
    image_size=224,
    resize=256,
    keep_aspect=True,
    classes=(
        "dog",
        "bird",
        "wheeled vehicle",
        "reptile",
        "carnivore",
        "insect",
        "musical instrument",
        "primate",
        "fish",
    ),
)
NO_FINDING_DESCRIPTION = DatasetDescription(
    image_size=224,
    resize=256,
    keep_aspect=True,
    classes=("finding", "no finding"),
    attributes={"a": ("male white", "female white", "male black", "female black", "male other", "female other")},
    group_name="{label}, {attribute}",
)
DESCRIPTIONS = {
    "metadata_waterbirds.csv": waterbirds.DESCRIPTION,
    celeba.SUBPOPBENCH_FILE: celeba.DESCRIPTION,
    "metadata_metashift.csv": METASHIFT_DESCRIPTION,
    NO_FINDING_FILE: NO_FINDING_DESCRIPTION,
}
"""Names and transforms by the name of the table. Those of ImageNet-9 are recognized by the folders of its images."""
IMAGE_FOLDERS = {
    "metadata_waterbirds.csv": f"{waterbirds.FOLDER}/",
    celeba.SUBPOPBENCH_FILE: f"{celeba.IMAGES}/",
}
"""The folder that the names of the images are relative to. In the other tables they are full paths."""

_PLACE = re.compile(r"(cat|dog)\((indoor|outdoor)\)")


def read_table(folder: Path) -> AnnotatedTable | None:
    """Read a table that SubpopBench has written (https://github.com/YyzHarry/SubpopBench, `scripts/download.py`).

    It has the columns `filename`, `split`, `y` and `a` and lies in the folder, or in its `subpop_bench_meta/`. Full
    paths of another machine are read as paths within the folder. Rows of further splits are left out. Without such a
    table, MetaShift (cats and dogs) and ImageNet-9 are read from their folders.

    Returns:
        The table. None if the folder has another layout.

    Raises:
        UserError: there are several such tables, or the images are not in the folder.
    """
    files = [file for place in PLACES for file in sorted((folder / place).glob("metadata*.csv")) if _has_columns(file)]
    if len(files) > 1:
        raise UserError(f"{shown(folder)} has several tables ({', '.join(f.name for f in files)}): keep one of them")
    if not files:
        return _read_metashift(folder) or _read_imagenet_9(folder)
    file = files[0]
    frame = read_text_table(file)
    others = [name for name in frame if name not in ("path", "id", *COLUMNS)]
    is_known = frame["split"].isin([*SPLITS, *map(str, range(len(SPLITS)))])
    if not is_known.all():
        left_out = sorted(set(frame["split"][~is_known]))
        log_once(
            f"{shown(file)}: left out, since they are no train, val or test: split {', '.join(map(shown, left_out))}"
        )
    frame = frame.loc[is_known, [*COLUMNS, *others]].rename(columns={"filename": "path"})
    frame["path"] = _within(folder, file, frame["path"].tolist())
    description = DESCRIPTIONS.get(file.name, ANY_DESCRIPTION)
    if file.name not in DESCRIPTIONS and frame["path"].str.startswith(IMAGENET_9_FOLDERS["train"]).any():
        description = IMAGENET_9_DESCRIPTION
    log_once(f"{shown(file)}: a table of SubpopBench")
    return AnnotatedTable("subpopbench", frame, read_description(folder, description), default_attribute="a")


def _has_columns(file: Path) -> bool:
    columns = header_of(file)
    return set(COLUMNS) <= set(columns) and "path" not in columns


def _within(folder: Path, file: Path, names: Sequence[str]) -> list[str]:
    """The paths of the images relative to the folder."""
    if file.name in IMAGE_FOLDERS:
        return [IMAGE_FOLDERS[file.name] + name for name in names]
    start = _start(folder, file, names[0]) if names else ""
    if other := next((name for name in names if not name.startswith(start)), None):
        raise UserError(f"{shown(file)}: {shown(other)!r} is not below {shown(start)}, where the first image is")
    return [name.removeprefix(start) for name in names]


def _start(folder: Path, file: Path, name: str) -> str:
    """What comes before the path within the folder, in a full path of any machine."""
    if not leads_outside(name):
        return ""
    parts = re.split(r"[/\\]", name)
    for n in range(1, len(parts)):
        if (folder / Path(*parts[n:])).is_file():
            return name[: len("/".join(parts[:n])) + 1]
    raise UserError(
        f"{shown(folder)} does not hold {shown(name)!r}, which {file.name} names: give the folder that does"
    )


def _read_metashift(folder: Path) -> AnnotatedTable | None:
    """`train/cat/cat(indoor)/` and so on, as https://github.com/Weixin-Liang/MetaShift writes them.

    Training has only cats indoors and dogs outdoors, and test only the others. Therefore the folders are no splits,
    as in SubpopBench. They are the column `folder`.
    """
    root = next((place for place in (folder, folder / METASHIFT) if (place / "train" / "cat").is_dir()), None)
    if root is None:
        return None
    rows = []
    for place in sorted(root.glob("*/*/*")):
        match = _PLACE.fullmatch(place.name)
        if not place.is_dir() or match is None or match[1] != place.parent.name:
            return None
        rows += [
            {"path": file.relative_to(folder).as_posix(), "y": match[1], "a": match[2], "folder": place.parts[-3]}
            for file in sorted(place.glob("*.jpg"))
        ]
    if not rows:
        return None
    log_once(f"{shown(folder)}: MetaShift without the table of SubpopBench, so each group is split at random")
    frame = pd.DataFrame(rows, dtype=object)
    return AnnotatedTable("metashift", frame, read_description(folder, METASHIFT_DESCRIPTION))


def _read_imagenet_9(folder: Path) -> AnnotatedTable | None:
    """`in9l/train/00_dog/` and so on, as https://github.com/MadryLab/backgrounds_challenge gives them."""
    if not (folder / IMAGENET_9_FOLDERS["train"]).is_dir():
        return None
    names = {f"{i:02}_{name}": name for i, name in enumerate(IMAGENET_9_DESCRIPTION.classes or ())}
    rows = [
        {"path": f"{place}/{path}", "y": names[label], "split": split}
        for split, place in IMAGENET_9_FOLDERS.items()
        for label, path in class_images(folder / place)
        if label in names
    ]
    if not rows:
        return None
    log_once(f"{shown(folder)}: ImageNet-9; the test images are those with their original backgrounds")
    frame = pd.DataFrame(rows, dtype=object)
    return AnnotatedTable("imagenet-9", frame, read_description(folder, IMAGENET_9_DESCRIPTION))
