"""The command line: JSON, YAML, and what each command shows and stores."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import yaml

import spurious_memorization as sm

pytestmark = pytest.mark.filterwarnings("ignore:all .* samples .* are classified correctly", "ignore:only .* null sets")

Capture = pytest.CaptureFixture[str]


def test_the_version(capsys: Capture) -> None:
    assert tiny.spurmem(capsys, "--version").out.strip() == sm.__version__


@pytest.mark.slow
def test_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "spurious_memorization", "trace", "no/such/run"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("spurmem: no/such/run is not a run")
    assert done.stderr.count("\n") == 1


def test_output_of_train(squares: Path, tmp_path: Path, capsys: Capture) -> None:
    flags = ("--model", tiny.NETWORK, "--epochs", 1, "--seed", 3)
    done = tiny.spurmem(capsys, "train", squares, *flags, "--out", tmp_path / "a")
    for words in ("class 0 with color 1 *", "train", "val", "test", f"next: spurmem study {tmp_path / 'a'}"):
        assert words in done.out
    facts = json.loads(tiny.spurmem(capsys, "train", squares, *flags, "--out", tmp_path / "b", "--json").out)
    (one,) = facts["runs"]
    history = sm.Run(tmp_path / "b").history().query("epoch == 1")
    assert one["accuracy"] == history.to_dict(orient="records")
    assert one["last"] == 1
    assert (one["best"], one["tied"]) == (1, [1])


def test_the_next_command_can_be_pasted(squares: Path, tmp_path: Path, capsys: Capture) -> None:
    place = tmp_path / "my run #1 (é)"
    trained = tiny.spurmem(capsys, "train", squares, *tiny.train_flags(place, epochs=1))
    few = ("--criterion=weight_norm", "--size=1", "--controls=2")
    for said, command in ((trained, "study"), (tiny.spurmem(capsys, "study", place, *few), "report")):
        last = said.out.strip().splitlines()[-1]
        assert shlex.split(last[last.rindex("spurmem") :], comments=True) == ["spurmem", command, str(place)]


def test_options_from_a_file(squares: Path, tmp_path: Path, capsys: Capture) -> None:
    options = {"model": tiny.NETWORK, "epochs": 0, "lr": 0.25, "batch_size": 10, "augment": False, "seed": 4}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(options))
    done = tiny.spurmem(
        capsys, "train", squares, "--config", tmp_path / "c.yaml", "--lr", 0.5, "--out", tmp_path / "run"
    )
    assert done.status == 0, done.err
    settings = sm.Run(tmp_path / "run").record.settings
    assert settings["lr"] == 0.5
    assert settings["batch_size"] == 10
    assert settings["augment"] is False
    assert settings["seed"] == 4
    assert settings["epochs"] == 0


@pytest.mark.slow
def test_a_study_from_a_file(run: sm.Run, tmp_path: Path, capsys: Capture) -> None:
    options = {"criterion": ["weight_norm", "random"], "size": "1..2", "edit": ["zero", "mean"], "controls": 2}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(options))
    done = tiny.spurmem(
        capsys, "study", run.path, "--config", tmp_path / "c.yaml", "--split", "test", "--controls", 1, "--json"
    )
    assert done.status == 0, done.err
    record = sm.Study(Path(json.loads(done.out)["study"])).record
    assert record["settings"]["criterion"] == ["weight_norm", "random"]
    assert record["settings"]["edit"] == ["zero", "mean"]
    assert record["settings"]["split"] == ["test"]
    assert record["settings"]["controls"] == 1


def test_trace_shows_and_stores_a_ranking(run: sm.Run, capsys: Capture) -> None:
    done = tiny.spurmem(capsys, "trace", run.path, "--criterion", "weight_norm", "--show", 4)
    assert done.status == 0
    network = run.network(3)
    norms = {}
    for name, layer in (("conv1", network.conv1), ("conv2", network.conv2)):
        for i, weights in enumerate(layer.weight.detach()):
            square = weights.square().sum() + (0 if layer.bias is None else layer.bias.detach()[i] ** 2)
            norms[f"{name}:{i}"] = float(square.sqrt())
    best = sorted(norms, key=lambda unit: -norms[unit])
    shown = [word for line in done.out.splitlines() for word in line.replace("│", " ").split() if word in norms]
    assert shown == best[:4]
    facts = json.loads(tiny.spurmem(capsys, "trace", run.path, "--criterion", "weight_norm", "--show", 4, "--json").out)
    (ranking,) = facts["rankings"]
    assert [f"{first['unit'].removesuffix('.weight')}:{first['index']}" for first in ranking["first"]] == best[:4]
    np.testing.assert_allclose([first["score"] for first in ranking["first"]], [norms[u] for u in best[:4]], rtol=1e-5)
    assert Path(ranking["file"]).is_file()


def test_trace_once_for_each_minority_group(run: sm.Run, capsys: Capture) -> None:
    facts = json.loads(tiny.spurmem(capsys, "trace", run.path, "--criterion", "gradient,taylor", "--json").out)
    traced = [(r["ranking"]["criterion"], r["ranking"]["group"]) for r in facts["rankings"]]
    groups = ("class 0 with color 1", "class 1 with color 0")
    assert traced == [(criterion, group) for criterion in ("gradient", "taylor") for group in groups]
    assert len(list((run.path / "rankings").iterdir())) == 4


def test_trace_of_random_subsets_of_the_majority(run: sm.Run, capsys: Capture) -> None:
    flags = ("--criterion", "gradient", "--pseudo-minority", 3)
    facts = json.loads(tiny.spurmem(capsys, "trace", run.path, *flags, "--json").out)
    traced = [r["ranking"]["group"] for r in facts["rankings"]]
    assert traced == [f"class {y} with a random draw (3)" for y in (0, 1)]
    data = sm.with_pseudo_minority(run.read_data(), 3)
    scores = sm.criteria.gradient(run.network(3), sm.hardest_samples(run.network(3), data.train, traced[0]))
    assert facts["rankings"][0]["first"][0]["index"] == next(iter(sm.top(scores, 1)))[1]


@pytest.mark.slow
def test_output_of_study(run: sm.Run, capsys: Capture) -> None:
    flags = ("--criterion", "weight_norm", "--size", "2", "--edit", "zero", "--edit", "random_noise:std=0.1")
    flags = (*flags, "--repeats", 2, "--controls", 2, "--split", "train,test")
    done = tiny.spurmem(capsys, "study", run.path, *flags)
    facts = json.loads(tiny.spurmem(capsys, "study", run.path, *flags, "--json").out)
    stored = sm.Study(Path(facts["study"])).effects()
    assert done.out.splitlines()[: len(facts["findings"])] == facts["findings"]
    for words in ("Minority groups in train", "random_noise", "stored in", "--verbose"):
        assert words in done.out
    assert done.out.count("┏") == 1
    verbose = tiny.spurmem(capsys, "study", run.path, *flags, "--verbose").out
    for words in ("Minority groups in train", "Accuracy change in train", "Accuracy change in test", "Verdicts on"):
        assert words in verbose
    assert len(facts["effects"]) == len(stored) == 2 * 2 * 4
    assert [row["accuracy_change"] for row in facts["effects"]] == pytest.approx(stored["accuracy_change"].tolist())


def test_json_of_a_study_without_controls(run: sm.Run, capsys: Capture) -> None:
    done = tiny.spurmem(capsys, "study", run.path, "--criterion", "weight_norm", "--size=1", "--controls=0", "--json")
    effects = json.loads(done.out)["effects"]
    assert [row["control_low"] for row in effects] == [None] * 8
    assert {(row["verdict"], row["p"], row["influential"]) for row in effects} == {("no verdict", None, None)}


EDITS: list[tuple[str, Any]] = [
    ("zero", lambda old, older: torch.zeros_like(old)),
    ("mean", lambda old, older: torch.zeros_like(old)),
    ("rewind:epochs=3", lambda old, older: older),
]


@pytest.mark.slow
@pytest.mark.parametrize(("edit", "expected"), EDITS, ids=[edit for edit, _ in EDITS])
def test_an_edited_run_is_a_run(edit: str, expected: Any, run: sm.Run, tmp_path: Path, capsys: Capture) -> None:
    done = tiny.spurmem(
        capsys, "edit", run.path, "--units", "conv1:2,conv1:5", "--edit", edit, "--out", tmp_path / "new"
    )
    assert done.status == 0, done.err
    new = sm.Run(tmp_path / "new")
    assert new.epochs() == [3]
    assert new.record.origin == "edit"
    assert new.record.settings["edit"] == edit
    before, after = run.state(3), new.state(3)
    rows = [2, 5]
    assert torch.equal(
        after["conv1.weight"][rows], expected(before["conv1.weight"][rows], run.state(0)["conv1.weight"][rows])
    )
    kept = [0, 1, 3, 4, 6, 7]
    assert torch.equal(after["conv1.weight"][kept], before["conv1.weight"][kept])
    assert all(torch.equal(value, after[name]) for name, value in before.items() if name != "conv1.weight")
    samples = run.read_data().train
    network = new.network(3)
    with torch.no_grad():
        probabilities = network(samples.batch().inputs).softmax(1)
        channels = network.conv1(samples.batch().inputs)
        old = run.network(3).conv1(samples.batch().inputs)
    np.testing.assert_allclose(new.predictions(3, "train"), probabilities, atol=1e-5)
    if edit == "mean":
        assert "conv1.bias" not in before
        torch.testing.assert_close(channels[:, 2].mean(), old[:, 2].mean(), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(channels[:, 2].std(), torch.tensor(0.0), atol=1e-5, rtol=0)
        torch.testing.assert_close(channels[:, 3], old[:, 3])
    study = tiny.spurmem(
        capsys, "study", new.path, "--criterion", "gradient", "--edit", "zero", "--edit", "mean", "--controls", 2,
        "--size", 1, "--json"
    )  # fmt: skip
    assert study.status == 0, study.err
    effects = sm.Study(Path(json.loads(study.out)["study"])).effects()
    assert set(effects["kind"]) == {"zero", "mean"}
    again = tiny.spurmem(capsys, "edit", new.path, "--units=conv2:1", "--edit=mean", "--out", tmp_path / "twice")
    assert again.status == 0, again.err
    assert sm.Run(tmp_path / "twice").record.settings["loss"] == "cross_entropy"
    assert "exists" in tiny.spurmem(capsys, "edit", run.path, "--units=conv1:1", "--out", tmp_path / "new").error


def test_an_edited_single_weight_and_noise(run: sm.Run, tmp_path: Path, capsys: Capture) -> None:
    flags = ("--units", "conv2:7", "--edit", "random_noise:std=2", "--unit", "weight", "--seed", 5, "--epoch", 1)
    assert tiny.spurmem(capsys, "edit", run.path, *flags, "--out", tmp_path / "a").status == 0
    assert tiny.spurmem(capsys, "edit", run.path, *flags, "--out", tmp_path / "b").status == 0
    before, after = run.state(1)["conv2.weight"].flatten(), sm.Run(tmp_path / "a").state(1)["conv2.weight"].flatten()
    assert torch.nonzero(before != after).flatten().tolist() == [7]
    assert tiny.same_networks(sm.Run(tmp_path / "a"), sm.Run(tmp_path / "b"))


def test_training_goes_on_from_an_edited_run(run: sm.Run, squares: Path, tmp_path: Path, capsys: Capture) -> None:
    """A network with a bias that its architecture lacks can be trained, stopped and resumed."""
    edit = ("edit", run.path, "--units", "conv1:2", "--edit", "mean", "--out", tmp_path / "new")
    assert tiny.spurmem(capsys, *edit).status == 0
    flags = ("--model", tiny.NETWORK, "--epochs", 1, "--from", tmp_path / "new", "--out", tmp_path / "more")
    assert tiny.spurmem(capsys, "train", squares, *flags).status == 0
    more = sm.Run(tmp_path / "more")
    assert torch.equal(more.state(0)["conv1.bias"], sm.Run(tmp_path / "new").state(3)["conv1.bias"])
    assert not torch.equal(more.state(1)["conv1.bias"], more.state(0)["conv1.bias"])
    assert tiny.spurmem(capsys, "train", squares, *flags, "--resume").status == 0


@pytest.mark.slow
def test_flags_and_python_give_the_same_study(run: sm.Run, capsys: Capture) -> None:
    done = tiny.spurmem(
        capsys, "study", run.path, "--criterion=magnitude", "--size=1..2,4", "--controls=2", "--no-with-bias",
        "--tensors=conv2", "--exclude=conv1", "--smallest", "--split=val", "--per-group=2",
        "--controls-on=val", "--no-cross-fit", "--pseudo-minority=3", "--json"
    )  # fmt: skip
    assert done.status == 0, done.err
    settings = sm.StudySettings(
        criterion=("weight_norm",), size=("1..2", "4"), controls=2, with_bias=False, tensors=("conv2",),
        exclude=("conv1",), smallest=True, split=("val",), per_group=2,
        controls_on=("val",), cross_fit=False, pseudo_minority=3,
    )  # fmt: skip
    assert str(sm.study(run, settings).path) == json.loads(done.out)["study"]
    norms = run.network(3).conv2.weight.flatten(1).norm(dim=1).argsort()
    variants = sm.study(run, settings).variants().query("family == 'selected'")
    assert variants["units"].tolist()[-1] == ",".join(f"conv2:{i}" for i in norms[:4])
