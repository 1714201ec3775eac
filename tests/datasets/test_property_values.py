"""Numbers as low, mid and high: cut at the thirds of the training split, and equal numbers stay together."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import spurious_memorization as sm
from spurious_memorization.datasets.property_values import number_text, property_values, quantile_cuts


def data_of(n: int, n_train: int) -> sm.Dataset:
    split = np.where(np.arange(n) < n_train, "train", "test")
    return sm.from_tensors(torch.zeros(n, 1), np.arange(n) % 2, np.zeros(n, int), split, attributes=("a", "b"))


@given(st.lists(st.floats(-1e6, 1e6).map(lambda number: round(number, 6)), min_size=3, max_size=90, unique=True))
@settings(max_examples=60, deadline=None)
def test_different_numbers_are_cut_as_by_pandas(numbers: list[float]) -> None:
    numbers = numbers[: len(numbers) // 3 * 3]
    values = np.array(numbers)
    cuts = quantile_cuts(values)
    np.testing.assert_array_equal(np.searchsorted(cuts, values, "right"), pd.qcut(values, 3, labels=False))


@given(st.lists(st.integers(0, 6), min_size=1, max_size=60))
@settings(max_examples=100, deadline=None)
def test_equal_numbers_stay_together(numbers: list[int]) -> None:
    values = np.array(numbers, float)
    cuts = quantile_cuts(values)
    different = len(set(numbers))
    assert min(different, 2) <= len(cuts) + 1 <= min(different, 3)
    assert (np.diff(cuts) > 0).all()
    assert not np.isin(cuts, values).any()
    codes = np.searchsorted(cuts, values, "right")
    assert set(codes.tolist()) == set(range(len(cuts) + 1))


@pytest.mark.parametrize(
    ("numbers", "bins"),
    [([64] * 90 + [96] * 10, 2), ([64] * 10 + [96] * 90, 2), ([1, 2, 3] * 5, 3), ([7] * 4, 1), ([0] * 9 + [1, 2], 2)],
)
def test_most_numbers_are_equal(numbers: list[int], bins: int) -> None:
    assert len(quantile_cuts(np.array(numbers, float))) == bins - 1


def test_training_samples_decide_where_to_cut() -> None:
    data = data_of(9, 6)
    frame = pd.DataFrame({"size": [1, 2, 3, 4, 5, 6, -50, 3.4, 900], "format": list("abbaabbac"), "same": 1.0})
    found = property_values(data, frame)
    assert list(found["size"].of_samples()) == ["low", "low", "mid", "mid", "high", "high", "low", "mid", "high"]
    assert found["size"].ranges() == ("under 2.5", "2.5 to 4.5", "over 4.5")
    assert list(found["format"].of_samples()) == list("abbaabbac")
    assert found["format"].ranges() == ("", "", "")
    assert (found["same"].names, found["same"].ranges()) == (("all",), ("",))


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame({"size": [1.0, 2.0]}), "2 rows, but the data have 3 samples"),
        (pd.DataFrame({"size": [1.0, np.nan, 2.0]}), "'size' of sample 1 is missing"),
        (pd.DataFrame({"size": [1.0, 2.0, np.inf]}), "'size' of sample 2 is missing or not finite"),
        (pd.DataFrame({"format": [None, "a", "b"]}), "'format' of sample 0 is missing"),
    ],
)
def test_missing_values_are_named(frame: pd.DataFrame, message: str) -> None:
    with pytest.raises(sm.UserError, match=message):
        property_values(data_of(3, 2), frame)


@pytest.mark.parametrize(
    ("value", "text"), [(0.61234, "0.612"), (12345.6, "12,346"), (0.0, "0"), (-0.004391, "-0.00439")]
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert number_text(value) == text
