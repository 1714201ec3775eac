"""The flow through the command line with `--device cuda`."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny

import spurious_memorization as sm

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore"),  # few controls; all training samples are right
]

Capture = pytest.CaptureFixture[str]

STUDY = (
    "--criterion", "gradient", "--size", "1..2", "--edit", "zero", "--controls", 19, "--per-group", 4,
    "--name", "small",
)  # fmt: skip


def test_train_and_study(device: str, squares: Path, tmp_path: Path, capsys: Capture) -> None:
    run = tmp_path / "run"
    assert tiny.spurmem(capsys, "train", squares, *tiny.train_flags(run), "--device", device).status == 0
    said = tiny.spurmem(capsys, "study", run, *STUDY, "--device", device)
    assert said.status == 0, said.err
    study = sm.Study(run / "studies" / "small")
    assert study.record["engine"] == "shared prefix"
    keys = ["split", "group"]
    measured = study.results().query("subset == 'all'").groupby(["variant", *keys])[["n", "correct_before"]].sum()
    trained = sm.Run(run).history().query("epoch == 3").set_index(keys)[["n", "correct"]]
    both = measured.join(trained, rsuffix="_trained").query("n == n_trained")
    assert len(both) >= 16  # two sets, two splits, four groups; other variants are measured on fewer samples
    assert (both["correct_before"] == both["correct"]).all()


def test_memorization_scores(device: str, squares: Path, tmp_path: Path, capsys: Capture) -> None:
    flags = ("--model", tiny.NETWORK, "--epochs", 1, "--batch-size", 8, "--networks", 2, "--workers", 0)
    said = tiny.spurmem(capsys, "memorization", squares, *flags, "--out", tmp_path / "scores", "--device", device)
    assert said.status == 0, said.err
    assert sm.MemorizationScores(tmp_path / "scores").networks() == [0, 1]


def test_a_device_with_a_wrong_number_is_an_error(device: str, squares: Path, tmp_path: Path, capsys: Capture) -> None:
    flags = ("--out", tmp_path / "run", "--device", f"{device}:99")
    assert f"no device '{device}:99' here" in tiny.spurmem(capsys, "train", squares, *flags).error
