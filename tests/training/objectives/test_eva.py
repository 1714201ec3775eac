"""eva: distances, and the connections that are erased."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from tiny_training import settings

import spurious_memorization as sm
from spurious_memorization.training.heads import Features
from spurious_memorization.training.objectives.eva import class_distances, kept_connections


@pytest.mark.parametrize("distance", ["wasserstein", "mean"])
def test_distances_against_sorted_values(distance: str) -> None:
    rng = np.random.default_rng(1)
    y = np.arange(40) % 2
    train, other = rng.normal(size=(40, 3)) * [1, 5, 1], rng.normal(1, size=(40, 3))
    found = class_distances(Features(train, y, y), Features(other, y, y), 3, distance)
    for label in range(2):
        for feature in range(3):
            one, two = np.sort(train[y == label, feature]), np.sort(other[y == label, feature])
            gaps = one - two  # as many samples on both sides
            expected = np.abs(gaps).mean() if distance == "wasserstein" else abs(gaps.mean())
            assert found[label, feature] == pytest.approx(expected / train[:, feature].std())
    assert not found[2].any()


def test_the_least_consistent_connections_of_each_class_are_erased() -> None:
    distances = np.array([[3.0, 1, 2, 0], [0, 0, 5, 1]])
    assert kept_connections(distances, 0.5).tolist() == [[False, True, False, True], [True, True, False, False]]
    assert kept_connections(distances, 0.2).all()
    assert stats.rankdata(distances[0]).argmax() == 0


def test_erased_connections_stay_zero(squares: Path, trained: sm.Run, tmp_path: Path) -> None:
    text = "eva:shares=0.5,lrs=0.1,steps=20"
    run = sm.train(squares, tmp_path / "run", settings(text, start=f"{trained.path}@3"))
    before, after = run.state(0)["fc.weight"], run.state(1)["fc.weight"]
    assert (after == 0).sum(1).tolist() == [before.shape[1] // 2] * 2
    assert (before != 0).all()
