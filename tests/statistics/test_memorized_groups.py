"""Question 0: training and unseen accuracy of each group, with the interval of statsmodels."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.proportion import confint_proportions_2indep

import spurious_memorization as sm
from spurious_memorization.statistics.memorized_groups import difference_of_accuracies, memorized_groups


@settings(max_examples=80, deadline=None)
@given(n=st.tuples(st.integers(1, 500), st.integers(1, 500)), data=st.data())
def test_the_interval_is_that_of_statsmodels(n, data):
    k = [data.draw(st.integers(0, size)) for size in n]
    value, low, high = difference_of_accuracies(k[0], n[0], k[1], n[1])
    expected = confint_proportions_2indep(k[0], n[0], k[1], n[1], method="newcomb", compare="diff")
    assert (float(low), float(high)) == pytest.approx(expected, abs=1e-9)
    assert float(value) == pytest.approx(k[0] / n[0] - k[1] / n[1])
    assert low - 1e-12 <= value <= high + 1e-12


def test_without_samples_there_is_no_interval():
    for found in difference_of_accuracies([0, 5], [0, 5], [3, 0], [4, 0]):
        assert np.isnan(found).all()


def test_intervals_cover():
    """Two groups that are as accurate in training as elsewhere: in 2000 of each, at most about 0.025 are above 0."""
    rng = np.random.default_rng(0)
    for n, m, p in ((20, 60, 0.9), (50, 50, 0.5), (200, 30, 0.7)):
        _, low, _ = difference_of_accuracies(
            rng.binomial(n, p, 2000), np.full(2000, n), rng.binomial(m, p, 2000), np.full(2000, m)
        )
        assert (low > 0).mean() <= 0.04


Y, A = np.repeat([0, 0, 1, 1], [40, 8, 8, 40]), np.repeat([0, 1, 0, 1], [40, 8, 8, 40])
DATA = sm.from_tensors(
    torch.zeros(3 * 96, 1), np.tile(Y, 3), np.tile(A, 3), np.repeat(["train", "val", "test"], 96), classes=("no", "yes")
)


def counted(correct: dict[str, list[int]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"split": split, "group": g, "n": n, "correct_before": k}
            for split, right in correct.items()
            for g, (k, n) in enumerate(zip(right, (40, 8, 8, 40), strict=True))
        ]
    )


def test_a_group_is_memorized_where_its_training_accuracy_is_above():
    table = memorized_groups(DATA, counted({"train": [40, 8, 8, 40], "val": [40, 1, 6, 38], "test": [39, 2, 8, 20]}))
    assert table["group_name"].tolist() == ["no with 0", "no with 1", "yes with 0", "yes with 1"]
    assert table["minority"].tolist() == [False, True, True, False]
    assert table["n_train"].tolist() == [40, 8, 8, 40]
    assert table["n_unseen"].tolist() == [80, 16, 16, 80]  # val and test together
    assert table["unseen_accuracy"].tolist() == pytest.approx([79 / 80, 3 / 16, 14 / 16, 58 / 80])
    assert table["memorized"].tolist() == [False, True, False, True]
    for row, k in zip(table.itertuples(), (79, 3, 14, 58), strict=True):
        expected = confint_proportions_2indep(
            row.n_train, row.n_train, k, row.n_unseen, method="newcomb", compare="diff"
        )
        assert (row.low, row.high) == pytest.approx(expected)
        assert row.memorized == (expected[0] > 0)


def test_a_group_that_is_worse_in_training_is_not_memorized():
    table = memorized_groups(DATA, counted({"train": [4, 0, 0, 4], "test": [40, 8, 8, 40]}))
    assert (table["difference"] < 0).all()
    assert table["memorized"].tolist() == [False] * 4


def test_without_unseen_samples_nothing_is_told():
    table = memorized_groups(DATA, counted({"train": [40, 8, 8, 40]}))
    assert table["memorized"].tolist() == [None] * 4
    assert table[["unseen_accuracy", "difference", "low", "high"]].isna().all(axis=None)
    assert table["train_accuracy"].tolist() == [1.0] * 4
    some = memorized_groups(DATA, counted({"train": [40, 8, 8, 40], "test": [0, 0, 0, 0]}), groups=[2])
    assert some["group"].tolist() == [2]
    assert some["memorized"].tolist() == [True]


def test_the_same_of_a_study(studied: sm.Study, squares) -> None:
    """By hand from the outcomes of the unedited network."""
    data = sm.read_data(squares)
    table = studied.groups().set_index("group")
    right: dict[bool, dict[int, list[bool]]] = {True: {}, False: {}}
    for split in ("train", "test"):
        before = studied.outcomes(split).query("variant == -1")
        for i, predicted in zip(before["sample"], before["predicted"], strict=True):
            right[split == "train"].setdefault(int(data.g[i]), []).append(predicted == data.y[i])
    for g, row in table.iterrows():
        for is_train, name in ((True, "train"), (False, "unseen")):
            assert row[f"n_{name}"] == len(right[is_train][g])
            assert row[f"{name}_accuracy"] == pytest.approx(np.mean(right[is_train][g]))
        expected = confint_proportions_2indep(
            sum(right[True][g]),
            len(right[True][g]),
            sum(right[False][g]),
            len(right[False][g]),
            method="newcomb",
            compare="diff",
        )
        assert (row["low"], row["high"]) == pytest.approx(expected)
        assert row["memorized"] == (expected[0] > 0)
        assert not math.isnan(row["difference"])
