"""Training on a GPU: resuming, readers, precision, and every objective once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from no_float64 import NoFloat64
from tiny_training import settings

import spurious_memorization as sm
from spurious_memorization.training import loop
from spurious_memorization.training.find_objective import objective_names, settings_class

pytestmark = pytest.mark.gpu

OPTIONS = {
    "afr": "fit_on=val,sharpness=4",
    "dfr": "draws=2",
    "dpe": "members=2,member_epochs=2",
    "eva": "shares=0.5,lrs=0.1,steps=10",
    "group-dro": "step=0.5",
    "jtt": "errors_of={start}@1,upweight=3",
    "neuron-tune": "threshold=0.05,lrs=0.1,steps=10",
    "prune-critical": "n=2",
    "pruned-contrast": "fraction=0.1",
    "self": "early=1,n=4,lrs=0.1",
    "weight-averaging": "first=1",
}


class Stopped(Exception):  # noqa: N818
    """Stands for a kill: a process that uses CUDA can't be forked."""


def train(folder: Path, out: Path, device: str, *, resume: bool = False, workers: int = 0, **changes: Any) -> sm.Run:
    execution = sm.TrainExecution(device=device, workers=workers)
    recorded = settings(changes.pop("objective", "erm"), **{"epochs": 2, **changes})
    return sm.train(folder, out, recorded, resume=resume, execution=execution)


def stop_after(epoch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the training stop as soon as this epoch is stored."""
    store = loop.store_checkpoint

    def stored_and_stopped(run: Any, progress: Any, *rest: Any) -> None:
        store(run, progress, *rest)
        if progress.epoch == epoch:
            raise Stopped

    monkeypatch.setattr(loop, "store_checkpoint", stored_and_stopped)


@pytest.mark.parametrize("name", [tiny.NETWORK, "tiny_networks:pooled_convnet", "deit_tiny"])
def test_a_stopped_training_ends_with_the_same_weights(
    name: str, device: str, squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"model": name, **({"image_size": 32} if name == "deit_tiny" else {})}
    whole = train(squares, tmp_path / "whole", device, workers=2 if name == tiny.NETWORK else 0, **changes)
    with monkeypatch.context() as patch:
        stop_after(1, patch)
        with pytest.raises(Stopped):
            train(squares, tmp_path / "run", device, **changes)
    resumed = train(squares, tmp_path / "run", device, resume=True, **changes)
    assert tiny.same_networks(resumed, whole)
    pd.testing.assert_frame_equal(resumed.history(), whole.history())


@pytest.fixture(scope="module")
def start(squares: Path, device: str, tmp_path_factory: pytest.TempPathFactory) -> sm.Run:
    return train(squares, tmp_path_factory.mktemp("runs") / "start", device)


@pytest.mark.parametrize("name", objective_names())
def test_every_objective(name: str, device: str, squares: Path, start: sm.Run, tmp_path: Path) -> None:
    text = f"{name}:{OPTIONS[name].format(start=start.path)}" if name in OPTIONS else name
    continues = settings_class(name).continues
    fixed = settings_class(name).fixed_settings
    changes = {"epochs": fixed.get("epochs", 2), **({"start": f"{start.path}@2"} if continues else {})}
    with NoFloat64():
        run = train(squares, tmp_path / "run", device, objective=text, **changes)
    first, last = run.state(0), run.state(run.epochs()[-1])
    assert any(not torch.equal(value, last[key]) for key, value in first.items())
    assert all(value.device.type == "cpu" for value in last.values())
    assert all(torch.isfinite(value).all() for value in last.values())
    with torch.no_grad():
        expected = run.network(run.epochs()[-1])(sm.read_data(squares).test.batch().inputs).softmax(1)
    np.testing.assert_allclose(run.predictions(run.epochs()[-1], "test"), expected, atol=1e-3)


@pytest.mark.parametrize("text", ["erm", "pruned-contrast:fraction=0.1"])
def test_bf16(text: str, device: str, squares: Path, start: sm.Run, tmp_path: Path) -> None:
    changes = {"start": f"{start.path}@2"} if text != "erm" else {}
    one, two = (
        train(squares, tmp_path / precision, device, objective=text, precision=precision, epochs=1, **changes)
        for precision in ("float32", "bf16")
    )
    assert all(value.dtype != torch.bfloat16 for value in two.state(1).values())
    assert torch.equal(one.state(0)["conv1.weight"], two.state(0)["conv1.weight"])
    assert not torch.equal(one.state(1)["conv1.weight"], two.state(1)["conv1.weight"])
    np.testing.assert_allclose(one.predictions(0, "val"), two.predictions(0, "val"), atol=0.02)


def test_the_first_step_is_that_of_the_cpu(device: str, squares: Path, tmp_path: Path) -> None:
    changes = {"epochs": 1, "batch_size": 40, "augment": False, "optimizer": "sgd", "lr": 0.1}
    one, two = (train(squares, tmp_path / f"{n}", where, **changes) for n, where in enumerate(("cpu", device)))
    for key, value in one.state(1).items():
        np.testing.assert_allclose(two.state(1)[key], value, rtol=0, atol=2e-3)
