"""MultiNLI: pairs of sentences; the attribute is a negation in the second one."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import pandas as pd

from ..console import log_once
from ..errors import UserError
from ..input_files import regular_file, shown
from .tables import AnnotatedTable, DatasetDescription, read_description, read_frame

FILES = {
    "train": "multinli_1.0_train.jsonl",
    "val": "multinli_1.0_dev_matched.jsonl",
    "test": "multinli_1.0_dev_mismatched.jsonl",
}
"""The files of MultiNLI, and the split of each."""

RANDOM_SPLIT = "metadata_random.csv"
"""The table of group DRO: split and attribute of each pair, by its number in these files, one after the other."""

LABELS = ("contradiction", "entailment", "neutral")
NEGATIONS = ("nobody", "no", "never", "nothing")
VALUES = ("no negation", "negation")
_NO_LABEL = "-"


def read_table(folder: Path) -> AnnotatedTable | None:
    """Read MultiNLI (Williams et al. 2018) from its own files, in the folder or in `data`.

    The attribute is whether one of the words nobody, no, never and nothing is in the second sentence, as in Sagawa et
    al. (2020). With their `metadata_random.csv`, splits and attributes are read from it. Without it, the splits are
    those of the files: train, matched (val) and mismatched (test). Pairs without a label are left out.

    Returns:
        The table. None if the folder has other files.

    Raises:
        UserError: a file is missing or can't be read, or the table is of other files.
    """
    place = next((place for place in (folder, folder / "data") if (place / FILES["train"]).exists()), None)
    if place is None:
        return None
    pairs = [{**pair, "split": split} for split, file in FILES.items() for pair in _read_pairs(place / file)]
    frame = pd.DataFrame(pairs, dtype=object)
    frame["path"] = [str(number) for number in frame.index]
    frame = frame[frame["y"] != _NO_LABEL]
    metadata = place / RANDOM_SPLIT
    if metadata.exists():
        frame = _with_metadata(frame, metadata)
    source = f"splits of {RANDOM_SPLIT}" if metadata.exists() else "a split for each of its files"
    log_once(f"{shown(folder)}: MultiNLI, with {source}")
    default = DatasetDescription(name="multinli", classes=LABELS, attributes={"a": VALUES})
    return AnnotatedTable(
        "multinli", frame.reset_index(drop=True), read_description(folder, default), texts=("text", "text_pair")
    )


def has_negation(sentence: str) -> bool:
    """Whether one of `NEGATIONS` is among the words of a sentence, which are cut as group DRO cuts them."""
    words = sentence.translate(str.maketrans("", "", string.punctuation)).lower().split(" ")
    return not set(NEGATIONS).isdisjoint(words)


def _read_pairs(file: Path) -> list[dict[str, str]]:
    pairs: list[dict[str, str]] = []
    try:
        with regular_file(file).open(encoding="utf-8") as lines:
            for line in lines:
                pair: dict[str, Any] = json.loads(line)
                first, second, label = (str(pair[name]) for name in ("sentence1", "sentence2", "gold_label"))
                pairs.append({"text": first, "text_pair": second, "y": label, "a": VALUES[has_negation(second)]})
    except OSError as error:
        raise UserError(f"{shown(file)} can't be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{shown(file)}, line {len(pairs) + 1} is no pair of MultiNLI: copy the file again") from error
    return pairs


def _with_metadata(frame: pd.DataFrame, file: Path) -> pd.DataFrame:
    """The pairs with the splits and the attributes of a table of group DRO."""
    table = read_frame(file, index_col=0)
    columns = ("gold_label", "sentence2_has_negation", "split")
    if missing := [name for name in columns if name not in table]:
        raise UserError(f"{shown(file)} has no column {missing[0]!r}: it needs {', '.join(columns)}")
    codes = frame["y"].map({name: code for code, name in enumerate(LABELS)})
    if not table.index.equals(frame.index) or (codes != table["gold_label"]).any():
        raise UserError(f"{shown(file)} is of other files than those beside it: its numbers or labels differ")
    negated = table["sentence2_has_negation"].map(dict(enumerate(VALUES)))
    return frame.assign(a=negated, split=table["split"].astype(str))
