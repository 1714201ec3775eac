"""A training that was killed at any moment and is resumed ends as one that never was."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tiny
import torch

import spurious_memorization as sm
from spurious_memorization.runs import evaluate as measure
from spurious_memorization.training import loop
from spurious_memorization.training.objective import Objective

Capture = pytest.CaptureFixture[str]


def calls_until(n: int, function: Callable[..., Any], *, after: bool = False) -> Callable[..., Any]:
    """The function, but its n-th call is the process's last act: killed before the call, or after it."""
    calls = 0

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == n and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments, **named)
        if calls == n:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return counted


def killed(moment: str) -> None:
    """Arrange for this process to be killed."""
    match moment:
        case "before the first measurement":
            measure.predict = calls_until(1, measure.predict)
        case "while epoch 0 is measured":
            measure.predict = calls_until(3, measure.predict)
        case "before the first trainer state":
            loop.store_checkpoint = calls_until(1, loop.store_checkpoint)
        case "during epoch 2":  # five steps an epoch
            Objective.loss = calls_until(8, Objective.loss)  # type: ignore[method-assign]
        case "after the first predictions of epoch 2":
            sm.Run.save_predictions = calls_until(7, sm.Run.save_predictions, after=True)  # type: ignore[method-assign]
        case "while a checkpoint is being written":
            original = sm.Run.save_network

            def half(run: sm.Run, epoch: int, model: torch.nn.Module) -> None:
                if epoch == 2:
                    Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
                original(run, epoch, model)

            sm.Run.save_network = half  # type: ignore[method-assign]
        case "after the checkpoint, before the trainer state":
            loop.store_checkpoint = calls_until(3, loop.store_checkpoint)
        case "while the trainer state is being written":
            torch.save = _half_of_a_file  # type: ignore[assignment]
        case "after the last trainer state":
            loop.store_checkpoint = calls_until(4, loop.store_checkpoint, after=True)


def _half_of_a_file(state: dict[str, Any], file: Path) -> None:
    file.write_bytes(b"half")
    if state["epoch"] == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    _save(state, file)


_save = torch.save

MOMENTS = (
    "before the first measurement",
    "while epoch 0 is measured",
    "before the first trainer state",
    "during epoch 2",
    "after the first predictions of epoch 2",
    "while a checkpoint is being written",
    "after the checkpoint, before the trainer state",
    "while the trainer state is being written",
    "after the last trainer state",
)

SCHEDULED = {**tiny.QUICK, "schedule": "cosine", "optimizer": "adamw", "weight_decay": 0.1}


@pytest.fixture(scope="module")
def undisturbed(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> sm.Run:
    return sm.train(squares, tmp_path_factory.mktemp("whole") / "run", sm.TrainSettings(**SCHEDULED))


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_and_resumed(moment: str, squares: Path, tmp_path: Path, undisturbed: sm.Run) -> None:
    settings, out = sm.TrainSettings(**SCHEDULED), tmp_path / "run"

    def child() -> None:
        killed(moment)
        sm.train(squares, out, settings)

    assert tiny.in_child(child) == -signal.SIGKILL
    if moment != "after the last trainer state":
        assert sm.Run(out).epochs() != undisturbed.epochs()
    resumed = sm.train(squares, out, settings, resume=True)
    assert tiny.same_networks(resumed, undisturbed)
    pd.testing.assert_frame_equal(resumed.history(), undisturbed.history())
    for split in ("train", "val", "test"):
        assert resumed.predictions(3, split).equals(undisturbed.predictions(3, split))


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_killed_twice_with_plateau(optimizer: str, squares: Path, tmp_path: Path) -> None:
    settings = sm.TrainSettings(
        **{**tiny.QUICK, "epochs": 4, "optimizer": optimizer, "schedule": "plateau", "plateau_patience": 0, "lr": 0.5},
        momentum=0.9,
        checkpoint_every=3,
    )
    for steps in (7, 8):

        def child(steps: int = steps) -> None:
            Objective.loss = calls_until(steps, Objective.loss)  # type: ignore[method-assign]
            sm.train(squares, tmp_path / "run", settings, resume=True)

        assert tiny.in_child(child) == -signal.SIGKILL
    resumed = sm.train(squares, tmp_path / "run", settings, resume=True)
    whole = sm.train(squares, tmp_path / "whole", settings)
    assert resumed.epochs() == [0, 3, 4]
    assert tiny.same_networks(resumed, whole)
    assert resumed.history().equals(whole.history())


@pytest.mark.slow
def test_resumed_with_other_workers(squares: Path, tmp_path: Path, undisturbed: sm.Run) -> None:
    settings = sm.TrainSettings(**SCHEDULED)
    assert settings.augment

    def child() -> None:
        killed("during epoch 2")
        sm.train(squares, tmp_path / "run", settings, execution=sm.TrainExecution(workers=2))

    assert tiny.in_child(child) == -signal.SIGKILL
    resumed = sm.train(squares, tmp_path / "run", settings, resume=True, execution=sm.TrainExecution(workers=1))
    assert tiny.same_networks(resumed, undisturbed)
    assert resumed.history().equals(undisturbed.history())


def test_what_was_stopped_before_anything_was_measured_is_begun_anew(squares: Path, tmp_path: Path) -> None:
    def child() -> None:
        killed("while epoch 0 is measured")
        sm.train(squares, tmp_path / "run", sm.TrainSettings(**tiny.QUICK))

    assert tiny.in_child(child) == -signal.SIGKILL
    run = sm.train(squares, tmp_path / "run", sm.TrainSettings(**{**tiny.QUICK, "epochs": 1, "lr": 0.5}))
    assert run.record.settings["lr"] == 0.5
    assert run.epochs() == [0, 1]


def flags(**changes: Any) -> list[str]:
    return [
        part
        for name, value in {**tiny.QUICK, **changes}.items()
        for part in (f"--{name}".replace("_", "-"), str(value))
    ]


def test_other_settings_are_refused_naming_both_values(
    trained: sm.Run, squares: Path, tmp_path: Path, capsys: Capture
) -> None:
    run = tiny.copied(trained, tmp_path / "run")
    before = {name: (run.path / name).read_bytes() for name in tiny.files_below(run.path)}
    error = tiny.spurmem(capsys, "train", squares, *flags(lr=0.02), "--out", run.path, "--resume").error
    assert "settings.lr = 0.01, not 0.02" in error
    error = tiny.spurmem(capsys, "train", squares, *flags(), "--out", run.path).error
    assert "exists: continue it with --resume" in error
    assert before == {name: (run.path / name).read_bytes() for name in tiny.files_below(run.path)}


def test_a_finished_run_stays_as_it_is(trained: sm.Run, squares: Path, tmp_path: Path, capsys: Capture) -> None:
    run = tiny.copied(trained, tmp_path / "run")
    before = {name: (run.path / name).stat().st_mtime_ns for name in tiny.files_below(run.path)}
    assert tiny.spurmem(capsys, "train", squares, *flags(), "--out", run.path, "--resume").status == 0
    assert before == {name: (run.path / name).stat().st_mtime_ns for name in tiny.files_below(run.path)}


@pytest.mark.parametrize("kept", [0, 100, 1 / 2, "text", "other", "pickle"])
def test_a_broken_trainer_state(kept: Any, trained: sm.Run, squares: Path, tmp_path: Path, capsys: Capture) -> None:
    run = tiny.copied(trained, tmp_path / "run")
    content = run.trainer_file.read_bytes()
    if kept == "text":
        run.trainer_file.write_text("no state\n" * 100)
    elif kept == "other":
        torch.save({"epoch": 3}, run.trainer_file)
    elif kept == "pickle":
        torch.save({"epoch": 3, "model": Path("x")}, run.trainer_file)
    else:
        run.trainer_file.write_bytes(content[: kept if isinstance(kept, int) else int(len(content) * kept)])
    error = tiny.spurmem(capsys, "train", squares, *flags(), "--out", run.path, "--resume").error
    assert "trainer.pt is broken: delete it" in error
    assert run.epochs() == trained.epochs()
    if kept == "text":
        run.trainer_file.unlink()
        assert tiny.spurmem(capsys, "train", squares, *flags(), "--out", run.path, "--resume").status == 0
        assert tiny.same_networks(run, trained)


def test_the_resumed_run_needs_its_data(trained: sm.Run, squares: Path, tmp_path: Path, capsys: Capture) -> None:
    run = tiny.copied(trained, tmp_path / "run")
    other = tiny.make_images(tmp_path / "other", train=15)
    error = tiny.spurmem(capsys, "train", other, *flags(), "--out", run.path, "--resume").error
    assert "was made with data.fingerprint" in error


@pytest.mark.slow
@pytest.mark.parametrize("before", ["nothing", "a stopped run"])
def test_what_another_process_stored_before_the_lock_was_free_is_seen(
    before: str, squares: Path, tmp_path: Path, undisturbed: sm.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, out = sm.TrainSettings(**SCHEDULED), tmp_path / "run"

    def stopped() -> None:
        killed("during epoch 2")
        sm.train(squares, out, settings)

    def others() -> None:
        sm.train(squares, out, settings, resume=True)

    if before == "a stopped run":
        assert tiny.in_child(stopped) == -signal.SIGKILL
    original = sm.Run.writing

    def late(run: sm.Run) -> Any:
        monkeypatch.setattr(sm.Run, "writing", original)
        assert tiny.in_child(others) == 0
        return original(run)

    monkeypatch.setattr(sm.Run, "writing", late)
    resumed = sm.train(squares, out, settings, resume=True)
    assert sm.Run.writing is original
    assert tiny.same_networks(resumed, undisturbed)
    pd.testing.assert_frame_equal(resumed.history(), undisturbed.history())


@pytest.mark.slow
def test_a_run_without_its_history_is_trained_again_as_the_message_says(
    trained: sm.Run, squares: Path, tmp_path: Path, capsys: Capture
) -> None:
    run = tiny.copied(trained, tmp_path / "run")
    (run.path / "history.parquet").unlink()
    error = tiny.spurmem(capsys, "train", squares, *flags(), "--out", run.path, "--resume").error
    assert f"history.parquet does not exist: train again with --resume after deleting {run.trainer_file}" in error
    run.trainer_file.unlink()
    assert tiny.spurmem(capsys, "train", squares, *flags(), "--out", run.path, "--resume").status == 0
    assert tiny.same_networks(run, trained)
    pd.testing.assert_frame_equal(run.history(), trained.history())
