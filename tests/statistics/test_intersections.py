"""Groups by several attributes at once: counts as pandas groups them, lift, intervals, order, and clear refusals."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

import spurious_memorization as sm

SPLITS = ("train", "val", "test")
SIZES = {"place": 3, "light": 2, "season": 4}


def data_of(table: pd.DataFrame) -> sm.Dataset:
    """A data set with these labels and splits, and an attribute that nothing depends on."""
    x = torch.zeros(len(table), 1)
    return sm.from_tensors(x, table["y"], np.zeros(len(table)), table["split"], classes=["ant", "bee", "cat"])


def columns_of(table: pd.DataFrame) -> dict[str, Any]:
    return {name: table[name].to_numpy() for name in SIZES if name in table}


def value(name: str, number: int) -> str:
    return f"{name} {number}"


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    """Up to 40 samples of 3 labels x 3 x 2 x 4 values: most cells are empty or tiny. The test split has a sample."""
    names = list(SIZES)[: draw(st.integers(1, 3))]
    row = st.tuples(
        st.integers(0, 2),
        st.sampled_from(SPLITS),
        st.booleans(),
        *(st.sampled_from([value(name, i) for i in range(SIZES[name])]) for name in names),
    )
    rows = draw(st.lists(row, max_size=40))
    last = draw(row)
    return pd.DataFrame([*rows, (last[0], "test", *last[2:])], columns=["y", "split", "correct", *names])


@pytest.mark.slow
@given(tables(), st.integers(1, 4))
def test_counts_are_those_of_pandas(table: pd.DataFrame, least: int) -> None:
    test = table[table["split"] == "test"]
    found = sm.intersections(data_of(table), columns_of(table), test["correct"].to_numpy(), min_group_size=least)
    rows = {}
    columns = [name for name in SIZES if name in table]
    train = table[table["split"] == "train"]
    for size in range(1, len(columns) + 1):
        for subset in map(list, combinations(columns, size)):
            there = test.groupby(["y", *subset])["correct"].agg(["size", "sum"])
            n_train = train.groupby(["y", *subset]).size()
            of_values = train.groupby(subset).size()
            for key in table.groupby(["y", *subset]).groups:
                y, *values = key
                group = f"{('ant', 'bee', 'cat')[y]} with {', '.join(values)}"
                with_values = of_values.get(tuple(values) if size > 1 else values[0], 0)
                expected = (train["y"] == y).sum() * with_values / max(len(train), 1)
                counted = there.loc[key].tolist() if key in there.index else [0, 0]
                lift = n_train.get(key, 0) / expected if expected else None
                rows[", ".join(subset), group] = (size, *counted, n_train.get(key, 0), lift)
    got = found.astype(object).where(found.notna(), None).to_dict(orient="records")
    assert {(row["attributes"], row["group"]) for row in got} == rows.keys()
    assert len(got) == len(rows)
    for row in got:
        size, n, correct, n_train, lift = rows[row["attributes"], row["group"]]
        assert (row["n_combined"], row["n"], row["correct"], row["n_train"]) == (size, n, correct, n_train)
        assert row["lift"] is lift or row["lift"] == pytest.approx(lift)
        assert row["group"] == f"{row['label']} with {row['value']}"
        assert row["ranked"] == (n >= least)
        assert row["accuracy"] == (correct / n if n else None)


@pytest.mark.slow
@given(tables(), st.integers(1, 4))
def test_order_and_intervals(table: pd.DataFrame, least: int) -> None:
    correct = table.loc[table["split"] == "test", "correct"]
    found = sm.intersections(data_of(table), columns_of(table), correct, min_group_size=least)
    ranked = found[found["ranked"]]
    assert found["ranked"].is_monotonic_decreasing
    assert ranked["accuracy"].is_monotonic_increasing
    assert ranked.groupby("accuracy")["n"].apply(lambda n: n.is_monotonic_decreasing).all()
    low, high = proportion_confint(ranked["correct"], ranked["n"], 0.05 / max(len(ranked), 1), "wilson")
    np.testing.assert_allclose(ranked["low"], low, atol=1e-9)
    np.testing.assert_allclose(ranked["high"], high, atol=1e-9)
    assert found.loc[~found["ranked"], ["low", "high"]].isna().all(axis=None)


@pytest.mark.slow
@given(tables())
def test_each_choice_of_attributes_counts_every_sample_once(table: pd.DataFrame) -> None:
    found = sm.intersections(data_of(table), columns_of(table))
    sums = found.groupby("attributes")[["n", "n_train"]].sum()
    assert (sums["n"] == (table["split"] == "test").sum()).all()
    assert (sums["n_train"] == (table["split"] == "train").sum()).all()
    assert len(sums) == sum(comb(len(columns_of(table)), size) for size in (1, 2, 3))
    assert "accuracy" not in found


def test_the_lift_of_one_attribute_is_that_of_the_data_set() -> None:
    rng = np.random.default_rng(0)
    y, a = rng.integers(0, 3, 200), rng.integers(0, 4, 200)
    split = rng.choice(["train", "test"], 200)
    data = sm.from_tensors(torch.zeros(200, 1), y, a, split)
    found = sm.intersections(data, {"a": a}).set_index("group")
    for name, lift, n in zip(data.groups.names, data.lift, data.train_counts, strict=True):
        assert found.loc[name, "lift"] == pytest.approx(lift)
        assert found.loc[name, "n_train"] == n
    lifts = found["lift"].to_numpy()
    assert (np.diff(lifts[found["ranked"]]) >= 0).all()  # without accuracies, the lowest lift comes first


def test_a_weak_intersection_comes_first_though_each_of_its_attributes_is_fine() -> None:
    """1000 samples: light and place don't matter alone, but a cat at night on water is never recognized."""
    number = np.arange(1000)
    y, light, place = number % 2, number // 2 % 5 == 0, number // 10 % 5 == 0
    correct = ~((y == 1) & light & place)
    data = sm.from_tensors(torch.zeros(1000, 1), y, light.astype(int), "test", classes=["dog", "cat"])
    named = {"light": np.where(light, "night", "day"), "place": np.where(place, "water", "land")}
    found = sm.intersections(data, named, correct)
    first = found.iloc[0]
    assert (first["group"], first["n"], first["correct"]) == ("cat with night, water", 20, 0)
    assert first["high"] < 0.5 < found.iloc[1]["low"]
    assert found.iloc[1]["n_combined"] == 1


def test_tensors_lists_series_and_frames_are_read_alike() -> None:
    y, light = [0, 1] * 6, ["day", "night", "day"] * 4
    data = sm.from_tensors(torch.zeros(12, 1), y, np.zeros(12), "test")
    place = torch.arange(12) % 3
    right = [True, False, True] * 4
    wanted = sm.intersections(data, {"light": light, "place": place}, right, min_group_size=1)
    assert "0 with day, place=0" in set(wanted["group"])
    frame = pd.DataFrame({"light": light, "place": place.numpy().astype(float)}, index=range(5, 17))
    for attributes in (frame, {"light": pd.Series(light), "place": place.tolist()}):
        for correct in (np.array(right), torch.tensor(right), torch.tensor(right).int(), pd.Series(right)):
            found = sm.intersections(data, attributes, correct, min_group_size=1)
            pd.testing.assert_frame_equal(found, wanted)


DATA = sm.from_tensors(torch.zeros(4, 1), [0, 1, 0, 1], [0, 0, 1, 1], "test")
LIGHT = {"light": ["day", "night"] * 2}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sm.intersections(DATA, "light"), "a data set of tensors has no table"),
        (lambda: sm.intersections(DATA, {}), "no attribute is given"),
        (lambda: sm.intersections(DATA, {"light": ["day"]}), "'light' needs one value for each of the 4 samples"),
        (lambda: sm.intersections(DATA, {"x": torch.zeros(4, 2)}), "'x' needs one value for each"),
        (lambda: sm.intersections(DATA, {"x": [0, 1, None, 1]}), "column 'x' has no value in sample 2"),
        (lambda: sm.intersections(DATA, {"x": [0, 1, float("nan"), 1]}), "column 'x' has no value in sample 2"),
        (lambda: sm.intersections(DATA, {"x": [0, 1, 0.5, 1]}), r"column 'x' contains 0\.5"),
        (lambda: sm.intersections(DATA, LIGHT, [1, 0]), "one truth value for each of the 4 samples in test"),
        (lambda: sm.intersections(DATA, LIGHT, [1, 0, 2, 1]), "one truth value for each of the 4 samples in test"),
        (lambda: sm.intersections(DATA, LIGHT, ["a"] * 4), "one truth value"),
        (lambda: sm.intersections(DATA, LIGHT, [[1], [1, 2], [0], [0]]), "one truth value"),
        (lambda: sm.intersections(DATA, LIGHT, split="train"), "no samples in split 'train'"),
        (lambda: sm.intersections(DATA.test, LIGHT), "are the samples of one split"),
        (
            lambda: sm.intersections(DATA, {str(i): [0, 1] * 2 for i in range(60)}),
            "60 attributes can be combined in 36,050 ways, more than the 20,000 allowed",
        ),
    ],
)
def test_refusals_are_one_line(call: Callable[[], object], message: str) -> None:
    with pytest.raises(sm.UserError, match=message) as refusal:
        call()
    assert "\n" not in str(refusal.value)


def test_columns_of_a_table_are_read_when_asked_for(squares: Path, tmp_path: Path) -> None:
    table = pd.read_csv(squares / "metadata.csv")
    table["light"] = np.where(np.arange(len(table)) % 3, "day", "night")
    table["wet, or not"] = np.arange(len(table)) % 2
    table.to_csv(tmp_path / "metadata.csv", index=False)
    data = sm.read_data(tmp_path, attribute="a")
    found = sm.intersections(data, '"wet, or not",light', split="train", min_group_size=1)
    train = table[table["split"] == "train"]
    wanted = train.groupby(["y", "wet, or not", "light"]).size()
    for (y, wet, light), n in wanted.items():
        row = found[found["group"] == f"{y} with wet, or not={wet}; {light}"]
        assert row["n"].tolist() == row["n_train"].tolist() == [n]


def test_many_labels_and_values_need_little_memory() -> None:
    """5,000 labels x 5,000 values x 5,000 others, one sample each: only groups that exist are counted."""
    number = np.arange(5000)
    data = sm.from_tensors(torch.zeros(5000, 1), number, np.zeros(5000), "test")
    found = sm.intersections(data, {"one": number, "two": number[::-1].copy()})
    assert len(found) == 15_000
    assert (found["n"] == 1).all()
