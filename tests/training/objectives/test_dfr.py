"""dfr against plain scikit-learn, and as a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from sklearn.linear_model import LogisticRegression
from tiny_training import settings, without_group

import spurious_memorization as sm
from spurious_memorization.training.heads import Features
from spurious_memorization.training.objectives.dfr import DfrSettings, fit_head

Capture = pytest.CaptureFixture[str]


def test_dfr_against_plain_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    y, a = np.repeat([0, 1], 60), np.concatenate([np.arange(60) % 5 == 0, np.arange(60) % 3 > 0]).astype(int)
    g = 2 * y + a
    features = rng.normal(size=(120, 6)) * [1, 5, 1, 1, 0.1, 1] + np.stack([y, 3 * a, y, a, 0 * y, 0 * y], axis=1)
    some = Features(features[::2], y[::2], g[::2])
    head, _ = fit_head(Features(features, y, g), some, DfrSettings(draws=4, strengths=(0.2,)), seed=5)
    standard = (features - features.mean(0)) / features.std(0)
    smallest, draws = np.bincount(g).min(), np.random.default_rng([5, 0xDF12])
    coefficients, intercepts = [], []
    for _ in range(4):
        drawn = np.concatenate([draws.permutation(np.flatnonzero(g == k))[:smallest] for k in range(4)])
        fit = LogisticRegression(l1_ratio=1, C=0.2, solver="liblinear", random_state=0, max_iter=1000)
        fit.fit(standard[drawn], y[drawn])
        coefficients.append(fit.coef_[0])
        intercepts.append(fit.intercept_[0])
    expected = standard @ np.mean(coefficients, axis=0) + np.mean(intercepts)
    found = features @ head.weight.T + head.bias
    np.testing.assert_allclose(found[:, 1] - found[:, 0], expected, rtol=1e-6, atol=1e-8)
    assert (np.mean(coefficients, axis=0) == 0).any() or np.abs(coefficients).max() > 0


def test_dfr_takes_the_strength_that_the_selecting_samples_prefer() -> None:
    rng = np.random.default_rng(2)
    y, a = np.arange(80) % 2, np.arange(80) // 2 % 2
    features = np.stack([y + 0.1 * rng.normal(size=80), rng.normal(size=80)], axis=1)
    g = 2 * y + a
    samples = Features(features, y, g)
    heads = {s: fit_head(samples, samples, DfrSettings(strengths=(s,)))[0] for s in (1e-6, 1.0)}
    assert not heads[1e-6].weight.any()  # the penalty leaves nothing
    assert fit_head(samples, samples, DfrSettings(strengths=(1e-6, 1.0)))[1] == 1.0


def test_of_equally_good_strengths_dfr_takes_the_weakest_penalty() -> None:
    y = np.arange(80) % 2
    samples = Features(np.stack([10.0 * y, np.zeros(80)], axis=1), y, y)
    assert fit_head(samples, samples, DfrSettings(strengths=(0.3, 1.0, 0.7)))[1] == 1.0


def test_dfr_as_a_run(squares: Path, tmp_path: Path, trained: sm.Run, data: sm.Dataset) -> None:
    run = sm.train(squares, tmp_path / "run", settings("dfr", **{"from": f"{trained.path}@3"}))
    assert run.epochs() == [0, 1]
    before, after = run.state(0), run.state(1)
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"fc.weight", "fc.bias"}
    fitting, _ = sm.val_halves(data)
    assert run.record.training_cost is not None
    assert run.record.training_cost.sample_passes == len(fitting)
    files = {name: (run.path / name).stat().st_mtime_ns for name in tiny.files_below(run.path)}
    again = sm.train(squares, run.path, settings("dfr", **{"from": f"{trained.path}@3"}), resume=True)
    assert files == {name: (again.path / name).stat().st_mtime_ns for name in tiny.files_below(run.path)}


def test_dfr_with_three_classes(tmp_path: Path) -> None:
    folder = tiny.make_images(tmp_path / "three", classes=3, train=10)
    erm = sm.train(folder, tmp_path / "erm", settings("erm", epochs=1))
    run = sm.train(folder, tmp_path / "run", settings("dfr:draws=2", **{"from": str(erm.path)}))
    assert run.state(1)["fc.weight"].shape == (3, 12)


def test_dfr_needs_val_and_every_group_in_it(squares: Path, trained: sm.Run, tmp_path: Path, capsys: Capture) -> None:
    table = pd.read_csv(squares / "metadata.csv")
    folder = without_group(squares, tmp_path / "data", "val")
    flags = ("--model", tiny.NETWORK, "--objective", "dfr", "--from", trained.path, "--out", tmp_path / "run")
    error = tiny.spurmem(capsys, "train", folder, *flags).error
    assert "group 'class 1 with color 1' has no sample among those that dfr fits on" in error
    table[table["split"] != "val"].to_csv(folder / "metadata.csv", index=False)
    assert "has no val split" in tiny.spurmem(capsys, "train", folder, *flags).error
    assert not (tmp_path / "run").exists()
