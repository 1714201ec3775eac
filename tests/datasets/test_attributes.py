"""Several attribute columns at once: the combinations that occur, their names, and those that are too small."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from own_data import N, frame

from spurious_memorization.console import log_once
from spurious_memorization.datasets.attributes import Attribute, column_names, combined, merged
from spurious_memorization.datasets.check import check
from spurious_memorization.datasets.folder import read_attributes, read_data
from spurious_memorization.datasets.groups import group_counts
from spurious_memorization.datasets.samples import Dataset
from spurious_memorization.errors import UserError

NAMES = ("None", "NA", "no", "1", "1.5x", "a, b", "c; d", "e | f", "g|", "|| h", "sea", "wood", "light=day", "é")


def read(place: Path, table: pd.DataFrame, attribute: str | None = "a,light", **options: Any) -> Dataset:
    table.to_csv(place / "metadata.csv", index=False)
    return read_data(place, attribute=attribute, **options)


def three_columns() -> pd.DataFrame:
    """In each split, wood by day 4 times, sea by day 3 times, and sea at night once; rain for every fourth sample."""
    number = np.arange(N)
    return frame(light=np.where(number % 8 < 7, "day", "night"), rain=(number % 4 == 0).astype(int))


def test_the_attribute_is_the_combination_of_the_columns(tmp_path: Path) -> None:
    data = read(tmp_path, three_columns())
    assert data.groups.attributes == ("sea, day", "sea, night", "wood, day")  # wood at night never occurs
    assert data.groups.names[:2] == ("finch with sea, day", "finch with sea, night")
    table = three_columns()
    names = [data.groups.names[g] for g in data.g]
    assert names == [f"{y} with {a}, {light}" for y, a, light in table[["y", "a", "light"]].to_numpy()]


def test_the_order_is_that_of_the_columns(tmp_path: Path) -> None:
    data = read(tmp_path, three_columns(), "light, a")
    assert data.groups.attributes == ("day, sea", "day, wood", "night, sea")
    (tmp_path / "dataset.yaml").write_text(
        "attributes: {a: [wood, sea], light: [night, day]}\ngroup_name: '{label} on {attribute}'\n"
        "minority: [gull on sea, gull on wood]\n"
    )
    data = read(tmp_path, three_columns(), "light,a,rain")
    assert data.groups.names[0] == "finch on night, sea, rain=0"
    assert data.groups.attributes[-1] == "day, sea, rain=0"
    assert data.named_minority == ()  # they belong to another attribute
    assert read(tmp_path, three_columns(), "a").named_minority == (3, 2)


def test_a_column_name_may_contain_a_comma(tmp_path: Path) -> None:
    table = three_columns().rename(columns={"light": "time, of day"})
    assert read(tmp_path, table, "time, of day").groups.attributes == ("day", "night")
    assert read(tmp_path, table, '"time, of day",a').groups.attributes[0] == "day, sea"


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("a,shape", "no attribute column 'shape': the table has a, light, rain"),
        ("a,y", "no attribute column 'y'"),
        ("a,", "'a,' have an empty name"),
        (",", "have an empty name"),
        ("a,light,a", "'a' is given twice"),
        ('"a,light', "can't be read: write them as a,b"),
        ("", "no attribute column ''"),
    ],
)
def test_refused_columns(attribute: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as refusal:
        read(tmp_path, three_columns(), attribute)
    assert "\n" not in str(refusal.value)


def test_an_empty_cell_of_any_column_is_refused(tmp_path: Path) -> None:
    table = three_columns()
    table.loc[3, "light"] = None
    with pytest.raises(UserError, match=r"column 'light' has no value in metadata\.csv, line 5: fill it in"):
        read(tmp_path, table)
    assert read(tmp_path, table, "a,rain").groups.attributes[0] == "sea, rain=0"


def test_words_for_nothing_are_names(tmp_path: Path) -> None:
    number = np.arange(N)
    table = frame(rain=np.where(number % 3, "None", "heavy"), who=np.where(number % 2, "NA", "Smith, J."))
    data = read(tmp_path, table, "a,rain,who")
    assert data.groups.attributes[0] == "sea; rain=None; who=NA"
    assert "wood; rain=heavy; who=Smith, J." in data.groups.attributes
    assert len(data.groups.attributes) == 8


def test_equal_values_of_two_columns_are_told_apart(tmp_path: Path) -> None:
    table = frame(b=np.roll(frame()["a"].to_numpy(), 1))
    assert read(tmp_path, table, "a,b").groups.attributes[:2] == ("a=sea, b=sea", "a=sea, b=wood")


def test_an_empty_group_is_refused_where_it_is_asked_for(tmp_path: Path) -> None:
    data = read(tmp_path, three_columns())  # a finch is nowhere on the sea at night
    assert data.train_counts[data.groups.index("finch with sea, night")] == 0
    with pytest.raises(UserError, match="'finch with sea, night' has no samples in split 'train'"):
        data.train.of_group("finch with sea, night")


def test_a_split_is_made_within_the_combinations(tmp_path: Path) -> None:
    table = pd.concat([three_columns().drop(columns="split")] * 5, ignore_index=True)
    data = read(tmp_path, table, split_seed=3)
    for group, n in enumerate(group_counts(data.groups, data.g)):
        assert (data.split[data.g == group] == "test").sum() == round(n * 0.2)
    assert read(tmp_path, table, split_seed=3).fingerprint() == data.fingerprint()


attributes = st.lists(
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=6, unique=True), min_size=1, max_size=3
).flatmap(
    lambda names: st.tuples(
        st.just(names),
        st.lists(st.tuples(*(st.integers(0, len(of_one) - 1) for of_one in names)), min_size=1, max_size=30),
    )
)


@given(attributes)
def test_combinations_are_those_that_occur_in_order_with_different_names(
    drawn: tuple[list[list[str]], list[tuple[int, ...]]],
) -> None:
    names, rows = drawn
    codes = np.array(rows, dtype=np.int64)
    one = combined([Attribute(f"c{i}", tuple(n), codes[:, i]) for i, n in enumerate(names)])
    if len(names) == 1:
        assert one.values == tuple(names[0])
        return
    assert len(set(one.values)) == len(one.values) == len(set(rows))
    place = {row: i for i, row in enumerate(sorted(set(rows)))}
    assert one.codes.tolist() == [place[row] for row in rows]


@given(st.lists(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1), min_size=1, unique=True))
def test_quoted_names_are_read_as_they_are(names: list[str]) -> None:
    quoted = ",".join('"' + name.replace('"', '""') + '"' for name in names)
    assert column_names(quoted) == tuple(names)


# Values that are too small


def test_small_combinations_become_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log_once.cache_clear()
    table = three_columns()
    table.loc[N - 1, "light"] = "dusk"  # in test only
    data = read(tmp_path, table, min_group_size=2)
    assert data.groups.attributes == ("sea, day", "wood, day", "other combinations")
    assert data.merged == ("sea, dusk", "sea, night")
    assert data.train_counts.tolist() == [2, 2, 0, 1, 2, 1]
    said = capsys.readouterr().err
    assert "attribute a, light: 2 of 4 combinations have fewer than 2 training samples" in said
    assert "become 'other combinations', with 3 samples, 1 of them in train: sea, dusk (0); sea, night (1)" in said
    assert said.count("\n") == 1


def test_nothing_is_merged_by_default(tmp_path: Path) -> None:
    table = three_columns()
    table.loc[N - 1, "light"] = "dusk"
    data = read(tmp_path, table)
    assert data.merged == ()
    assert len(data.groups.attributes) == 4
    assert data.train_counts.sum() == 8


def test_small_values_of_one_column_become_one(tmp_path: Path) -> None:
    data = read(tmp_path, three_columns(), "light", min_group_size=2)
    assert data.groups.attributes == ("day", "other values")
    assert data.groups.names[-1] == "gull with other values"


def test_a_value_is_merged_for_all_labels_or_for_none(tmp_path: Path) -> None:
    """A small group of a frequent combination stays: that is what a minority is."""
    table = pd.concat([frame(light="day")] * 5, ignore_index=True)
    table.loc[(table["y"] == "gull") & (table["a"] == "wood") & (table.index >= N), "light"] = "night"
    data = read(tmp_path, table, min_group_size=5)
    assert data.merged == ()
    assert data.train_counts[data.groups.index("gull with wood, day")] == 2


def test_every_value_is_too_small(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"none of the combinations of a, light has 100 .* frequent one has 4\): choose a smaller"
    ):
        read(tmp_path, three_columns(), min_group_size=100)


def test_a_value_that_has_the_name_of_the_rest(tmp_path: Path) -> None:
    table = three_columns()
    table["light"] = table["light"].replace("day", "other values")
    with pytest.raises(UserError, match="a value of light is called 'other values': rename it"):
        read(tmp_path, table, "light", min_group_size=2)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4), st.integers(0, 4)), min_size=1), st.integers(1, 6))
def test_merging_counts_training_samples(rows: list[tuple[bool, int, int]], least: int) -> None:
    is_train, *codes = (np.array(column) for column in zip(*rows, strict=True))
    names = tuple("vwxyz")
    one = combined([Attribute("b", names, codes[0]), Attribute("c", names, codes[1])])
    of_train = pd.Series([one.values[code] for code in one.codes[is_train]], dtype=object).value_counts()
    small = [name for name in one.values if of_train.get(name, 0) < least]
    if least > 1 and len(small) == len(one.values):
        with pytest.raises(UserError, match="choose a smaller --min-group-size"):
            merged(one, is_train, least, "combinations")
        return
    after, left_out = merged(one, is_train, least, "combinations")
    assert left_out == (tuple(small) if least > 1 else ())
    for before, now in zip(one.codes, after.codes, strict=True):
        name = one.values[before]
        assert after.values[now] == ("other combinations" if name in left_out else name)


# Columns that are read when they are asked for, and the check


def test_columns_are_read_with_their_names(tmp_path: Path) -> None:
    (tmp_path / "dataset.yaml").write_text("attributes: {rain: [dry, wet]}\n")
    data = read(tmp_path, three_columns(), "a")
    light, rain = read_attributes(data, "light,rain")
    assert (light.name, light.values, rain.values) == ("light", ("day", "night"), ("dry", "wet"))
    assert rain.codes.tolist() == three_columns()["rain"].tolist()
    three_columns()[1:].to_csv(tmp_path / "metadata.csv", index=False)
    with pytest.raises(UserError, match="has changed since the data were read"):
        read_attributes(data, "light")


def test_check_counts_the_combinations(tmp_path: Path) -> None:
    three_columns().to_csv(tmp_path / "metadata.csv", index=False)
    report = check(tmp_path, "a,light", decode=False, duplicates=False, min_group_size=2)
    table = three_columns()
    train = table[table["split"] == "train"]
    assert report.attribute == "a,light"
    assert report.merged == ("sea, night",)
    for y, a in product(("finch", "gull"), ("sea", "wood")):
        name = report.groups.index(f"{y} with {a}, day")
        assert report.counts["train"][name] == ((train["y"] == y) & (train["a"] == a) & (train["light"] == "day")).sum()
