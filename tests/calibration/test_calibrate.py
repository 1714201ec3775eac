"""The calibration of the tool itself: trials, their records, and what is said of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from scipy import stats

from spurious_memorization.calibration import calibrate as module
from spurious_memorization.calibration.calibrate import calibrate, planned_trials
from spurious_memorization.calibration.networks import FAMILIES, small_network
from spurious_memorization.calibration.plants import memorizing
from spurious_memorization.calibration.pseudo_minority_of_margins import with_minority_of_like_margins
from spurious_memorization.calibration.rates import (
    NULL_ROWS,
    described_verdicts,
    false_rate,
    false_rates,
    power,
    recalls,
)
from spurious_memorization.calibration.settings import CalibrateExecution, CalibrateSettings
from spurious_memorization.calibration.striped_images import COUNTS, striped_images
from spurious_memorization.calibration.trials import MEMORIZING_ROWS, TRIALS, run_trial

SMALL = CalibrateSettings(memorizing=4, never_trained=2, features=2, strong_plants=4, weak_plants=2, described=0)
OPTIONS = tuple(
    text
    for name in ("memorizing", "never_trained", "features", "strong_plants", "weak_plants", "described")
    for text in (f"--{name.replace('_', '-')}", getattr(SMALL, name))
)
CRITERIA = ("ablation", "gradient", "random")


def record_of(trial) -> dict:
    """A record as the trial could write it."""
    if trial.kind == "memorizing":
        first_is_false = trial == next(t for t in planned_trials(SMALL) if t.kind == "memorizing")
        return {"answers": {row: [first_is_false and row == "influential_random", False] for row in MEMORIZING_ROWS}}
    if trial.kind == "never_trained":
        return {"answers": {"never_trained_verdict": [False], "never_trained_question": [False]}}
    is_weak = trial.kind == "memory_10"
    record = {
        "accepted": True,
        "points": 30.0,
        "recall": dict(zip(CRITERIA, (1.0, 0.5 if trial.family == "deit" else 0.0, 0.0), strict=True)),
        "verdict": "influential" if is_weak else "critical" if trial.kind == "feature" else "memorizing",
    }
    if trial.kind == "feature":
        return {**record, "answers": {"feature_verdict": [False]}}
    return {**record, "target": int(trial.kind.removeprefix("memory_"))}


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """Records of every trial of `SMALL`, as if they had been run."""
    out = tmp_path / "calibration"
    out.mkdir()
    (out / "calibration.json").write_text(json.dumps({"controls": SMALL.controls, "criterion": []}))
    for trial in planned_trials(SMALL):
        (out / trial.file).write_text(json.dumps(record_of(trial)))
    return out


def test_trials_are_of_both_families_and_of_different_networks():
    settings = CalibrateSettings(
        memorizing=6, never_trained=8, features=4, strong_plants=6, weak_plants=2, described=2, seed=7
    )
    trials = planned_trials(settings)
    assert len(set(trials)) == len(trials) == 6 + 8 + 4 + 2 * 6 + 2 * 2 + 3 * 2
    assert {trial.kind for trial in trials} == set(TRIALS)
    assert len({trial.seed for trial in trials}) == len(trials)
    for kind in TRIALS:
        here = [trial for trial in trials if trial.kind == kind]
        assert sum(trial.family == "resnet" for trial in here) * 2 == len(here)
    assert min(trial.seed for trial in trials) == 7
    first_half = trials[: len(trials) // 2]
    assert {trial.kind for trial in first_half} == set(TRIALS)  # a part of a run shows each kind


def test_rates_treat_networks_as_clusters():
    answers = [[True, False], [False, False], [False], [True, True, False, False], []]
    rate = false_rate(answers)
    each = np.array([0.5, 0, 0, 0.5])
    expected = stats.ttest_1samp(each, 0.05)
    assert (rate.value, rate.n, rate.networks) == (0.25, 9, 4)
    assert rate.p_above == pytest.approx(stats.ttest_1samp(each, 0.05, alternative="greater").pvalue)
    assert rate.high == pytest.approx(expected.confidence_interval().high)
    assert rate.low == 0  # the t interval reaches beneath
    repeated = false_rate([of_one * 100 for of_one in answers])
    assert (repeated.low, repeated.high, repeated.p_above) == (rate.low, rate.high, rate.p_above)  # more of the same


def test_rates_where_all_networks_are_alike():
    none = false_rate([[False] * 4] * 50)
    assert (none.value, none.low, none.p_above) == (0, 0, 1)
    assert none.high == pytest.approx(stats.binomtest(0, 50).proportion_ci().high)
    every = false_rate([[True]] * 10)
    assert every.value == every.high == 1
    assert every.p_above < 1e-9
    assert np.isnan(false_rate([[], []]).value)


def test_stored_records_are_not_run_again(stored: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "run_trial", None)
    records = calibrate(stored, SMALL)
    rates = false_rates(records)
    assert set(rates) == set(NULL_ROWS) - {"feature_question"}
    assert rates["influential_random"].value == pytest.approx(1 / 8)
    assert rates["influential_large"].value == rates["never_trained_verdict"].value == 0
    found = power(records).set_index(["target", "family"])
    assert found.loc[(10, "all"), ["plants", "memorizing", "influential"]].tolist() == [2, 0, 1]
    strong = found.loc[(30, "strong")]
    assert (strong["plants"], strong["memorizing"]) == (8, 1)
    exact = stats.binomtest(8, 8, alternative="greater").proportion_ci(method="exact")
    assert strong["lower_bound"] == pytest.approx(exact.low)
    ranked = recalls(records).set_index("criterion")
    assert ranked.index[0] == "ablation"
    assert ranked.loc["gradient", ["resnet recall", "deit recall"]].tolist() == [0, 0.5]
    assert ranked.loc["gradient", ["memory n", "feature n"]].tolist() == [12, 2]
    verdicts = described_verdicts(records).set_index("kind")
    assert verdicts.loc["feature", ["made", "plants", "critical", "memorizing"]].tolist() == [2, 2, 2, 0]


def test_a_missing_record_alone_is_run(stored: Path, monkeypatch: pytest.MonkeyPatch):
    missing = next(trial for trial in planned_trials(SMALL) if trial.kind == "never_trained")
    asked = []
    monkeypatch.setattr(module, "run_trial", lambda *given: asked.append(given) or record_of(missing))
    (stored / missing.file).unlink()
    calibrate(stored, SMALL, execution=CalibrateExecution(on="here"))
    assert asked == [(*missing, SMALL.controls, ())]
    assert (stored / missing.file).is_file()


def test_the_command_prints_rates_power_verdicts_and_leaderboard(stored: Path, capsys: pytest.CaptureFixture[str]):
    said = tiny.spurmem(capsys, "calibrate", "--out", stored, *OPTIONS)
    assert said.status == 0, said.err
    for words in ("12.5 %", "Planted memory found", "30 points and more", "Verdicts on known channels", "Leaderboard"):
        assert words in said.out
    facts = json.loads(tiny.spurmem(capsys, "--json", "calibrate", "--out", stored, *OPTIONS).out)
    assert facts["rates"]["influential_random"]["networks"] == 4
    assert {row["criterion"] for row in facts["recall"]} == set(CRITERIA)


def test_rejected_plants_are_told_and_left_out(stored: Path):
    rejected = next(trial for trial in planned_trials(SMALL) if trial.kind == "memory_30")
    (stored / rejected.file).write_text(json.dumps({"accepted": False, "points": 3.0, "target": 30}))
    records = calibrate(stored, SMALL)
    verdicts = described_verdicts(records).set_index("kind")
    assert verdicts.loc["memory_30", ["made", "plants", "memorizing"]].tolist() == [4, 3, 3]
    assert power(records).set_index(["target", "family"]).loc[(30, "strong"), "plants"] == 7


def test_wrong_folders_are_refused_in_one_line(stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    said = tiny.spurmem(capsys, "calibrate", "--out", stored, *OPTIONS, "--controls", 19)
    assert f"controls = {SMALL.controls}, not 19" in said.error
    said = tiny.spurmem(capsys, "calibrate", "--out", stored, *OPTIONS, "--criterion", "mine:scores")
    assert "criterion" in said.error
    broken = planned_trials(SMALL)[0].file
    (stored / broken).write_text("{")
    said = tiny.spurmem(capsys, "calibrate", "--out", stored, *OPTIONS)
    assert f"{broken} is broken: delete it" in said.error
    (stored / broken).write_text('{"accepted": true}')
    said = tiny.spurmem(capsys, "calibrate", "--out", stored, *OPTIONS)
    assert broken in said.error
    (tmp_path / "file").write_text("")
    said = tiny.spurmem(capsys, "calibrate", "--out", tmp_path / "file", *OPTIONS)
    assert "is not a folder: choose another place" in said.error
    assert "greater than or equal to 19" in tiny.spurmem(capsys, "calibrate", "--controls", 5).error


@pytest.mark.parametrize("family", FAMILIES)
def test_small_networks_are_those_of_their_seed(family):
    one, two, other = (small_network(family, seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert any(not torch.equal(value, other[name]) for name, value in one.items())


def test_images_have_the_counts_and_the_minority_asked_for():
    data = striped_images(3)
    for split, counts in COUNTS.items():
        assert np.bincount(data.samples(split).g, minlength=4).tolist() == list(counts)
    assert [data.groups.names[g] for g in data.minority] == ["upright with cold", "lying with warm"]
    again, other = striped_images(3).source.load(np.arange(5)), striped_images(4).source.load(np.arange(5))
    assert torch.equal(data.source.load(np.arange(5)), again)
    assert not torch.equal(data.source.load(np.arange(5)), other)


@pytest.mark.slow
def test_pseudo_minorities_have_the_minoritys_margins():
    known = memorizing("resnet", 0, epochs=2)
    like = with_minority_of_like_margins(known.model, known.data, 5)
    assert len(like.minority) == 2
    with torch.no_grad():
        logits = known.model(known.data.source.load(np.arange(len(like))))
    margins = (logits[:, 1] - logits[:, 0]).numpy() * np.where(like.y == 1, 1, -1)
    for old, new in zip(known.data.minority, like.minority, strict=True):
        assert like.groups.label_of(new) == known.data.groups.label_of(old)
        for split in like.splits:
            here = like.split == split
            drawn, own = here & (like.g == new), here & (known.data.g == old)
            majority = here & np.isin(known.data.g, known.data.majority) & (like.y == known.data.groups.label_of(old))
            assert set(np.flatnonzero(drawn)) <= set(np.flatnonzero(majority))
            assert drawn.sum() == min(own.sum(), majority.sum() // 2)
            nearer = abs(margins[drawn].mean() - margins[own].mean())
            assert nearer <= abs(margins[majority].mean() - margins[own].mean()) + 1e-6
    again = with_minority_of_like_margins(known.model, known.data, 5)
    assert np.array_equal(again.a, like.a)


@pytest.mark.slow
@pytest.mark.parametrize("kind", TRIALS)
def test_every_kind_of_trial_runs(kind):
    """Each row of the calibration, with one network per kind."""
    family = FAMILIES[len(kind) % 2]
    record = module.TrialRecord(**run_trial(kind, family, 1, 19))
    if record.accepted is None:
        assert set(record.answers) <= set(NULL_ROWS)
        assert all(record.answers.values())
    elif record.accepted:
        assert record.verdict
        assert all(0 <= value <= 1 for value in (record.recall or {}).values())


@pytest.mark.slow
def test_a_calibration_from_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    few = ("--memorizing", 1, "--never-trained", 1, "--features", 0, "--strong-plants", 1, "--weak-plants", 0)
    options = (*few, "--described", 0, "--controls", 19)
    said = tiny.spurmem(capsys, "calibrate", "--out", tmp_path / "out", *options)
    assert said.status == 0, said.err
    for words in ("False positive answers where there is nothing", "Planted memory found", "Leaderboard"):
        assert words in said.out
    kept = {file: (tmp_path / "out" / file).read_text() for file in tiny.files_below(tmp_path / "out")}
    assert len(kept) == 1 + 1 + 1 + 2
    tiny.spurmem(capsys, "calibrate", "--out", tmp_path / "out", *options)
    assert {file: (tmp_path / "out" / file).read_text() for file in tiny.files_below(tmp_path / "out")} == kept


@pytest.mark.slow
def test_trials_on_workers_are_those_of_this_process(tmp_path: Path):
    settings = CalibrateSettings(
        memorizing=0, never_trained=2, features=0, strong_plants=0, weak_plants=0, described=0, controls=19
    )
    records = [
        calibrate(tmp_path / on[:4], settings, execution=CalibrateExecution(on=on)) for on in ("here", "processes:2")
    ]
    pd.testing.assert_frame_equal(*records)


@pytest.mark.slow
def test_a_trial_is_the_same_again():
    assert run_trial("never_trained", "deit", 2, 19) == run_trial("never_trained", "deit", 2, 19)
