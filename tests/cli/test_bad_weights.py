"""Broken weight files and checkpoints: an error of one line, and nothing is written or run."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

import spurious_memorization as sm

pytestmark = pytest.mark.filterwarnings("ignore:all .* samples .* are classified correctly", "ignore:only .* null sets")

Capture = pytest.CaptureFixture[str]


class Runs:
    """An object that would write a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self.file, "run"))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("other architecture", "of another architecture"),
        ("truncated", "w.pth is truncated"),
        ("empty", "w.pth is truncated"),
        ("malicious", "can't be read safely"),
        ("malicious, old format", "w.pth"),
        ("text", "w.pth"),
        ("a tensor", "holds a Tensor, not a state dict"),
        ("nothing", "holds no state dict"),
        ("missing", "does not exist"),
        ("truncated safetensors", "is truncated or no safetensors file"),
        ("wrong digits", "its SHA-256 starts with"),
    ],
)
@pytest.mark.parametrize("command", ["import", "train"])
def test_a_weight_file_that_is_not_usable(
    command: str, what: str, message: str, squares: Path, tmp_path: Path, capsys: Capture, trained: sm.Run
) -> None:
    file, state = tmp_path / "w.pth", trained.state(3)
    match what:
        case "other architecture":
            torch.save({**state, "conv2.weight": torch.zeros(16, 8, 3, 3)}, file)
        case "truncated":
            torch.save(state, file)
            file.write_bytes(file.read_bytes()[:1500])
        case "empty":
            file.touch()
        case "malicious":
            torch.save({**state, "extra": Runs(tmp_path / "ran")}, file)
        case "malicious, old format":
            file.write_bytes(pickle.dumps({"extra": Runs(tmp_path / "ran")}))
        case "text":
            file.write_text("weights\n")
        case "a tensor":
            torch.save(torch.zeros(3), file)
        case "nothing":
            torch.save({"epoch": 3}, file)
        case "truncated safetensors":
            file = tmp_path / "w.safetensors"
            file.write_bytes(trained.checkpoint(3).read_bytes()[:1000])
        case "wrong digits":
            file = tmp_path / "resnet50-0676ba61.pth"
            torch.save(state, file)
    flags = ("--model", tiny.NETWORK, "--weights", file, "--out", tmp_path / "out")
    assert message in tiny.spurmem(capsys, command, squares, *flags).error
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("what", ["truncated", "missing", "other"])
def test_a_spoiled_checkpoint(what: str, run: sm.Run, capsys: Capture) -> None:
    checkpoint = run.checkpoint(3)
    match what:
        case "truncated":
            checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
        case "missing":
            checkpoint.unlink()
        case _:
            shutil.copy(next((run.path / "checkpoints").glob("epoch_002*")), checkpoint)
            record = (run.path / "run.json").read_text()
            (run.path / "run.json").write_text(record.replace("small_convnet", "wider_convnet"))
    before = tiny.contents(run.path)
    for command in ("trace", "study"):
        error = tiny.spurmem(capsys, command, run.path, "--epoch=3", "--criterion=magnitude").error
        assert {"truncated": "is broken", "missing": "no checkpoint of epoch '3'", "other": "architecture"}[
            what
        ] in error
    assert tiny.contents(run.path) == before
    if what != "other":
        assert tiny.spurmem(capsys, "trace", run.path, "--epoch=2", "--criterion=magnitude").status == 0
