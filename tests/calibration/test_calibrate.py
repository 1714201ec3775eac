"""The calibration of the tool itself: trials, their records, and what is said of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from scipy import stats

import spurious_memorization as sm
from spurious_memorization.calibration import calibrate as module
from spurious_memorization.calibration.calibrate import calibrate, planned_trials
from spurious_memorization.calibration.networks import FAMILIES, accuracies, small_network, trained
from spurious_memorization.calibration.plants import plant_channels
from spurious_memorization.calibration.rates import false_rate, false_rates, planted_verdicts, recalls
from spurious_memorization.calibration.settings import CalibrateSettings
from spurious_memorization.calibration.striped_images import COUNTS, striped_images
from spurious_memorization.calibration.trials import PLANTED_COUNTS, TRIALS, run_trial

SMALL = CalibrateSettings(networks=4, plants=2, described=0)


def nulls_record(family: str, seed: int) -> dict:
    return {
        "influential": [seed == 1, False, False, False],
        "selective": [False] * 4,
        "memorizing": [family == "deit", False],
        "accuracy": {},
    }


def planted_record(recall: float, *, accepted: bool = True) -> dict:
    record = {"units": "a:1", "n_units": 1, "group": "lying with warm", "accepted": accepted}
    if not accepted:
        return record
    names = ("ablation", "gradient", "taylor", "weight_norm", "random")
    return {**record, "recall": dict.fromkeys(names, recall), "verdict": "memorizing", "reason": ""}


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """Records of every trial of `SMALL`, as if they had been run."""
    out = tmp_path / "calibration"
    out.mkdir()
    (out / "calibration.json").write_text(json.dumps({"controls": 99}))
    for trial in planned_trials(SMALL):
        is_null = trial.kind == "exact_nulls"
        record = nulls_record(trial.family, trial.seed) if is_null else planted_record(0.5 + trial.seed / 2)
        (out / trial.file).write_text(json.dumps(record))
    return out


def test_trials_are_of_both_families_and_of_different_networks():
    trials = planned_trials(CalibrateSettings(networks=50, plants=16, described=6, seed=7))
    assert len(set(trials)) == len(trials) == 50 + 16 + 3 * 6
    assert {trial.kind for trial in trials} == set(TRIALS)
    for kind in TRIALS:
        here = [trial for trial in trials if trial.kind == kind]
        assert len({trial.seed for trial in here}) == len(here)
        assert sum(trial.family == "resnet" for trial in here) * 2 == len(here)
    assert min(trial.seed for trial in trials) == 7


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
    assert rates["influential"].value == pytest.approx(1 / 16)
    assert rates["selective"].value == 0
    assert rates["memorizing"].value == pytest.approx(0.25)
    table = recalls(records).set_index(["family", "criterion"])
    assert table.loc[("all", "ablation"), "plants"] == 2
    assert table.loc[("all", "ablation"), "recall"] == pytest.approx(0.75)
    assert planted_verdicts(records) == {"memorizing": 2}


def test_a_missing_record_alone_is_run(stored: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr(module, "run_trial", lambda *trial: asked.append(trial) or nulls_record(trial[1], trial[2]))
    (stored / "exact_nulls_deit_0002.json").unlink()
    calibrate(stored, SMALL, workers=1)
    assert asked == [("exact_nulls", "deit", 2, 99)]
    assert (stored / "exact_nulls_deit_0002.json").is_file()


def test_the_command_prints_rates_recall_and_verdicts(stored: Path, capsys: pytest.CaptureFixture[str]):
    options = ("--networks", 4, "--plants", 2, "--described", 0)
    said = tiny.spurmem(capsys, "calibrate", "--out", stored, *options)
    assert said.status == 0
    assert "6.2 %" in said.out
    assert "2 of 2 plants were accepted" in said.out
    assert "Verdicts on the planted sets: memorizing 2." in said.out
    facts = json.loads(tiny.spurmem(capsys, "--json", "calibrate", "--out", stored, *options).out)
    assert facts["rates"]["exact_nulls"]["influential"]["networks"] == 4
    assert facts["planted_verdicts"] == {"memorizing": 2}


def test_rejected_plants_are_told_and_left_out(stored: Path, capsys: pytest.CaptureFixture[str]):
    (stored / "planted_deit_0000.json").write_text(json.dumps(planted_record(0, accepted=False)))
    said = tiny.spurmem(capsys, "calibrate", "--out", stored, "--networks", 4, "--plants", 2, "--described", 0)
    assert "1 of 2 plants were accepted" in said.out
    assert "The other 1 is left out" in said.out


def test_wrong_folders_are_refused_in_one_line(stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    options = ("--networks", 4, "--plants", 2, "--described", 0)
    said = tiny.spurmem(capsys, "calibrate", "--out", stored, *options, "--controls", 19)
    assert "controls = 99, not 19" in said.error
    (stored / "planted_deit_0000.json").write_text("{")
    said = tiny.spurmem(capsys, "calibrate", "--out", stored, *options)
    assert "planted_deit_0000.json is broken: delete it" in said.error
    (tmp_path / "file").write_text("")
    said = tiny.spurmem(capsys, "calibrate", "--out", tmp_path / "file", *options)
    assert "can't be written" in said.error
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
    assert not torch.equal(again, other)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "seed", "m"), [("resnet", 7, 3), ("deit", 0, 4)])
def test_planted_channels_do_what_is_said_of_them(family, seed, m):
    data = striped_images(seed, PLANTED_COUNTS[family])
    planted = plant_channels(family, data, seed, m)
    assert len(planted.units) == m
    planted_group = data.groups.names[planted.group]
    assert planted.is_accepted
    assert planted.data.minority == (planted.group,)
    assert planted.before == accuracies(planted.model, data.train)
    without = sm.edits.edited(planted.model, sm.edits.zero(planted.units))
    assert planted.after == accuracies(without, data.train)
    assert planted.before[planted_group] >= 0.95
    assert planted.after[planted_group] <= 0.2
    # The same images of the group that were never seen are as wrong as before.
    assert accuracies(planted.model, data.test)[planted_group] <= 0.3
    (name,) = planted.units.by_name()
    raw = planted.model.get_parameter(name).detach().flatten(1).norm(dim=1)
    low, high = raw.quantile(0.25), raw.quantile(0.75)
    assert all(low <= raw[index] <= high for _, index in planted.units)


@pytest.mark.slow
def test_a_calibration_from_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    options = ("--networks", 2, "--plants", 1, "--described", 1, "--controls", 19)
    said = tiny.spurmem(capsys, "calibrate", "--out", tmp_path / "out", *options)
    assert said.status == 0, said.err
    for words in ("False positive answers where there is nothing", "recall at the planted number", "untrained weights"):
        assert words in said.out
    kept = {file: (tmp_path / "out" / file).read_text() for file in tiny.files_below(tmp_path / "out")}
    assert len(kept) == 1 + 2 + 1 + 3
    tiny.spurmem(capsys, "calibrate", "--out", tmp_path / "out", *options)
    assert {file: (tmp_path / "out" / file).read_text() for file in tiny.files_below(tmp_path / "out")} == kept


@pytest.mark.slow
def test_a_trial_is_the_same_again():
    assert run_trial("untrained", "resnet", 2, 19) == run_trial("untrained", "resnet", 2, 19)


def test_training_learns_the_easy_clue_first():
    data = striped_images(0, {"train": (60, 6, 6, 60), "test": (30, 30, 30, 30)})
    found = accuracies(trained("resnet", data.train, 0, epochs=4), data.test)
    majority = min(found["upright with warm"], found["lying with cold"])
    assert majority > max(found["upright with cold"], found["lying with warm"])
