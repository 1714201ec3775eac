"""CheXpert and MIMIC-CXR-JPG: X-rays of the chest with findings, and facts about the patient and the view."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ..console import log_once
from ..errors import UserError
from ..input_files import shown
from .tables import AnnotatedTable, DatasetDescription, read_description, read_frame
from .text_tables import header_of

LABEL = "No Finding"
FINDINGS = (
    LABEL,
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
PRESENT, UNCERTAIN = ("1", "1.0"), ("-1", "-1.0")
CHEXPERT_FILES = {"train": "train.csv", "val": "valid.csv", "test": "test.csv"}
MIMIC_SPLITS = {"train": "train", "validate": "val", "test": "test"}


def read_table(folder: Path) -> AnnotatedTable | None:
    """Read CheXpert or MIMIC-CXR-JPG from their published tables. The label is "No Finding".

    A finding is present if its cell is 1. An empty cell, 0 and -1 (uncertain) count as absent; a line gives the number
    of uncertain ones. `label_column="Pneumothorax"` chooses another finding as the label; the others are attributes.

    - CheXpert (https://stanfordmlgroup.github.io/competitions/chexpert): `train.csv`, `valid.csv` and, if there is one,
      `test.csv`, with the columns `Path`, `Sex`, `Age`, `Frontal/Lateral`, `AP/PA` and the findings. The attribute is
      `Sex`.
    - MIMIC-CXR-JPG (https://physionet.org/content/mimic-cxr-jpg/2.0.0): `mimic-cxr-2.0.0-metadata.csv`, `-split.csv`
      and `-chexpert.csv` or `-negbio.csv`, also as `.csv.gz`, with `files/`. With MIMIC-IV's `patients.csv`, the
      attribute is `gender`, otherwise `ViewPosition`.

    Returns:
        The table. None if the folder has another layout.

    Raises:
        UserError: a file of the layout is missing or damaged.
    """
    return _read_chexpert(folder) or _read_mimic(folder)


def _read_chexpert(folder: Path) -> AnnotatedTable | None:
    train = folder / CHEXPERT_FILES["train"]
    if not train.is_file() or not {"Path", "Sex", LABEL} <= set(header_of(train)):
        return None
    files = {split: file for split, name in CHEXPERT_FILES.items() if (file := folder / name).is_file()}
    parts = {split: _cells(file, "Path", "Sex", LABEL) for split, file in files.items()}
    frame = pd.concat([part.assign(split=split) for split, part in parts.items()], ignore_index=True).fillna("")
    # The paths begin with the name of the archive, such as CheXpert-v1.0-small, which may have been renamed.
    path = frame.pop("Path").str.replace(r"^CheXpert[^/]*/", "", regex=True)
    prefix = next((f"{place.name}/" for place in sorted(folder.glob("CheXpert*")) if place.is_dir()), "")
    views = ["Sex", "Age", "Frontal/Lateral", "AP/PA"]
    return _table(folder, "chexpert", frame.assign(path=prefix + path), views, "Sex")


def _read_mimic(folder: Path) -> AnnotatedTable | None:
    metadata = _mimic_file(folder, "metadata")
    if metadata is None:
        return None
    splits = _mimic_file(folder, "split")
    labels = _mimic_file(folder, "chexpert") or _mimic_file(folder, "negbio")
    if splits is None or labels is None:
        raise UserError(f"{shown(folder)} has {metadata.name} but not its split and chexpert (or negbio): add them")
    frame = _cells(metadata, "dicom_id", "subject_id", "study_id", "ViewPosition")
    n_images, columns = len(frame), ["ViewPosition"]
    frame = _merged(frame, splits, ["dicom_id"], "split")
    frame = _merged(frame, labels, ["subject_id", "study_id"], *FINDINGS)
    patients = next((f for name in ("patients.csv", "patients.csv.gz") if (f := folder / name).is_file()), None)
    if patients is not None:
        frame, columns = _merged(frame, patients, ["subject_id"], "gender"), ["gender", *columns]
    if len(frame) < n_images:
        log_once(
            f"{shown(folder)}: {n_images - len(frame)} of {n_images} images are left out, since a table lacks them"
        )
    frame["split"] = frame["split"].replace(MIMIC_SPLITS)
    names = zip(frame["subject_id"], frame["study_id"], frame["dicom_id"], strict=True)
    path = [f"files/p{subject[:2]}/p{subject}/s{study}/{image}.jpg" for subject, study, image in names]
    return _table(folder, "mimic-cxr", frame.assign(path=path), columns, columns[0])


def _table(folder: Path, layout: str, frame: pd.DataFrame, columns: list[str], attribute: str) -> AnnotatedTable:
    findings = [name for name in FINDINGS if name in frame]
    uncertain = int(frame[findings].isin(UNCERTAIN).sum(axis=None))
    log_once(
        f"{shown(folder)}: {layout}; the label is {LABEL!r}; {uncertain} uncertain findings count as absent, "
        "as those that are not mentioned do"
    )
    present = frame[findings].isin(PRESENT).astype("int8").astype(str)
    kept = frame[["path", "split", *[name for name in columns if name in frame]]]
    names = {name: (f"no {name.lower()}", name.lower()) for name in findings if name != LABEL}
    description = DatasetDescription(
        name=layout,
        image_size=224,
        resize=256,
        keep_aspect=True,
        classes=("finding", "no finding"),
        attributes=names,
        group_name="{label}, {attribute}",
    )
    whole = pd.concat([kept, present.rename(columns={LABEL: "y"})], axis=1)
    return AnnotatedTable(layout, whole, read_description(folder, description), default_attribute=attribute)


def _mimic_file(folder: Path, what: str) -> Path | None:
    return next(iter(sorted(folder.glob(f"mimic-cxr-*-{what}.csv*"))), None)


def _merged(frame: pd.DataFrame, file: Path, on: list[str], *columns: str) -> pd.DataFrame:
    """The rows that another table has, too, with these columns of it."""
    other = _cells(file, *on)
    if other.duplicated(on).any():
        raise UserError(f"{shown(file)} lists the same {on[-1]} twice: download it again")
    return frame.merge(other[[*on, *(name for name in columns if name in other)]], on=on)


def _cells(file: Path, *needed: str) -> pd.DataFrame:
    """A table, perhaps compressed, as text."""
    frame = read_frame(file, dtype=str, keep_default_na=False)
    if missing := [name for name in needed if name not in frame]:
        raise UserError(f"{shown(file)} has no column {', '.join(missing)}: download it again")
    return frame
