"""The check of groups: thresholds against exact fractions, intervals against statsmodels, bands against SciPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import made_runs
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from narrow_terminal import check_every_number_is_printed
from scipy.stats import binom
from statsmodels.stats.proportion import proportion_confint

import spurious_memorization as sm
from spurious_memorization.comparison.group_check import checks_of
from spurious_memorization.reporting.tables.check_tables import check_notes, check_tables

QUICK = settings(max_examples=80, deadline=None)

Counts = Sequence[tuple[int, int]]

COUNTS = st.lists(
    st.integers(0, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))), min_size=1, max_size=6
).filter(lambda counts: sum(n for n, _ in counts) > 0)
LIMIT = st.none() | st.integers(0, 100)


def frame(counts: Counts, run: str = "a") -> pd.DataFrame:
    """One row per group from pairs (n, correct)."""
    groups = range(len(counts))
    names = [f"group {g}" for g in groups]
    rows = pd.DataFrame(counts, columns=["n", "correct"])
    return rows.assign(run=run, epoch=1, group=groups, group_name=names, minority=False)


@pytest.mark.slow
@QUICK
@given(
    runs=st.lists(COUNTS, min_size=1, max_size=3),
    limits=st.tuples(LIMIT, LIMIT).filter(lambda both: both != (None, None)),
    confident=st.booleans(),
    min_samples=st.integers(1, 20),
)
def test_checks_are_those_of_exact_fractions(
    runs: list[Counts], limits: tuple[int | None, int | None], confident: bool, min_samples: int
) -> None:
    counts = pd.concat([frame(of_run, f"run {number}") for number, of_run in enumerate(runs)], ignore_index=True)
    min_samples = min(min_samples, counts["n"].max())
    max_gap, min_worst = limits
    checks, level = checks_of(
        counts, max_gap=max_gap, min_worst=min_worst, confident=confident, min_samples=min_samples
    )
    expected = []
    for number, of_run in enumerate(runs):
        average = Fraction(sum(k for _, k in of_run), sum(n for n, _ in of_run))
        for group, (n, k) in enumerate(of_run):
            thresholds = {
                "min_worst": None if min_worst is None else Fraction(min_worst, 100),
                "max_gap": None if max_gap is None else average - Fraction(max_gap, 100),
            }
            expected += [
                (f"run {number}", group, n, k, name, threshold, average)
                for name, threshold in thresholds.items()
                if threshold is not None
            ]
    n_checks = sum(n >= min_samples for _, _, n, *_ in expected)
    assert level == pytest.approx(0.95 ** (1 / n_checks))
    for (run, group, n, k, name, threshold, average), row in zip(expected, checks.itertuples(), strict=True):
        assert (row.run, row.group, row.n, row.correct, row.criterion) == (run, group, n, k, name)
        assert row.threshold == pytest.approx(float(threshold))
        assert row.average == pytest.approx(float(average))
        if n < min_samples:
            assert (row.outcome, row.below, row.within_noise) == ("not checked", False, False)
            continue
        assert (row.low, row.high) == pytest.approx(proportion_confint(k, n, method="wilson"), abs=1e-9)
        band = binom.interval(level, n, min(max(row.threshold, 0), 1))
        assert (row.noise_low * n, row.noise_high * n) == pytest.approx(band)
        is_below = Fraction(k, n) < threshold
        is_noise = is_below and k >= band[0]
        assert (row.below, row.within_noise) == (is_below, is_noise)
        assert row.outcome == ("failed" if is_below and not (confident and is_noise) else "passed")


@pytest.mark.slow
@pytest.mark.parametrize("rates", [(0.9, 0.9, 0.7), (0.7, 0.7, 0.7, 0.7)])
def test_false_alarms_are_rare_where_groups_are_exactly_at_their_limits(rates: tuple[float, ...]) -> None:
    """Among all groups and criteria, with groups of very different sizes."""
    n = np.array([200, 90, 15, 4])[: len(rates)]
    max_gap = 100 * float(np.dot(n, rates) / n.sum() - min(rates))
    rng = np.random.default_rng(0)
    below, beyond_noise = 0, 0
    for _ in range(100):
        counts = frame(list(zip(n, rng.binomial(n, rates), strict=True)))
        checks, _ = checks_of(counts, max_gap=max_gap, min_worst=70, confident=False, min_samples=1)
        below += checks["below"].any()
        beyond_noise += (checks["below"] & ~checks["within_noise"]).any()
    assert beyond_noise <= 0.05 * 100
    assert below > 0.3 * 100


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_runs.make_data(tmp_path_factory.mktemp("data") / "pets")


def run_with(path: Path, data: Path, correct: Mapping[str, Sequence[int]], seed: int = 0) -> sm.Run:
    """A run whose correct answers per group are these in each of its epochs, on every split that is given."""
    run = made_runs.make_run(path, data, seed=seed, epochs=2)
    rows = [
        (epoch, split, group, n, k, 1.0)
        for epoch in (0, 1, 2)
        for split, counts in correct.items()
        for group, (n, k) in enumerate(zip(made_runs.COUNTS[split], counts, strict=True))
    ]
    run.save_history(pd.DataFrame(rows, columns=["epoch", "split", "group", "n", "correct", "loss"]))
    return run


VAL = (14, 12, 11, 13)
TEST = (18, 12, 16, 7)  # of 20, 24, 16, 10: 90, 50, 100 and 70 %; average 75.7 %


@pytest.fixture
def run(data: Path, tmp_path: Path) -> sm.Run:
    return run_with(tmp_path / "run", data, {"val": VAL, "test": TEST})


def outcomes(found: sm.GroupCheck) -> dict[str, str]:
    return dict(zip(found.checks["group_name"], found.checks["outcome"], strict=True))


def test_a_limit_is_met_by_the_same_value(run: sm.Run) -> None:
    found = sm.check_groups(run, min_worst=70)
    assert not found.passed
    assert list(found.failed["group_name"]) == ["bird with night"]
    assert sm.check_groups(run, min_worst=50).passed
    assert not sm.check_groups(run, min_worst=50.01).passed
    assert sm.check_groups(run, max_gap=100 * (53 / 70 - 0.5)).passed
    assert not sm.check_groups(run, max_gap=100 * (53 / 70 - 0.5) - 1e-6).passed


def test_both_limits_are_two_checks_per_group(run: sm.Run) -> None:
    found = sm.check_groups(run.path, min_worst=45, max_gap=20)
    assert list(found.checks["criterion"]) == ["min_worst", "max_gap"] * 4
    assert found.failed["criterion"].tolist() == ["max_gap"]
    (row,) = found.runs.to_dict(orient="records")
    assert (row["worst_group"], row["worst_n"], row["worst_accuracy"]) == ("bird with night", 24, 0.5)
    assert (row["n"], row["average"], row["gap"]) == (70, 53 / 70, 53 / 70 - 0.5)
    assert (row["n_checks"], row["n_failed"], row["epoch"]) == (8, 1, 1)


def test_failures_within_noise_pass_where_one_has_to_be_confident(run: sm.Run) -> None:
    assert binom.cdf(11, 24, 0.6) > 0.05
    found = sm.check_groups(run, min_worst=60)
    assert found.failed["within_noise"].tolist() == [True]
    assert any("within noise" in note for note in check_notes(found))
    confident = sm.check_groups(run, min_worst=60, confident=True)
    assert confident.passed
    assert check_tables(confident)[1].rows["group_name"].tolist() == ["bird with night"]
    assert not sm.check_groups(run, min_worst=90, confident=True).passed


def test_groups_with_few_samples_are_named_and_not_checked(run: sm.Run) -> None:
    found = sm.check_groups(run, min_worst=75, min_samples=21)
    assert outcomes(found) == {
        "bird with day": "not checked",
        "bird with night": "failed",
        "cat with day": "not checked",
        "cat with night": "not checked",
    }
    assert found.n_checks == 1
    assert found.runs["average"].tolist() == [53 / 70]  # over all samples
    assert "bird with day (n=20), cat with day (n=16), cat with night (n=10)" in check_notes(found)[0]
    with pytest.raises(sm.UserError, match="no group has 25 samples on test"):
        sm.check_groups(run, min_worst=70, min_samples=25)


def test_a_group_without_samples(data: Path, tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", data, {"test": TEST})
    history = run.history()
    for changed in (history[history["group"] != 1], history.assign(n=history["n"].where(history["group"] != 1, 0))):
        run.save_history(changed.assign(correct=changed["correct"].clip(upper=changed["n"])))
        found = sm.check_groups(run, min_worst=70, max_gap=30, epoch="last")
        assert found.passed
        assert outcomes(found)["bird with night"] == "not checked"
        assert "bird with night (n=0)" in check_notes(found)[0]
        assert found.runs["worst_group"].tolist() == ["cat with night"]


def test_a_split_that_was_not_measured(data: Path, tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", data, {"test": TEST})
    with pytest.raises(sm.UserError, match=r"no accuracies of epoch 2 on 'val': choose --split among test"):
        sm.check_groups(run, min_worst=70, split="val", epoch="last")
    with pytest.raises(sm.UserError, match="no epoch was measured on the val split: choose an epoch"):
        sm.check_groups(run, min_worst=70)
    assert sm.check_groups(run, min_worst=50, epoch=2).runs["epoch"].tolist() == [2]


def test_every_seed_counts(data: Path, tmp_path: Path) -> None:
    for seed, correct in enumerate((TEST, (20, 24, 16, 10))):
        run_with(tmp_path / "runs" / f"seed_{seed}", data, {"val": VAL, "test": correct}, seed)
    found = sm.check_groups(tmp_path / "runs", min_worst=70)
    assert found.runs["n_failed"].tolist() == [1, 0]
    assert found.level == pytest.approx(0.95 ** (1 / 8))
    twice = sm.check_groups(tmp_path / "runs", tmp_path / "runs" / "seed_1", min_worst=70)
    pd.testing.assert_frame_equal(twice.checks, found.checks)
    assert sm.check_groups(tmp_path / "runs" / "seed_1", min_worst=70).passed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "no limit is given"),
        ({"min_worst": 101}, "--min-worst 101: choose a number from 0 to 100"),
        ({"max_gap": float("nan")}, "--max-gap nan"),
        ({"max_gap": -1}, "--max-gap -1"),
        ({"min_worst": 0.7}, "is in percent"),
        ({"min_worst": 70, "min_samples": 0}, "--min-samples 0"),
        ({"min_worst": 70, "epoch": 9}, "no checkpoint of epoch 9"),
    ],
)
def test_limits_that_make_no_sense(options: dict[str, Any], message: str, run: sm.Run) -> None:
    with pytest.raises(sm.UserError, match=message):
        sm.check_groups(run, **options)


@pytest.mark.parametrize("width", [60, 100, 140])
def test_no_number_is_cut_in_a_narrow_terminal(width: int, run: sm.Run) -> None:
    for table in check_tables(sm.check_groups(run, min_worst=80, max_gap=10)):
        check_every_number_is_printed(table, width)
