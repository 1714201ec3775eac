"""MultiNLI and CivilComments in their published layouts, made up."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import spurious_memorization as sm
from spurious_memorization.datasets.multinli import FILES, has_negation

PAIRS = {
    "train": [
        ("It rains.", "It's dry, no rain.", "contradiction"),
        ("A", "Nobody knows.", "neutral"),
        ("B", "I know.", "-"),
        ("C", "Yes.", "entailment"),
    ],
    "val": [("D", "Never, ever!", "contradiction"), ("E", "north", "neutral")],
    "test": [("F", "\u201cnothing\u201d", "entailment")],
}


@pytest.fixture
def multinli(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    for split, file in FILES.items():
        lines = [
            json.dumps({"sentence1": a, "sentence2": b, "gold_label": y, "pairID": "1n"}) for a, b, y in PAIRS[split]
        ]
        (tmp_path / "data" / file).write_text("\n".join(lines) + "\n")
    return tmp_path


def metadata(folder: Path, **changed: list[int]) -> None:
    columns = {
        "gold_label": [0, 2, 1, 0, 2, 1],
        "sentence2_has_negation": [1, 1, 0, 1, 0, 0],
        "split": [0, 1, 0, 0, 0, 2],
    }
    pd.DataFrame(columns | changed, index=[0, 1, 3, 4, 5, 6]).to_csv(folder / "data" / "metadata_random.csv")


def test_multinli_without_a_table_has_a_split_for_each_file(multinli: Path) -> None:
    data = sm.read_data(multinli)
    assert data.groups.classes == ("contradiction", "entailment", "neutral")
    assert data.groups.attributes == ("no negation", "negation")
    assert data.y.tolist() == [0, 2, 1, 0, 2, 1]
    assert data.a.tolist() == [1, 1, 0, 1, 0, 0]
    assert data.split.tolist() == ["train"] * 3 + ["val"] * 2 + ["test"]
    assert data.source.parts(0) == ("It rains.", "It's dry, no rain.")
    assert data.source.paths == ("0", "1", "3", "4", "5", "6")


def test_multinli_with_group_dros_table_has_its_random_split(multinli: Path) -> None:
    metadata(multinli)
    data = sm.read_data(multinli)
    assert data.split.tolist() == ["train", "val", "train", "train", "train", "test"]
    metadata(multinli, gold_label=[0, 2, 1, 0, 2, 0])
    with pytest.raises(sm.UserError, match="is of other files than those beside it"):
        sm.read_data(multinli)


def test_a_broken_line_of_multinli_is_named(multinli: Path) -> None:
    with (multinli / "data" / FILES["val"]).open("a") as file:
        file.write("{")
    with pytest.raises(sm.UserError, match=r"dev_matched\.jsonl, line 3 is no pair"):
        sm.read_data(multinli)
    (multinli / "data" / FILES["test"]).unlink()
    (multinli / "data" / FILES["val"]).write_text("")
    with pytest.raises(sm.UserError, match=r"dev_mismatched\.jsonl does not exist"):
        sm.read_data(multinli)


@pytest.mark.parametrize(
    ("sentence", "expected"), [("No.", True), ("notable", False), ("is not", False), ("a never", True)]
)
def test_negations_are_those_of_group_dro(sentence: str, expected: bool) -> None:
    assert has_negation(sentence) is expected


def test_civilcomments_counts_at_least_half_of_the_annotators(tmp_path: Path) -> None:
    toxicity, male, anyone = [0.0, 0.5, 0.49, 0.9], [0.0, 0.6, 0.5, 0.2], [0.1, 0.6, 0.5, np.nan]
    table = {
        "id": range(4),
        "comment_text": ["a", 'b, "c"', "NA", "two\nlines"],
        "split": ["train", "train", "val", "test"],
    }
    pd.DataFrame({**table, "toxicity": toxicity, "male": male, "identity_any": anyone, "odd": 1}).to_csv(
        tmp_path / "all_data_with_identities.csv"
    )
    data = sm.read_data(tmp_path)
    assert data.groups.names == (
        "non-toxic with no identity",
        "non-toxic with identity",
        "toxic with no identity",
        "toxic with identity",
    )
    assert data.y.tolist() == [0, 1, 0, 1]
    assert data.a.tolist() == [0, 1, 1, 0]
    assert data.source.texts == ("a", 'b, "c"', "NA", "two\nlines")
    assert sm.read_data(tmp_path, attribute="male").a.tolist() == [0, 1, 1, 0]
