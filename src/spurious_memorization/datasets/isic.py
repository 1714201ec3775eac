"""ISIC: images of skin lesions with a diagnosis, and facts about the patient."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pandas as pd
from torchvision.datasets.folder import IMG_EXTENSIONS

from ..console import log_once
from ..errors import UserError
from ..input_files import shown
from .tables import AnnotatedTable, DatasetDescription, read_description
from .text_tables import header_of, read_text_table

UNKNOWN = "unknown"
IDENTIFIERS = ("isic_id", "image_name", "image_id", "image", "lesion_id", "patient_id")
"""Columns that name an image, a lesion or a patient. They are no attributes."""
ATTRIBUTE = "sex"


class Form(NamedTuple):
    """One form of the tables: the file, the column of the image's name, and those that may be the label, in order."""

    file: str
    image: str
    labels: tuple[str, ...]


FORMS = (
    Form("metadata.csv", "isic_id", ("benign_malignant", "diagnosis_1", "diagnosis")),
    Form("train.csv", "image_name", ("benign_malignant", "target")),
    Form("HAM10000_metadata*", "image_id", ("dx",)),
)
GROUND_TRUTH = "*_GroundTruth.csv"


def read_table(folder: Path) -> AnnotatedTable | None:
    """Read ISIC from any of its tables. The images may lie in any folder below.

    - the ISIC archive (https://www.isic-archive.com): `metadata.csv` with `isic_id` and `benign_malignant` or
      `diagnosis_1`;
    - SIIM-ISIC 2020 (https://www.kaggle.com/c/siim-isic-melanoma-classification): `train.csv` with `image_name` and
      `benign_malignant`;
    - HAM10000: `HAM10000_metadata.csv` with `image_id` and `dx`;
    - the challenges (https://challenge.isic-archive.com/data): `*_GroundTruth.csv` with `image` and a column of 0 and 1
      for each diagnosis, and optionally `*_Metadata.csv`.

    The attribute is `sex`. Empty cells become "unknown". There is no split, so each group is split at random.

    Returns:
        The table. None if the folder has another layout.

    Raises:
        UserError: a diagnosis is missing, or an image of a challenge has none or several.
    """
    found = _read_form(folder) or _read_challenge(folder)
    if found is None:
        return None
    frame, image, label = found
    files = {
        file.stem: file.relative_to(folder).as_posix()
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in IMG_EXTENSIONS
    }
    path = [files.get(name, f"{name}.jpg") for name in frame[image]]
    others = [name for name in frame if name not in (*IDENTIFIERS, label)]
    log_once(f"{shown(folder)}: ISIC; the label is {label!r}")
    whole = frame[others].replace("", UNKNOWN).assign(path=path, y=frame[label])
    description = read_description(folder, DatasetDescription(name="isic", group_name="{label}, {attribute}"))
    return AnnotatedTable("isic", whole, description, default_attribute=ATTRIBUTE if ATTRIBUTE in others else None)


def _read_form(folder: Path) -> tuple[pd.DataFrame, str, str] | None:
    """The table, the column of the image's name and that of the label."""
    for form in FORMS:
        for file in sorted(folder.glob(form.file)):
            if form.image not in (columns := header_of(file)):
                continue
            if (label := next((name for name in form.labels if name in columns), None)) is not None:
                return read_text_table(file), form.image, label
    return None


def _read_challenge(folder: Path) -> tuple[pd.DataFrame, str, str] | None:
    files = [file for file in sorted(folder.glob(GROUND_TRUTH)) if header_of(file)[:1] == ("image",)]
    if not files:
        return None
    if len(files) > 1:
        raise UserError(f"{shown(folder)} has several tables ({', '.join(f.name for f in files)}): keep one of them")
    truth = read_text_table(files[0])
    diagnoses = truth.columns[1:]
    values = truth[diagnoses].isin(["1", "1.0"])
    if (wrong := values.sum(axis=1) != 1).any():
        raise UserError(f"{shown(files[0])}: image {truth['image'][wrong].iloc[0]} has not exactly one diagnosis")
    frame = pd.DataFrame({"image": truth["image"], "diagnosis": diagnoses[values.to_numpy().argmax(axis=1)]})
    metadata = files[0].with_name(files[0].name.replace("_GroundTruth", "_Metadata"))
    if metadata.is_file():
        facts = read_text_table(metadata)
        frame = frame.merge(facts, on="image", how="left", validate="one_to_one").fillna("")
    return frame, "image", "diagnosis"
