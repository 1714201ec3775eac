"""A training by two processes gives the network of one process, up to rounding."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import beside
import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from tiny_training import FIT_HEADS, TRAIN_ALL_LAYERS, settings

import spurious_memorization as sm
from spurious_memorization import together
from spurious_memorization.training.find_objective import objective_names

Capture = pytest.CaptureFixture[str]

TOLERANCE = 1e-4
"""Largest difference of a weight or a probability after three epochs, as docs/scale.md states."""

TWO = sm.SharedExecution(on="processes:2")

OBJECTIVES = (
    "erm",
    "erm-continue",
    "pruned-contrast:fraction=0.1",
    "pruned-contrast:fraction=0.1,contrast=logits,refresh=false,running_statistics=dense-pruned-dense",
    *TRAIN_ALL_LAYERS,
    *FIT_HEADS,
)
WITHOUT_BATCH_NORM = ("erm", "pruned-contrast:fraction=0.1", "group-dro:step=0.5", "mixup", "weight-averaging:first=2")


def difference(one: sm.Run, two: sm.Run) -> float:
    """The largest difference of a weight or a probability, of all epochs."""
    assert one.epochs() == two.epochs()
    largest = 0.0
    for epoch in one.epochs():
        state, other = one.state(epoch), two.state(epoch)
        assert state.keys() == other.keys()
        largest = max([largest, *(float((value - other[name]).abs().max()) for name, value in state.items())])
        for split in ("train", "val", "test"):
            both = one.predictions(epoch, split), two.predictions(epoch, split)
            assert both[0].index.equals(both[1].index)
            largest = max(largest, float(np.abs(both[0].to_numpy() - both[1].to_numpy()).max()))
    return largest


def test_losses_gradients_and_statistics_are_those_of_one_process(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=beside.gradients, args=(tmp_path, 2, number)) for number in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    model, losses = beside.network().train(), []
    for size in beside.SIZES:
        x, y = beside.batch(size)
        features = model[:8](x).float()
        losses.append(beside.loss_of(model, features, model[8](features.double()).float(), y))
    torch.stack(losses).sum().backward()
    expected = {name: parameter.grad for name, parameter in model.named_parameters()}
    expected |= {**dict(model.named_buffers()), "losses": torch.stack(losses)}
    for number in range(2):
        found = torch.load(tmp_path / f"{number}.pt", weights_only=True)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6, msg=f"{name} of process {number}")


def test_every_objective_is_tested() -> None:
    assert {text.partition(":")[0] for text in OBJECTIVES} == set(objective_names())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "model"),
    [*((text, tiny.NETWORK) for text in OBJECTIVES), *((text, "beside:plain_convnet") for text in WITHOUT_BATCH_NORM)],
)
def test_two_processes_train_as_one(text: str, model: str, squares: Path, trained: sm.Run, tmp_path: Path) -> None:
    start: dict[str, Any] = {}
    if text == "jtt":
        text = f"jtt:errors_of={trained.path}@1,upweight=3"
    elif sm.TrainSettings(objective=text).objective.continues:
        first = tmp_path / "first"
        start = {"start": str(sm.train(squares, first, settings("erm", model=model)).path)}
    chosen = settings(text, model=model, schedule="plateau", plateau_patience=0, **start)
    one = sm.train(squares, tmp_path / "one", chosen)
    two = sm.train(squares, tmp_path / "two", chosen, execution=TWO)
    assert difference(one, two) < TOLERANCE
    assert tiny.files_below(one.path) == tiny.files_below(two.path)
    assert one.record.settings == two.record.settings
    assert one.record.training_cost is not None
    assert two.record.training_cost is not None
    assert one.record.training_cost.sample_passes == two.record.training_cost.sample_passes
    pd.testing.assert_frame_equal(one.history().drop(columns="loss"), two.history().drop(columns="loss"))


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"batch_size": 3}, {"batch_size": 1, "augment": False}, {"precision": "auto"}])
def test_parts_of_several_sizes(changes: dict[str, Any], squares: Path, tmp_path: Path) -> None:
    chosen, three = settings("erm", epochs=1, **changes), sm.SharedExecution(on="processes:3")
    one, two = sm.train(squares, tmp_path / "1", chosen), sm.train(squares, tmp_path / "2", chosen, execution=three)
    if changes.get("precision") != "auto":
        assert difference(one, two) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("model", ["beside:first_is_mortal", "beside:second_is_mortal"])
def test_a_killed_process_ends_the_command_and_a_resumed_training_ends_as_one_that_never_was(
    model: str, squares: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(beside.ENDED, str(tmp_path / "ended"))
    flags = [*tiny.train_flags(tmp_path / "run", model=model), "--objective=group-dro:step=0.5", "--on=processes:2"]
    error = tiny.spurmem(capsys, "train", squares, *flags).error
    assert "has ended, SIGKILL, and so the other processes were ended" in error
    assert sm.Run(tmp_path / "run").epochs() == [0, 1]
    assert tiny.spurmem(capsys, "train", squares, *flags, "--resume").status == 0
    whole = sm.train(squares, tmp_path / "whole", settings("group-dro:step=0.5", model=model), execution=TWO)
    resumed = sm.Run(tmp_path / "run")
    assert tiny.same_networks(resumed, whole)
    pd.testing.assert_frame_equal(resumed.history(), whole.history())


@pytest.mark.slow
def test_dropout_is_drawn_by_each_process_and_resumed_exactly(squares: Path, tmp_path: Path) -> None:
    chosen = settings("erm", model="beside:dropout_convnet")
    runs = [sm.train(squares, tmp_path / name, chosen, execution=TWO) for name in ("one", "two")]
    assert tiny.same_networks(*runs)


@pytest.mark.slow
def test_a_network_that_keeps_something_of_its_samples_is_refused(
    squares: Path, tmp_path: Path, capsys: Capture
) -> None:
    flags = tiny.train_flags(tmp_path / "run", model="beside:counting_convnet")
    error = tiny.spurmem(capsys, "train", squares, *flags, "--on", "processes:2").error
    assert "the processes no longer hold the same seen" in error
    assert "--on here" in error
    assert sm.Run(tmp_path / "run").epochs() == [0]


@pytest.mark.slow
def test_users_mistakes_are_told_once(squares: Path, tmp_path: Path, capsys: Capture) -> None:
    flags = [*tiny.train_flags(tmp_path / "run", epochs=1), "--on=processes:2"]
    error = tiny.spurmem(capsys, "train", tmp_path / "nowhere", *flags).error
    assert "nowhere" in error
    assert tiny.spurmem(capsys, "train", squares, *flags).status == 0
    error = tiny.spurmem(capsys, "train", squares, *flags).error
    assert "exists: continue it with --resume" in error


@pytest.mark.slow
@pytest.mark.parametrize("kills", [False, True])
def test_processes_of_a_launcher(kills: bool, squares: Path, tmp_path: Path) -> None:
    model = "beside:second_is_mortal" if kills else tiny.NETWORK
    flags = [*tiny.train_flags(tmp_path / "two", model=model), "--seeds=0..1"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    paths = os.pathsep.join([path for path in sys.path if path])
    environment = {**os.environ, "PYTHONPATH": paths, beside.ENDED: str(tmp_path / "ended"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "-m", "spurious_memorization", "train", str(squares), *flags],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if kills:
        assert done.returncode != 0
        assert sm.Run(tmp_path / "two" / "seed_0").epochs() == [0, 1]
        return
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("next: spurmem study") == 1
    assert done.stderr.count("epoch 3/3") == 2
    for seed in range(2):
        one = sm.train(squares, tmp_path / f"one_{seed}", settings("erm", seed=seed))
        assert difference(one, sm.Run(tmp_path / "two" / f"seed_{seed}")) < TOLERANCE


@pytest.mark.parametrize("on", ["ray", "ray://head:10001"])
def test_ray_is_refused(on: str, squares: Path, tmp_path: Path, capsys: Capture) -> None:
    error = tiny.spurmem(capsys, "train", squares, *tiny.train_flags(tmp_path / "run"), "--on", on).error
    assert f"--on {on}: Ray can't share one training: use processes:N" in error
    assert not (tmp_path / "run").exists()


def test_processes_within_those_of_a_launcher_are_refused(
    squares: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"MASTER_ADDR": "localhost", "MASTER_PORT": "1", "RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    error = tiny.spurmem(capsys, "train", squares, *tiny.train_flags(tmp_path / "run"), "--on", "processes:2").error
    assert "a launcher has started 2 processes: leave --on out" in error


@pytest.mark.parametrize("command", ["mitigate", "discover"])
def test_commands_that_train_many_networks_need_no_launcher(
    command: str, squares: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"MASTER_ADDR": "localhost", "MASTER_PORT": "1", "RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(together, "PATIENCE", timedelta(seconds=1))
    error = tiny.spurmem(capsys, command, squares, "--model", tiny.NETWORK, "--out", tmp_path / "groups.csv").error
    assert f"a launcher has started 2 processes, and {command} works in one" in error
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there(squares: Path, tmp_path: Path, capsys: Capture) -> None:
    flags = [*tiny.train_flags(tmp_path / "run"), "--on=processes:2", "--device=cuda"]
    assert "no device 'cuda' here" in tiny.spurmem(capsys, "train", squares, *flags).error
