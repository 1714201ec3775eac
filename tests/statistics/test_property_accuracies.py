"""A network's accuracy along each property: exact counts, and the value where it is worst."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.proportion import proportion_confint

import spurious_memorization as sm


@pytest.fixture(scope="module")
def measured(trained: sm.Run) -> tuple[pd.DataFrame, np.ndarray]:
    """The accuracies on the training split after three epochs, and which samples are right."""
    data = trained.read_data()
    frame = pd.DataFrame({"number": np.arange(len(data)) % 7, "color": np.array(["red", "green"])[data.a]})
    is_right = trained.predictions(3, "train").to_numpy().argmax(1) == data.train.y
    return sm.property_accuracies(trained, frame, split="train", epoch=3), is_right


def test_the_counts_are_those_of_the_groups(trained: sm.Run, measured: tuple[pd.DataFrame, np.ndarray]) -> None:
    data, (found, is_right) = trained.read_data(), measured
    of_color = found[found["property"] == "color"].set_index(["label", "value"])
    for y, label in enumerate(data.groups.classes):
        for a, value in enumerate(("red", "green")):
            where = (data.train.y == y) & (data.a[data.train.index] == a)
            row = of_color.loc[(label, value)]
            assert (row["n"], row["correct"]) == (where.sum(), is_right[where].sum())
            rest = (data.train.y == y) & ~where
            assert row["rest_accuracy"] == pytest.approx(is_right[rest].mean())
    assert found.groupby("property")["n"].sum().tolist() == [len(data.train)] * 2


def test_the_interval_is_wilsons(measured: tuple[pd.DataFrame, np.ndarray]) -> None:
    found, _ = measured
    low, high = proportion_confint(found["correct"], found["n"], method="wilson")
    np.testing.assert_allclose(found[["low", "high"]].to_numpy(), np.stack([low, high], 1), atol=1e-12)


def test_the_worst_ends_lowest(measured: tuple[pd.DataFrame, np.ndarray]) -> None:
    found, _ = measured
    for _, part in found.groupby("property"):
        assert part["worst"].sum() == 1
        assert part.loc[part["worst"], "high"].item() == part["high"].min()


def test_ranges_are_in_words(measured: tuple[pd.DataFrame, np.ndarray]) -> None:
    found, _ = measured
    ranges = found[found["property"] == "number"].groupby("value")["range"].first()
    assert ranges["low"].startswith("under ")
    assert ranges["high"].startswith("over ")
    assert (found.loc[found["property"] == "color", "range"] == "").all()


def test_a_missing_epoch_is_named(trained: sm.Run) -> None:
    with pytest.raises(sm.UserError, match="no checkpoint of epoch 77"):
        sm.property_accuracies(trained, sm.image_properties(trained.read_data()), epoch=77)
