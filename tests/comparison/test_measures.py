"""Measures of a network's answers, against scikit-learn, torchmetrics, statsmodels and plain loops."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score, recall_score, roc_auc_score
from statsmodels.stats.proportion import proportion_confint
from torchmetrics.functional.classification import multiclass_calibration_error

from spurious_memorization.comparison.confidence import (
    auroc,
    calibration_errors,
    confidence_measures,
    selective_errors,
)
from spurious_memorization.comparison.measures import accuracies
from spurious_memorization.datasets.groups import Groups

QUICK = settings(max_examples=40, deadline=None)
GROUPS = Groups(("bird", "cat", "dog"), ("day", "night"))


def answers(seed: int, n: int, classes: int) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Probabilities, labels and groups of made-up samples."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, classes)) * 2 + 1.5 * np.eye(classes)[y]
    probabilities = torch.from_numpy(logits).softmax(1).numpy()
    return probabilities, y, 2 * y + rng.integers(0, 2, n)


def counts_of(right: NDArray[np.bool_], g: NDArray[np.int64]) -> pd.DataFrame:
    return pd.DataFrame({"group": g, "n": 1, "correct": right.astype(int)}).groupby("group", as_index=False).sum()


def measured(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["group"] < 0].set_index("measure")


@QUICK
@given(seed=st.integers(0, 10**6), n=st.integers(1, 200), classes=st.integers(2, 3))
def test_accuracies_of_classes_are_those_of_scikit_learn(seed: int, n: int, classes: int) -> None:
    probabilities, y, g = answers(seed, n, classes)
    predicted = probabilities.argmax(1)
    found = measured(accuracies(counts_of(predicted == y, g), GROUPS, np.ones(6, int)))
    present = np.unique(y)
    recalls = recall_score(y, predicted, labels=present, average=None, zero_division=0)
    assert found.loc["balanced_accuracy", "value"] == pytest.approx(recalls.mean())
    if len(present) > 1 and set(predicted) <= set(present):  # scikit-learn warns about other cases
        assert found.loc["balanced_accuracy", "value"] == pytest.approx(balanced_accuracy_score(y, predicted))
    assert found.loc["worst_class_accuracy", "value"] == pytest.approx(recalls.min())


@QUICK
@given(counts=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=6, max_size=6))
def test_proportions_have_wilson_intervals(counts: list[tuple[int, int]]) -> None:
    rows = pd.DataFrame([(g, a + b, a) for g, (a, b) in enumerate(counts)], columns=["group", "n", "correct"])
    found = accuracies(rows, GROUPS, np.ones(6, int))
    filled = rows[rows["n"] > 0]
    if filled.empty:
        assert found.empty
        return
    of_groups = found[found["measure"] == "group_accuracy"]
    assert list(of_groups["group"]) == list(filled["group"])
    for row, (correct, n) in zip(of_groups.itertuples(), zip(filled["correct"], filled["n"], strict=True), strict=True):
        assert (row.low, row.high) == pytest.approx(proportion_confint(correct, n, method="wilson"), abs=1e-9)
    average = measured(found).loc["average"]
    expected = proportion_confint(filled["correct"].sum(), filled["n"].sum(), method="wilson")
    assert (average["low"], average["high"]) == pytest.approx(expected, abs=1e-9)


def test_other_accuracies_have_the_interval_of_a_bootstrap_within_groups() -> None:
    """Against a bootstrap that draws samples, group by group."""
    rng = np.random.default_rng(0)
    sizes, rates = np.array([200, 30, 45, 120]), np.array([0.95, 0.5, 0.62, 0.9])
    right = [rng.random(n) < rate for n, rate in zip(sizes, rates, strict=True)]
    weights = np.array([900, 20, 30, 800])
    draws = []
    for _ in range(3000):
        drawn = [rng.choice(of_group, len(of_group)) for of_group in right]
        groups = np.array([of_group.mean() for of_group in drawn])
        classes = np.array([np.concatenate(drawn[:2]).mean(), np.concatenate(drawn[2:]).mean()])
        draws.append(
            {
                "average_train_weighted": groups @ weights / weights.sum(),
                "average_group_balanced": groups.mean(),
                "worst_group_accuracy": groups.min(),
                "balanced_accuracy": classes.mean(),
                "worst_class_accuracy": classes.min(),
            }
        )
    expected = pd.DataFrame(draws).quantile([0.025, 0.975])
    rows = pd.DataFrame({"group": range(4), "n": sizes, "correct": [of_group.sum() for of_group in right]})
    found = measured(accuracies(rows, Groups(("bird", "cat"), ("day", "night")), weights))
    for measure in expected:
        assert tuple(found.loc[measure, ["low", "high"]]) == pytest.approx(tuple(expected[measure]), abs=0.02)
        assert found.loc[measure, "low"] <= found.loc[measure, "value"] <= found.loc[measure, "high"]
    again = measured(accuracies(rows, Groups(("bird", "cat"), ("day", "night")), weights))
    pd.testing.assert_frame_equal(found, again)


@QUICK
@given(seed=st.integers(0, 10**6), n=st.integers(2, 200), classes=st.integers(2, 3))
def test_auroc_and_calibration_are_those_of_the_libraries(seed: int, n: int, classes: int) -> None:
    probabilities, y, g = answers(seed, n, classes)
    frame = confidence_measures(probabilities, y, g)
    found = measured(frame)["value"]
    if len(np.unique(y)) == classes:
        expected = roc_auc_score(y, probabilities[:, 1] if classes == 2 else probabilities, multi_class="ovr")
        assert found["auroc"] == pytest.approx(expected)

    def error(part: NDArray[np.bool_]) -> float:
        tensors = torch.from_numpy(probabilities[part]), torch.from_numpy(y[part])
        return float(multiclass_calibration_error(*tensors, classes, n_bins=15, norm="l1"))

    groups = {group: error(g == group) for group in np.unique(g)}
    assert found["calibration_error"] == pytest.approx(error(np.full(n, True)), abs=1e-5)
    of_groups = frame[frame["measure"] == "group_calibration_error"].set_index("group")["value"]
    assert of_groups.to_dict() == pytest.approx(groups, abs=1e-5)
    assert found["worst_group_calibration_error"] == pytest.approx(max(groups.values()), abs=1e-5)
    assert frame[["low", "high"]].isna().all(axis=None)


def test_auroc_with_a_class_that_has_no_samples() -> None:
    probabilities, y, _ = answers(0, 50, 3)
    two = y < 2
    expected = np.mean([roc_auc_score(y[two] == c, probabilities[two, c]) for c in (0, 1)])
    assert auroc(probabilities[two], y[two]) == pytest.approx(expected)
    assert math.isnan(auroc(probabilities[y == 1], y[y == 1]))


def test_certain_answers_belong_to_the_last_bin() -> None:
    right = np.array([True, False])
    assert calibration_errors(np.array([1.0, 0.96]), right, np.zeros(2, int))[0] == pytest.approx((1.96 - 1) / 2)


@QUICK
@given(seed=st.integers(0, 10**6), n=st.integers(1, 100))
def test_selective_errors_are_those_of_the_sorted_samples(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    confidence, right, g = rng.permutation(n) / n, rng.random(n) < 0.7, rng.integers(0, 3, n)
    _, part = np.unique(g, return_inverse=True)
    kept = np.argsort(-confidence)[: math.ceil(round(0.8 * n, 6))]
    found = selective_errors(confidence, right, part)
    for number in range(part.max() + 1):
        wrong = ~right[kept][part[kept] == number]
        assert found[number] == pytest.approx(wrong.mean() if len(wrong) else np.nan, nan_ok=True)


def test_equally_confident_samples_count_in_part() -> None:
    """Networks that are sure of nearly everything: whichever order the samples have, the error is the same."""
    confidence, right = np.array([1.0] * 9 + [0.5]), np.array([True] * 6 + [False] * 3 + [True])
    assert selective_errors(confidence, right, np.zeros(10, int)) == pytest.approx([3 / 9])
    order = np.random.default_rng(0).permutation(10)
    assert selective_errors(confidence[order], right[order], np.zeros(10, int)) == pytest.approx([3 / 9])
