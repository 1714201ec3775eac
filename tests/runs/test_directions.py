"""A run with directions: every command works on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny import files_below, spurmem, train_flags

import spurious_memorization as sm

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def features(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_file({"decoder": torch.randn(9, 12)}, tmp_path / "features.safetensors")
    return tmp_path / "features.safetensors"


@pytest.mark.slow
def test_commands_work_on_directions(trained: sm.Run, features: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out"
    flags = ["--layer=relu2", f"--file={features}", "--random=20", "--out", out]
    assert spurmem(capsys, "directions", trained.path, *flags).status == 0
    run, data = sm.Run(out), trained.read_data()
    network, before = run.network(run.epochs()[-1]), trained.network(trained.epochs()[-1])
    inputs = data.test.batch().inputs
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(inputs), before.eval()(inputs), rtol=0, atol=1e-5)
    assert network.relu2.directions.weight.shape == (29, 12)
    assert run.record.origin == "directions"
    traced = spurmem(capsys, "trace", out, "--tensors=*.directions", "--criterion=weight_norm")
    assert "relu2.directions:" in traced.out
    study = ["--tensors=*.directions", "--criterion=weight_norm", "--controls=9", "--size=1..2", "--edit=mean"]
    assert spurmem(capsys, "study", out, *study, "--edit=zero", "--name=mine").status == 0
    effects = sm.Study(out / "studies" / "mine").effects()
    assert set(effects["n_controls"]) == {9}
    assert effects["verdict"].notna().all()
    assert spurmem(capsys, "report", out).status == 0
    edited = tmp_path / "edited"
    assert spurmem(capsys, "edit", out, "--units=relu2.directions:3", "--edit=mean", "--out", edited).status == 0
    assert sm.Run(edited).network(run.epochs()[-1]).relu2.directions.bias.count_nonzero() == 1


def test_a_run_without_directions_agrees_with_nothing(
    trained: sm.Run, features: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out"
    spurmem(capsys, "directions", trained.path, "--layer=relu2", f"--file={features}", "--out", out)
    flags = ["--tensors=*.directions", "--criterion=weight_norm", "--size=1", "--edit=zero", "--agreement-with"]
    said = spurmem(capsys, "study", out, *flags, trained.path)
    assert f"--agreement-with {trained.path} has other channels" in said.error
    assert not (out / "studies").exists()


def test_mistakes_have_one_line(trained: sm.Run, features: Path, tmp_path: Path, capsys: Capture) -> None:
    def error(*flags: str) -> str:
        return spurmem(capsys, "directions", trained.path, *flags, "--out", tmp_path / "out").error

    given = f"--file={features}"
    assert "no layer 'relu3': close are relu2, relu1" in error("--layer=relu3", given)
    assert "have width 12, but layer relu1 gives a tensor of shape" in error("--layer=relu1", given)
    assert "does not exist" in error("--layer=relu2", "--file=nothing.safetensors")
    assert "exists" in spurmem(capsys, "directions", trained.path, "--layer=relu2", given, "--out", trained.path).error
    assert "no layer '': it has conv1, " in error("--layer=", given)
    save_file({"decoder": torch.ones(9, 12, dtype=torch.complex64)}, tmp_path / "complex.safetensors")
    assert "must be real numbers" in error("--layer=relu2", f"--file={tmp_path / 'complex.safetensors'}")
    assert files_below(tmp_path) == {"features.safetensors", "complex.safetensors"}


def test_training_on_is_refused(
    trained: sm.Run, squares: Path, features: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out"
    spurmem(capsys, "directions", trained.path, "--layer=relu2", f"--file={features}", "--out", out)
    error = spurmem(capsys, "train", squares, *train_flags(tmp_path / "more"), "--from", out).error
    assert "its network has directions, which can't be trained: start from the run without directions" in error
    error = spurmem(capsys, "train", squares, *train_flags(out), "--resume").error
    assert "was made by `spurmem directions`, so it has no training to continue" in error


@pytest.mark.slow
def test_directions_of_several_layers(trained: sm.Run, features: Path, tmp_path: Path, capsys: Capture) -> None:
    save_file({"decoder": torch.eye(8)}, tmp_path / "eye.safetensors")
    one, two = tmp_path / "one", tmp_path / "two"
    spurmem(capsys, "directions", trained.path, "--layer=relu2", f"--file={features}", "--out", one)
    printed = spurmem(
        capsys, "directions", one, "--layer=conv1", f"--file={tmp_path / 'eye.safetensors'}", "--out", two
    )
    assert printed.status == 0
    network = sm.Run(two).network(trained.epochs()[-1])
    data = trained.read_data().train
    plain = trained.network(trained.epochs()[-1])
    alone = [
        sm.evaluate(of, sm.edits.zero(sm.parse_units(of, unit, sm.Selection(with_bias=False))), data).after.loss
        for of, unit in ((network, "conv1.directions:3"), (plain, "conv1:3"))
    ]
    np.testing.assert_allclose(*alone, rtol=1e-4, atol=1e-5)  # the third axis is the third channel, without a bias


@pytest.mark.parametrize("unit", ["conv1:1", "relu2.directions:1"])
def test_a_transplant_needs_the_same_directions(
    unit: str, trained: sm.Run, features: Path, tmp_path: Path, capsys: Capture
) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    for place, layer in ((out, "relu2"), (other, "conv2")):
        spurmem(capsys, "directions", trained.path, f"--layer={layer}", f"--file={features}", "--out", place)
    words = ("edit", out, f"--units={unit}", "--out", tmp_path / "edited", "--edit")
    named = f"{out} has 9 directions of width 12 in relu2, but its twin"
    for twin, has in ((trained.path, "no directions"), (other, "9 directions of width 12 in conv2")):
        error = spurmem(capsys, *words, f"transplant:from={twin}").error
        assert f"{named} {twin} has {has}: give both the same ones with `spurmem directions`" in error
    assert spurmem(capsys, *words, f"transplant:from={out}@3").status == 0


def test_a_twin_in_memory_needs_the_same_directions(trained: sm.Run) -> None:
    plain = trained.network(3)
    network = sm.with_directions(plain, "relu2", torch.randn(9, 12))
    edit = sm.edits.transplant(sm.parse_units(network, "relu2.directions:1"), plain)
    with pytest.raises(sm.UserError, match="the twin has no directions in relu2: give it the same ones"):
        sm.edits.edited(network, edit)
