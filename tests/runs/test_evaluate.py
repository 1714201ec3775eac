"""A network whose answers are not finite is an error wherever answers count, not an answer of class 0."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import tiny_networks
import torch
from torch import nn

import spurious_memorization as sm
from spurious_memorization.networks.names import Precision

Capture = pytest.CaptureFixture[str]


def broken(value: float) -> nn.Module:
    """A network with the logit `value` for class 1 of every sample."""
    model = tiny_networks.small_convnet()
    with torch.no_grad():
        model.get_submodule("fc").bias[1] = value
    return model


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_import_names_the_network_and_the_first_sample(
    value: float, squares: Path, tmp_path: Path, capsys: Capture
) -> None:
    torch.save(broken(value).state_dict(), tmp_path / "broken.pth")
    out, file = tmp_path / "run", tmp_path / "broken.pth"
    said = tiny.spurmem(capsys, "import", squares, "--model", tiny.NETWORK, "--weights", file, "--out", out)
    assert "epoch 1" in said.error
    assert "no finite number for sample 0 (train_0_00.png)" in said.error
    assert not out.exists()


def test_a_training_that_diverges_in_its_last_step_keeps_the_earlier_epochs(
    squares: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "run"
    flags = tiny.train_flags(out, epochs=1, batch_size=40, optimizer="sgd", lr=1e38)  # one step, whose loss is finite
    said = tiny.spurmem(capsys, "train", squares, *flags, "--no-augment")
    assert f"the network of epoch 1 of {out} gives no finite number for sample 0 (train_0_00.png)" in said.error
    assert said.error.endswith("train again with a lower --lr")
    run = sm.Run(out)
    assert run.epochs() == [0]
    assert set(run.history()["epoch"]) == {0}
    assert {file.name for file in (out / "predictions").iterdir()} == {
        f"epoch_000_{split}.parquet" for split in ("train", "val", "test")
    }


def test_starting_weights_are_measured_before_the_first_step(squares: Path, tmp_path: Path, capsys: Capture) -> None:
    torch.save(broken(math.nan).state_dict(), tmp_path / "broken.pth")
    flags = tiny.train_flags(tmp_path / "run", weights=tmp_path / "broken.pth")
    assert "look for NaN in the weights" in tiny.spurmem(capsys, "train", squares, *flags).error


def test_an_edited_network_is_not_saved(trained: sm.Run, tmp_path: Path, capsys: Capture) -> None:
    flags = ("--units=conv2:1", "--edit=random_noise:std=1e38", "--out", tmp_path / "out")
    assert "choose a smaller edit" in tiny.spurmem(capsys, "edit", trained.path, *flags).error
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "use",
    [
        lambda model, data: sm.evaluate(model, [], data.train),
        lambda model, data: sm.hardest_samples(model, data.train, n=4),
        lambda model, data: sm.criteria.gradient(model, data.train),
        lambda model, data: sm.criteria.taylor(model, data.train.batch()),
        lambda model, data: sm.ablation_map(model, data.train),
    ],
    ids=["evaluate", "hardest", "gradient", "taylor", "ablation_map"],
)
def test_every_measurement_refuses_a_broken_network(
    use: Callable[[nn.Module, sm.Dataset], object], squares: Path
) -> None:
    with pytest.raises(sm.UserError, match="no finite number for sample 0"):
        use(broken(math.nan).eval(), sm.read_data(squares))


@pytest.mark.parametrize("dtype", ["float32", "bf16"])
def test_an_edit_that_overflows_is_named(dtype: Precision, squares: Path) -> None:
    model, data = tiny_networks.small_convnet().eval(), sm.read_data(squares)
    units = sm.parse_units(model, "conv2:0,conv2:2,conv2:1,conv1:0")
    edits = [sm.edits.zero(units), sm.edits.random_noise(units, std=3e38)]
    message = r"the edit random_noise:std=3e\+38 of conv2:0,conv2:2,conv2:1,\.\.\. gives no finite number for sample 0"
    with pytest.raises(sm.UserError, match=message):
        sm.evaluate(model, edits, data.train, precision=dtype)


def test_finite_answers_are_measured(squares: Path) -> None:
    outcomes = sm.evaluate(tiny_networks.small_convnet().eval(), [], sm.read_data(squares).train)
    assert outcomes.before.loss.shape == (1, 40)
