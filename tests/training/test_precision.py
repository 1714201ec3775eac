"""Precision auto: the faster one is chosen by measurement, stored, and kept by a resumed training."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

import spurious_memorization as sm
from spurious_memorization.networks.names import Precision
from spurious_memorization.training import precision, train

Capture = pytest.CaptureFixture[str]
CPU = torch.device("cpu")


def seconds_of(monkeypatch: pytest.MonkeyPatch, seconds: dict[Precision, float]) -> None:
    """Passes take these seconds."""
    monkeypatch.setattr(precision, "_seconds_of_pass", lambda network, inputs, y, name: seconds[name])


@pytest.mark.parametrize(("bf16", "chosen"), [(0.5, "bf16"), (0.95, "float32"), (2.0, "float32")])
def test_bf16_is_chosen_if_it_is_clearly_faster(
    bf16: float, chosen: str, model: torch.nn.Module, data: sm.Dataset, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    seconds_of(monkeypatch, {"float32": 1.0, "bf16": bf16})
    assert precision.faster_precision(model, data.train, CPU) == chosen
    assert (
        f"precision {chosen}: forward and backward passes of 16 samples take 1 s in float32" in capsys.readouterr().err
    )


def test_measuring_changes_nothing(model: torch.nn.Module, data: sm.Dataset) -> None:
    before, drawn = copy.deepcopy(model.eval().state_dict()), torch.get_rng_state()
    precision.faster_precision(model, data.train.part(range(5)), CPU)
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), drawn)


@pytest.mark.slow
@pytest.mark.parametrize("chosen", ["float32", "bf16"])
def test_the_chosen_precision_is_stored_and_trained_with(
    chosen: Precision, squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "faster_precision", lambda *_: chosen)
    auto = sm.train(squares, tmp_path / "auto", sm.TrainSettings(**{**tiny.QUICK, "precision": "auto"}))
    named = sm.train(squares, tmp_path / "named", sm.TrainSettings(**{**tiny.QUICK, "precision": chosen}))
    assert auto.record.settings == named.record.settings
    assert auto.record.settings["precision"] == chosen
    assert tiny.same_networks(auto, named)
    assert auto.history().equals(named.history())


@pytest.mark.slow
def test_a_resumed_training_keeps_the_stored_precision(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    settings, out = sm.TrainSettings(**{**tiny.QUICK, "precision": "auto"}), tmp_path / "run"
    whole = sm.train(squares, tmp_path / "whole", sm.TrainSettings(**{**tiny.QUICK, "precision": "bf16"}))
    monkeypatch.setattr(train, "faster_precision", lambda *_: "bf16")

    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as within:
        within.setattr(sm.Run, "save_training_cost", stopped)
        with pytest.raises(KeyboardInterrupt):
            sm.train(squares, out, settings)
    monkeypatch.setattr(train, "faster_precision", stopped)
    resumed = sm.train(squares, out, settings, resume=True)
    assert resumed.record.settings["precision"] == "bf16"
    assert tiny.same_networks(resumed, whole)
    flags = [part for name, value in tiny.QUICK.items() for part in (f"--{name}".replace("_", "-"), str(value))]
    error = tiny.spurmem(capsys, "train", squares, *flags, "--out", out, "--resume").error
    assert "settings.precision = 'bf16', not 'float32'" in error


@pytest.mark.slow
def test_all_seeds_take_the_precision_of_the_first(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    measured = iter(["bf16"])
    monkeypatch.setattr(train, "faster_precision", lambda *_: next(measured))
    flags = [part for name, value in tiny.QUICK.items() for part in (f"--{name}".replace("_", "-"), str(value))]
    options = ("--precision", "auto", "--seeds", "0..1", "--out", tmp_path)
    assert tiny.spurmem(capsys, "train", squares, *flags, *options).status == 0
    for seed in (0, 1):
        assert sm.Run(tmp_path / f"seed_{seed}").record.settings["precision"] == "bf16"
