"""`spurmem mitigate`: every objective with one budget, and what it refuses before it trains."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import tiny

import spurious_memorization as sm
from spurious_memorization.training.find_objective import objective_from
from spurious_memorization.training.mitigate import Budget, mitigate
from spurious_memorization.training.settings import COMPARED, MitigateSettings

Capture = pytest.CaptureFixture[str]

HEADS = ("afr", "self", "dfr", "dpe", "neuron-tune", "eva", "prune-critical")
QUICK = {**tiny.QUICK, "epochs": 2, "finetune_epochs": 1, "seeds": "0..1", "augment": False}


def test_budget() -> None:
    budget = Budget(samples=100, erm_epochs=10, finetune_epochs=3)
    assert budget.total == 1600
    epochs = {
        text: budget.epochs(objective_from(text)) for text in ("pruned-contrast", "erm-continue", "group-dro", "dfr")
    }
    assert epochs == {"pruned-contrast": 3, "erm-continue": 6, "group-dro": 16, "dfr": 1}
    assert budget.epochs_after(2 * 100, 100 + 4 * 10) == 10  # 1400 passes are left, an epoch has 140
    assert budget.epochs_after(2 * 100, 100 + 999 * 100) == 1


@pytest.mark.slow
def test_every_objective_within_the_budget(squares: Path, tmp_path: Path, capsys: Capture) -> None:
    settings = MitigateSettings(**QUICK, jtt_epochs=(1, 9), jtt_upweights=(2, 3))
    made = mitigate(squares, tmp_path / "out", settings)
    assert list(made.runs) == [name for name in ("erm", *COMPARED, "jtt") if name != "neuron-tune"]
    assert any("neuron-tune is left out: every feature counts as biased" in note for note in made.notes)
    for name, runs in made.runs.items():
        assert [run.record.settings["seed"] for run in runs] == [0, 1]
        for run in runs:
            cost = run.record.training_cost
            assert cost is not None
            assert cost.sample_passes_before is not None
            total = cost.sample_passes + cost.sample_passes_before
            chosen_on = 40 if name == "pruned-contrast" else 0  # the hardest samples, whose gradients choose the mask
            if name not in ("erm", "jtt") and run.record.settings["objective"]["name"] not in HEADS:
                assert total == 4 * 40 + chosen_on, name
            assert total <= 4 * 40 + chosen_on or name == "jtt", name
    scratch = [runs[0] for name, runs in made.runs.items() if made.runs[name][0].record.start is None]
    first = made.runs["erm"][0]
    plain = [run for run in scratch if run.record.settings["objective"]["name"] != "example-tied-dropout"]
    assert len(plain) == 11
    assert all(run.state(0)["conv1.weight"].equal(first.state(0)["conv1.weight"]) for run in plain)
    assert any(note.startswith("JTT: epoch 1, upweight") for note in made.notes)
    assert any("JTT with the errors of epoch 9 is left out" in note for note in made.notes)

    before = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in tiny.files_below(tmp_path / "out")}
    flags = [
        part
        for name, value in QUICK.items()
        if name != "augment"
        for part in (f"--{name}".replace("_", "-"), str(value))
    ]
    said = tiny.spurmem(
        capsys, "mitigate", squares, *flags, "--no-augment", "--jtt-epochs", 1, "--jtt-upweights", 2,
        "--jtt-upweights", 3, "--out", tmp_path / "out", "--json"
    )  # fmt: skip
    assert said.status == 0, said.err
    facts = json.loads(said.out)
    after = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in tiny.files_below(tmp_path / "out")}
    assert before == {name: time for name, time in after.items() if "/refitted_heads/" not in name}
    refitted = {row["method"] for row in facts["refitted_heads"]["values"]}
    assert refitted == {row["method"] for row in facts["summary"]}
    assert not any("methods differ in" in note for note in facts["notes"])
    assert len({name for name in after if "/refitted_heads/" in name}) >= 2 * len(refitted)
    assert len({row["method"] for row in facts["summary"]}) == len(made.runs)
    summary = pd.DataFrame(facts["summary"])
    assert set(summary["n_seeds"]) == {2}


@pytest.mark.slow
def test_only_some_objectives(squares: Path, tmp_path: Path, capsys: Capture) -> None:
    flags = ("--model", tiny.NETWORK, "--epochs", 1, "--finetune-epochs", 1, "--seeds", 0, "--out", tmp_path / "out")
    chosen = ("--objective", "erm-continue", "--objective", "pruned-contrast:mask=none,fraction=0.1", "--no-jtt")
    said = tiny.spurmem(capsys, "mitigate", squares, *flags, *chosen)
    assert said.status == 0, said.err
    assert sorted(folder.name for folder in (tmp_path / "out").iterdir()) == [
        "erm", "erm-continue", "pruned-contrast_mask=none_fraction=0.1"
    ]  # fmt: skip
    for title in ("Accuracy on test in %", "Head or features?", "Beyond accuracy", "over all 3 runs"):
        assert title in said.out
    assert (tmp_path / "out" / "erm" / "seed_0" / "refitted_heads" / "epoch_001.json").is_file()
    assert f"every group and split: spurmem compare {tmp_path / 'out' / 'erm'} " in said.out.replace("\n", "")
    said = tiny.spurmem(capsys, "mitigate", squares, *flags, *chosen, "--format", "markdown")
    rows = [line for line in said.out.splitlines() if line.startswith("| erm")]
    run = sm.Run(tmp_path / "out" / "erm" / "seed_0")
    epoch = sm.selected_epoch(run, sm.val_halves(sm.read_data(squares))[1], "average")
    history = run.history()
    here = history[(history["epoch"] == epoch) & (history["split"] == "test")]
    average = here["correct"].sum() / here["n"].sum()
    assert rows[0].split("|")[-2].strip() == f"{100 * average:.1f}"
    error = tiny.spurmem(capsys, "mitigate", squares, *flags, "--objective", f"jtt:errors_of={tmp_path}").error
    assert "jtt is tried with jtt_epochs and jtt_upweights" in error


@pytest.mark.slow
def test_workers_train_the_same_networks(squares: Path, tmp_path: Path, capsys: Capture) -> None:
    """Objectives that start from ERM, that fit on held-out samples, and that can't be applied; and JTT."""
    chosen = ("erm-continue", "afr", "neuron-tune", "group-dro")
    settings = MitigateSettings(**QUICK, objective=chosen, jtt_epochs=(1,), jtt_upweights=(2, 3))
    here = mitigate(squares, tmp_path / "here", settings)
    capsys.readouterr()
    there = mitigate(squares, tmp_path / "there", settings, execution=sm.TrainingsExecution(on="processes:2"))
    assert "erm/seed_1 is done, " in capsys.readouterr().err
    assert list(there.runs) == list(here.runs) == ["erm", "erm-continue", "afr", "group-dro", "jtt"]
    assert there.notes == here.notes
    assert tiny.files_below(tmp_path / "there") == tiny.files_below(tmp_path / "here")
    for name, runs in here.runs.items():
        for one, two in zip(runs, there.runs[name], strict=True):
            assert tiny.same_networks(one, two), name
            pd.testing.assert_frame_equal(one.history(), two.history(), check_exact=True)


def test_refused_before_anything_is_trained(squares: Path, tmp_path: Path, capsys: Capture) -> None:
    folder, table = tmp_path / "data", pd.read_csv(squares / "metadata.csv")
    folder.mkdir()
    for file in squares.iterdir():
        if file.name != "metadata.csv":
            (folder / file.name).symlink_to(file)

    def refused(kept: pd.Series) -> str:
        table[kept].to_csv(folder / "metadata.csv", index=False)
        return tiny.spurmem(capsys, "mitigate", folder, "--model", tiny.NETWORK, "--out", tmp_path / "out").error

    assert "has no val split" in refused(table["split"] != "val")
    assert "has no test split, on which methods are compared" in refused(table["split"] != "test")
    rare = (table["y"] == 0) & (table["a"] == 1)
    assert "'class 0 with color 1' has no training sample" in refused(~(rare & (table["split"] == "train")))
    assert "has no sample among those that dfr fits on" in refused(~(rare & (table["split"] == "val")))
    assert not (tmp_path / "out").exists()
