"""Numbers that nobody can mean, and sizes that no machine has: one line, before any work starts."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import nn

import spurious_memorization as sm
from spurious_memorization import resources
from spurious_memorization.networks.activations import check_pass_fits
from spurious_memorization.settings import MAX_SEED

Capture = pytest.CaptureFixture[str]
Monkeypatch = pytest.MonkeyPatch

HUGE = "9" * 5000
BIG = 10**9


@pytest.mark.parametrize("value", [HUGE, str(MAX_SEED + 1), "-1", "nan"])
@pytest.mark.parametrize("flag", ["--seed", "--split-seed"])
def test_seeds(flag: str, value: str, squares: Path, tmp_path: Path, capsys: Capture) -> None:
    flags = tiny.train_flags(tmp_path / "out")
    error = tiny.spurmem(capsys, "train", squares, *flags, f"{flag}={value}").error
    assert "seed" in error
    assert len(error) < 400
    assert not (tmp_path / "out").exists()


def test_the_largest_seed_trains(squares: Path, tmp_path: Path) -> None:
    settings = sm.TrainSettings(**{**tiny.QUICK, "epochs": 1, "seed": MAX_SEED, "split_seed": MAX_SEED})
    assert sm.train(squares, tmp_path / "run", settings).epochs() == [0, 1]


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        (f"--epochs={BIG}", "1000000"),
        (f"--epochs={HUGE}", "(5000 digits)"),
        (f"--batch-size={BIG}", "10000000"),
        ("--lr=inf", "finite"),
        ("--lr=nan", "finite"),
        ("--weight-decay=inf", "finite"),
        ("--image-size=100000", "4096"),
        (f"--workers={BIG}", "256"),
        (f"--eval-batch-size={BIG}", "10000000"),
        (f"--checkpoint-every={BIG}", "1000000"),
        (f"--seeds=0..{BIG}", f"{BIG + 1} seeds: choose at most 10000"),
        (f"--seeds=0..{HUGE}", "seed 99999999999999999999... (5000 digits) is too large"),
        (f"--from=nowhere@{HUGE}", "nowhere is not a run"),
        (f"--objective=jtt:errors_of=x@1,upweight={BIG}", "100000"),
        ("--objective=dfr:strengths=-1", "strengths"),
        ("--objective=dfr:strengths=nan", "strengths"),
        (f"--objective=dfr:draws={BIG}", "100000"),
        ("--objective=group-dro:step=inf", "finite"),
    ],
)
def test_settings_of_a_training(flag: str, message: str, squares: Path, tmp_path: Path, capsys: Capture) -> None:
    usual = [one for one in tiny.train_flags(tmp_path / "out") if one.split("=")[0] != flag.split("=")[0]]
    error = tiny.spurmem(capsys, "train", squares, *usual, flag).error
    assert message in error
    assert len(error) < 500
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("study", f"--size=1..{BIG}"), f"size {BIG} is too large"),
        (("study", "--size=1..1000000"), "1000000 sizes: choose at most 10000"),
        (("study", f"--size={HUGE}"), "(5000 digits) is too large"),
        (("study", f"--repeats={BIG}"), "repeats"),
        (("study", f"--controls={BIG}"), "controls"),
        (("study", f"--per-group={HUGE}"), "per-group"),
        (("study", f"--units=conv1:{HUGE}"), "unit 99999999999999999999... (5000 digits) is too large"),
        (("study", f"--edit=random_noise:std={HUGE}"), "std inf"),
        (("study", f"--edit=rewind:epochs={HUGE}"), "needs a whole number of epochs"),
        (("study", f"--pseudo-minority={BIG**3}"), "pseudo-minority"),
        (("trace", f"--epoch={HUGE}"), "no checkpoint of epoch"),
        (("trace", f"--n-hardest={BIG}"), "n-hardest"),
        (("trace", f"--show={HUGE}"), "show"),
        (("trace", "--show=0"), "show"),
        (("edit", f"--units=conv1:{BIG**2}", "--out=x"), "is too large"),
        (("edit", "--units=conv1:1", f"--seed={HUGE}", "--out=x"), "seed"),
        (("edit", "--units=conv1:1", f"--edit=random_noise:std=1{'0' * 400}", "--out=x"), "std inf"),
    ],
)
def test_settings_of_a_study(arguments: tuple[str, ...], message: str, trained: sm.Run, capsys: Capture) -> None:
    command, *flags = arguments
    error = tiny.spurmem(capsys, command, trained.path, *flags).error
    assert message in error
    assert len(error) < 500


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("calibrate", f"--networks={BIG}"), "networks"),
        (("calibrate", "--on=processes:0"), "processes:N with N from 1 to 256"),
        (("study", "run", f"--on=processes:{BIG}"), "processes:N with N from 1 to 256"),
        (("demo", f"--train={HUGE}"), "train"),
        (("data", "make", "synthbirds", f"--train={BIG}"), "train"),
        (("data", "make", "colored-digits", f"--digits=0..{BIG}"), "among 0..9"),
        (("data", "make", "colored-digits", f"--digits={HUGE},1"), "among 0..9"),
    ],
)
def test_settings_of_other_commands(
    arguments: tuple[str, ...], message: str, tmp_path: Path, capsys: Capture, monkeypatch: Monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in tiny.spurmem(capsys, *arguments, "--out", tmp_path / "out").error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("changes", [{"jtt_upweights": (BIG,)}, {"jtt_epochs": (0,)}, {"finetune_lr": float("nan")}])
def test_settings_of_mitigation(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        sm.MitigateSettings(**changes)


def test_a_generated_data_set_that_fits_nowhere(tmp_path: Path, capsys: Capture, monkeypatch: Monkeypatch) -> None:
    flags = ("--train=10000000", "--out", tmp_path / "birds")
    usage = resources.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(resources, "memory_bytes", lambda: 10**12)
    monkeypatch.setattr(resources.shutil, "disk_usage", lambda _: usage._replace(free=10**10))
    error = tiny.spurmem(capsys, "data", "make", "synthbirds", *flags).error
    assert f"10,001,800 images need 41.0 GB but {tmp_path / 'birds'} has 10.0 GB" in error
    monkeypatch.setattr(resources, "memory_bytes", lambda: 10**9)
    error = tiny.spurmem(capsys, "data", "make", "synthbirds", *flags).error
    assert "the table of 10,001,800 images need 5.0 GB of memory, and 1.0 GB are there" in error
    assert not (tmp_path / "birds").exists()


@pytest.mark.slow
def test_images_larger_than_the_memory(
    squares: Path, tmp_path: Path, capsys: Capture, monkeypatch: Monkeypatch
) -> None:
    monkeypatch.setattr(resources, "memory_bytes", lambda: 8 * 10**9)
    flags = tiny.train_flags(tmp_path / "out", image_size=4096)
    error = tiny.spurmem(capsys, "train", squares, *flags).error
    assert "batches of 40 images of 4096x4096 need 10.1 GB of memory, and 8.0 GB are there" in error


def test_activations_larger_than_the_memory(monkeypatch: Monkeypatch) -> None:
    model = nn.Sequential(nn.Conv2d(3, 100, 1), nn.Conv2d(100, 50, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    inputs = torch.zeros(4, 3, 32, 32)  # 48 kB; the convolutions give 1.6 and 0.8 MB
    for module, name in ((resources, "memory_bytes"), (sys.modules[check_pass_fits.__module__], "memory_bytes")):
        monkeypatch.setattr(module, name, lambda: 2_000_000)
    check_pass_fits(model.eval(), inputs, remedy="help")
    with pytest.raises(sm.UserError, match="the activations of a batch of 4 inputs need"):
        check_pass_fits(model.train(), inputs, remedy="help")


def test_the_outcomes_of_too_many_edits(monkeypatch: Monkeypatch) -> None:
    data = sm.from_tensors(torch.zeros(10, 2), y=[0, 1] * 5, a=[0] * 10)
    monkeypatch.setattr(resources, "memory_bytes", lambda: 99)
    with pytest.raises(sm.UserError, match="10 outcomes need"):
        sm.evaluate(nn.Linear(2, 2), [], data.train)


@pytest.mark.skipif(sys.platform == "win32", reason="has no such limit")
def test_a_limit_of_the_process_counts() -> None:
    def limited() -> None:
        there = resources.memory_bytes()
        resource.setrlimit(resource.RLIMIT_AS, (10**9, 10**9))
        raise SystemExit(7 if there and there > 10**9 == resources.memory_bytes() else 1)

    assert tiny.in_child(limited) == 7


def test_exhausted_memory_is_one_line(squares: Path, tmp_path: Path, capsys: Capture, monkeypatch: Monkeypatch) -> None:
    def exhausted(*_: object) -> None:
        torch.empty(2**60, dtype=torch.uint8)

    monkeypatch.setattr("spurious_memorization.training.loop.build_optimizer", exhausted)
    error = tiny.spurmem(capsys, "train", squares, *tiny.train_flags(tmp_path / "out")).error
    assert error.startswith("spurmem: memory is exhausted")
