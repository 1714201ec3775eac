"""neuron-tune: which features are biased, and what becomes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tiny_training import settings

import spurious_memorization as sm
from spurious_memorization.training.heads import Features, Head
from spurious_memorization.training.objectives.neuron_tune import biased_features


def test_biased_features_against_medians_by_pandas() -> None:
    rng = np.random.default_rng(2)
    values, y = rng.gamma(2, size=(60, 9)), rng.integers(0, 3, 60)
    head = Head(rng.normal(size=(3, 9)), rng.normal(size=3))
    right = (values @ head.weight.T + head.bias).argmax(1) == y
    medians = pd.DataFrame(values).groupby([y, right]).median()
    differences = medians.xs(False, level=1) - medians.xs(True, level=1)
    for threshold in (0.6, 1.0):
        expected = (differences > threshold).any().to_numpy()
        np.testing.assert_array_equal(biased_features(Features(values, y, y), head, threshold), expected)
        assert 0 < expected.sum() < 9


def test_biased_features_have_no_weight(squares: Path, trained: sm.Run, tmp_path: Path) -> None:
    run = sm.train(
        squares, tmp_path / "run", settings("neuron-tune:lrs=0.01,steps=50,threshold=0.05", start=f"{trained.path}@3")
    )
    before, after = run.state(0), run.state(1)
    erased = (after["fc.weight"] == 0).all(0)
    assert 0 < int(erased.sum()) < len(erased)
    assert not torch.equal(before["fc.bias"], after["fc.bias"])
    assert {name for name, value in after.items() if not torch.equal(value, before[name])} == {"fc.weight", "fc.bias"}
