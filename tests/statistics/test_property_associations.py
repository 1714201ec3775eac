"""Which properties go with the label: against scikit-learn and SciPy, on planted properties, and on none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import normalized_mutual_info_score

import spurious_memorization as sm
from docs.figures.planted_properties import PLANTS, make_planted
from spurious_memorization.statistics.property_associations import permuted_information

codes = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 1)), min_size=2, max_size=60)


def all_training(y: np.ndarray, classes: int = 2) -> sm.Dataset:
    names = [f"class {c}" for c in range(classes)]
    return sm.from_tensors(
        torch.zeros(len(y), 1), y, np.arange(len(y)) % 2, ["train"] * len(y), classes=names, attributes=("a", "b")
    )


@given(codes)
@settings(max_examples=100, deadline=None)
def test_information_is_that_of_scikit_learn(rows: list[tuple[int, int, int]]) -> None:
    y, *properties = (np.array(column) for column in zip(*rows, strict=True))
    found = permuted_information(y, properties, 3, seed=0)
    assert found.shape == (4, 2)
    for value, of_property in zip(found[0], properties, strict=True):
        if len(set(y.tolist())) == 1 or len(set(of_property.tolist())) == 1:
            assert np.isnan(value)
        else:
            assert value == pytest.approx(normalized_mutual_info_score(y, of_property), abs=1e-9)


def test_p_is_that_of_all_permutations() -> None:
    y, property_ = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 1, 1, 2])

    def information(labels: np.ndarray) -> float:
        return float(normalized_mutual_info_score(labels, property_))

    exact = stats.permutation_test((y,), information, permutation_type="pairings", alternative="greater").pvalue
    frame = sm.property_associations(all_training(y), pd.DataFrame({"size": list("aabbbc")}), permutations=4000, seed=3)
    assert frame["p"].item() == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 4000))
    assert frame["p_adjusted"].item() == pytest.approx(frame["p"].item(), abs=1e-12)


def test_a_table_of_all_properties() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(300) % 3
    frame = pd.DataFrame(
        {
            "noise": rng.normal(size=300),
            "brightness": 0.5 + 0.1 * (y == 1) + 0.05 * rng.normal(size=300),
            "file_format": np.where((y == 2) & (rng.random(300) < 0.6), "PNG", "JPEG"),
            "rare": ((y == 0) & (rng.random(300) < 0.3)).astype(float),
            "width": 64.0,
        }
    )
    found = sm.property_associations(all_training(y, 3), frame).set_index("property")
    assert set(found.index[:3]) == {"brightness", "file_format", "rare"}
    assert list(found.index[3:]) == ["noise", "width"]
    assert found["goes_with_label"].tolist() == [True] * 3 + [False] * 2
    assert found["verdict"].tolist() == ["goes with the label"] * 3 + ["no evidence", "the same everywhere"]
    assert found.loc["width", ["nmi", "p", "p_adjusted"]].isna().all()
    assert found.loc["brightness", "p"] == 1 / 1000
    assert (found["p"].dropna() <= found["p_adjusted"].dropna() + 1e-12).all()
    assert found["p_adjusted"].dropna().is_monotonic_increasing
    medians = [np.median(frame["brightness"][rows]) for rows in (y == 1, y != 1)]
    assert found.loc["brightness", "difference"] == (
        f"class 1: brighter, median {medians[0]:.3g} against {medians[1]:.3g}"
    )
    shares = [100 * (frame["file_format"][rows] == "PNG").mean() for rows in (y == 2, y != 2)]
    assert found.loc["file_format", "difference"] == (
        f"class 2: file format PNG in {shares[0]:.0f} % against {shares[1]:.0f} %"
    )
    assert found.loc["rare", "difference"].startswith("class 0: rare high over 0.5 in ")
    assert found.loc["width", "difference"] == ""
    assert found["values"].to_dict() == {"brightness": 3, "file_format": 2, "rare": 2, "noise": 3, "width": 1}


def test_only_the_training_split_counts() -> None:
    rng = np.random.default_rng(1)
    y, split = np.arange(200) % 2, np.where(np.arange(200) < 100, "train", "test")
    data = sm.from_tensors(torch.zeros(200, 1), y, np.zeros(200, int), split, attributes=("a", "b"))
    frame = pd.DataFrame({"contrast": np.where(split == "test", y.astype(float), rng.normal(size=200))})
    found = sm.property_associations(data, frame)
    assert (found["n"].item(), found["goes_with_label"].item()) == (100, False)


def test_the_same_seed_gives_the_same(squares: Path) -> None:
    properties = sm.image_properties(squares)
    one, same, other = (sm.property_associations(squares, properties, permutations=99, seed=s) for s in (1, 1, 2))
    pd.testing.assert_frame_equal(one, same)
    assert not one["p"].equals(other["p"])
    assert one["nmi"].sort_values().tolist() == pytest.approx(other["nmi"].sort_values().tolist(), nan_ok=True)


@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_property_is_found(plant: str, tmp_path: Path) -> None:
    folder = make_planted(tmp_path / "data", plant, seed=5, train=120, correlation=0.9)
    found = sm.property_associations(folder, sm.image_properties(folder), permutations=199)
    assert PLANTS[plant].found_as & set(found.query("goes_with_label")["property"])
    assert found["goes_with_label"].iloc[0]


@pytest.mark.slow
def test_without_a_planted_property_little_is_found(tmp_path: Path) -> None:
    """A small version of docs/figures/properties.py: at level 0.05, six of 20 are found with p = 0.0003."""
    alarms = 0
    for seed in range(20):
        folder = make_planted(tmp_path / str(seed), None, seed=seed, train=40)
        found = sm.property_associations(folder, sm.image_properties(folder), permutations=99, seed=seed)
        alarms += bool(found["goes_with_label"].any())
    assert alarms < 6


@pytest.mark.slow
def test_the_level_is_kept_on_numbers_that_go_together() -> None:
    """Of 100 data sets with ten correlated random properties, about five give a false alarm (14 with p = 0.0005)."""
    alarms = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        numbers = rng.normal(size=(80, 10)) + rng.normal(size=(80, 1))
        frame = pd.DataFrame(numbers.round(1), columns=[f"number {n}" for n in range(10)])
        found = sm.property_associations(all_training(rng.integers(0, 2, 80)), frame, permutations=99, seed=seed)
        alarms += bool(found["goes_with_label"].any())
    assert 1 <= alarms < 14


@pytest.mark.parametrize(
    ("y", "permutations", "message"), [([0] * 6, 99, "the same label"), ([0, 1] * 3, 0, "too few: choose at least 19")]
)
def test_what_can_not_be_tested(y: list[int], permutations: int, message: str) -> None:
    with pytest.raises(sm.UserError, match=message):
        sm.property_associations(all_training(np.array(y)), pd.DataFrame({"x": range(6)}), permutations=permutations)


def test_no_property() -> None:
    assert sm.property_associations(all_training(np.arange(6) % 2), pd.DataFrame(index=range(6))).empty
