"""What holds for several objectives: resuming, and errors before training starts."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tiny
import torch
from tiny_training import FIT_HEADS, TRAIN_ALL_LAYERS, settings, without_group

import spurious_memorization as sm

Capture = pytest.CaptureFixture[str]


OBJECTIVES = (
    "erm-continue",
    "pruned-contrast:fraction=0.1",
    "pruned-contrast:mask=random,fraction=0.1,refresh=false,running_statistics=dense-pruned-dense",
    "pruned-contrast:mask=gradient,fraction=0.1,refresh=false",
    *TRAIN_ALL_LAYERS,
    "weight-averaging:decay=0.5",
)
HEADS = (*FIT_HEADS, "prune-critical:n=2,random=true")
QUICK = ("pruned-contrast:fraction=0.1", "jtt", "self:early=1,n=4,lrs=0.1")
"""The others are killed and resumed in the slow tests."""


def mostly_slow(texts: tuple[str, ...]) -> list[Any]:
    return [text if text in QUICK else pytest.param(text, marks=pytest.mark.slow) for text in texts]


@pytest.mark.parametrize("text", mostly_slow(OBJECTIVES))
def test_killed_and_resumed(text: str, squares: Path, trained: sm.Run, tmp_path: Path) -> None:
    text = f"jtt:errors_of={tmp_path / 'start'}@1,upweight=3" if text == "jtt" else text
    tiny.copied(trained, tmp_path / "start")
    start = {"from": str(tmp_path / "start")} if text.startswith(("erm-", "pruned")) else {}
    recorded = settings(text, **start)

    def child() -> None:
        def killed(state: dict[str, Any], file: Path) -> None:
            torch_save(state, file)
            if state["epoch"] == 2:
                os.kill(os.getpid(), signal.SIGKILL)

        torch_save = torch.save
        torch.save = killed  # type: ignore[assignment]
        sm.train(squares, tmp_path / "run", recorded)

    assert tiny.in_child(child) == -signal.SIGKILL
    if text.startswith("jtt"):  # the errors are stored: they must not be looked for again
        (tmp_path / "start" / "predictions").rename(tmp_path / "gone")
    resumed = sm.train(squares, tmp_path / "run", recorded, resume=True)
    if text.startswith("jtt"):
        (tmp_path / "gone").rename(tmp_path / "start" / "predictions")
    whole = sm.train(squares, tmp_path / "whole", recorded)
    assert tiny.same_networks(resumed, whole)
    pd.testing.assert_frame_equal(resumed.history(), whole.history())
    assert resumed.record.training_cost is not None
    assert whole.record.training_cost is not None
    assert resumed.record.training_cost.sample_passes == whole.record.training_cost.sample_passes
    assert resumed.record.training_cost.sample_passes_before == whole.record.training_cost.sample_passes_before


@pytest.mark.parametrize("text", mostly_slow(HEADS))
def test_a_new_head_killed_and_resumed(text: str, squares: Path, trained: sm.Run, tmp_path: Path) -> None:
    recorded = settings(text, start=f"{trained.path}@3")

    def child() -> None:
        def killed(state: dict[str, Any], file: Path) -> None:
            if state["epoch"] == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            torch_save(state, file)

        torch_save = torch.save
        torch.save = killed  # type: ignore[assignment]
        sm.train(squares, tmp_path / "run", recorded)

    assert tiny.in_child(child) == -signal.SIGKILL
    resumed = sm.train(squares, tmp_path / "run", recorded, resume=True)
    whole = sm.train(squares, tmp_path / "whole", recorded)
    assert resumed.epochs() == [0, 1]
    assert tiny.same_networks(resumed, whole)
    assert not tiny.same_networks(whole, trained)


@pytest.mark.parametrize("text", HEADS)
def test_a_new_head_needs_a_linear_layer(text: str, squares: Path, tmp_path: Path, capsys: Capture) -> None:
    flags = ("--model", "tiny_networks:conv_head", "--epochs", 1, "--batch-size", 8)
    tiny.spurmem(capsys, "train", squares, *flags, "--out", tmp_path / "erm")
    error = tiny.spurmem(
        capsys, "train", squares, *flags, "--objective", text, "--from", tmp_path / "erm", "--out", tmp_path / "run"
    ).error
    assert "one linear layer that gives the logits; here it is" in error
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize("text", ["reweighting", "balanced-sampling", "subsampling", "group-dro", "lisa"])
def test_a_group_without_training_samples(text: str, squares: Path, tmp_path: Path, capsys: Capture) -> None:
    folder = without_group(squares, tmp_path / "data", "train")
    flags = ("--model", tiny.NETWORK, "--epochs", 1, "--out", tmp_path / "run", "--objective")
    error = tiny.spurmem(capsys, "train", folder, *flags, text).error
    assert f"group 'class 1 with color 1' has no training sample, which {text} needs" in error
    assert not (tmp_path / "run").exists()
    assert tiny.spurmem(capsys, "train", folder, *flags, "reweighting:by=class").status == 0


@pytest.mark.parametrize(
    "text", ["erm-continue", "pruned-contrast", "afr", "self", "dfr", "dpe", "neuron-tune", "eva", "prune-critical"]
)
def test_what_continues_needs_a_start(text: str, squares: Path, tmp_path: Path, capsys: Capture) -> None:
    error = tiny.spurmem(capsys, "train", squares, "--objective", text, "--out", tmp_path / "run").error
    assert f"{text} continues a trained network: name it with --from RUN@EPOCH" in error
