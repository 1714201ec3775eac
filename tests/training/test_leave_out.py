"""Training without the samples of some groups: the twin of a transplant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from torch import nn

import spurious_memorization as sm

Capture = pytest.CaptureFixture[str]

LEFT_OUT = "class 0 with color 1"


@pytest.fixture(scope="module")
def twin(trained: sm.Run, squares: Path, tmp_path_factory: pytest.TempPathFactory) -> sm.Run:
    """A network that continues from the first epoch without the samples of a minority group."""
    settings = sm.TrainSettings(**{**tiny.QUICK, "epochs": 2}, start=f"{trained.path}@1", leave_out=(LEFT_OUT,))
    return sm.train(squares, tmp_path_factory.mktemp("twin") / "twin", settings)


def test_the_training_is_that_of_a_folder_without_these_samples(squares: Path, trained: sm.Run, twin, tmp_path: Path):
    """There they are samples of another split, since the order of a training depends on the samples' indices."""
    folder = tmp_path / "part"
    folder.mkdir()
    table = pd.read_csv(squares / "metadata.csv")
    for name in table["path"]:
        (folder / name).symlink_to(squares / name)
    (folder / "dataset.yaml").write_text((squares / "dataset.yaml").read_text())
    table.loc[(table["split"] == "train") & (table["y"] == 0) & (table["a"] == 1), "split"] = "val"
    table.to_csv(folder / "metadata.csv", index=False)
    by_hand = sm.train(
        folder, tmp_path / "run", sm.TrainSettings(**{**tiny.QUICK, "epochs": 2}, start=f"{trained.path}@1")
    )
    assert tiny.same_networks(twin, by_hand)


def test_left_out_samples_are_still_measured(twin: sm.Run, trained: sm.Run):
    counts = [run.history().query("epoch == 1 and split == 'train'")["n"].tolist() for run in (twin, trained)]
    assert counts[0] == counts[1]
    assert twin.predictions(2, "train").index.equals(trained.predictions(2, "train").index)
    assert twin.read_data().train_counts.tolist() == trained.read_data().train_counts.tolist()


def test_what_can_not_be_left_out(squares: Path, tmp_path: Path, capsys: Capture):
    def error(*groups: str) -> str:
        flags = [f"--leave-out={name}" for name in groups]
        return tiny.spurmem(capsys, "train", squares, *tiny.train_flags(tmp_path / "run"), *flags).error

    assert "no group 'gulls': choose among" in error("gulls")
    assert "all 20 training samples have the label 'class 1'" in error(LEFT_OUT, "class 0 with color 0")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_study_of_transplants(twin: sm.Run, trained: sm.Run, tmp_path: Path):
    run = tiny.copied(trained, tmp_path / "run")
    settings = sm.StudySettings(
        units=("conv1:1,conv2:0",), edit=(f"transplant:from={twin.path}@2",), controls=0, split=("train", "test")
    )
    effects = sm.study(run, settings).effects()
    data, model = run.read_data(), run.network(3)
    other = twin.network(2)
    with torch.no_grad():
        for name, channel in (("conv1", 1), ("conv2", 0)):
            for parameter in ("weight", "bias"):
                if (own := getattr(model.get_submodule(name), parameter)) is not None:
                    own[channel] = getattr(other.get_submodule(name), parameter)[channel]
        for split in ("train", "test"):
            batch = data.samples(split).batch()
            right = (model(batch.inputs).argmax(1) == batch.y).numpy()
            for row in effects[effects["split"] == split].itertuples():
                assert row.accuracy_after == pytest.approx(right[data.samples(split).g == row.group].mean())


def test_units_that_both_trainings_left_alone_have_no_effect(trained: sm.Run, tmp_path: Path):
    """A transplant of the same numbers changes no answer by a single bit."""
    run = tiny.copied(trained, tmp_path / "run")
    settings = sm.StudySettings(units=("conv1:0,conv1:1",), edit=(f"transplant:from={run.path}@3",), controls=0)
    result = sm.study(run, settings)
    assert (result.effects()["accuracy_change"] == 0).all()
    assert (result.effects()["margin_change"] == 0).all()


def test_the_twin_must_be_there_and_fit(trained: sm.Run, tmp_path: Path, capsys: Capture):
    words = ("edit", trained.path, "--units=conv1:0", "--out", tmp_path / "new")
    assert "is not a run" in tiny.spurmem(capsys, *words, f"--edit=transplant:from={tmp_path}").error
    missing = tiny.spurmem(capsys, *words, f"--edit=transplant:from={trained.path}@7")
    assert "no checkpoint of epoch '7'" in missing.error
    said = tiny.spurmem(capsys, *words, f"--edit=transplant:from={trained.path}@1")
    assert said.status == 0, said.err
    new, old, first = (sm.Run(path).state(epoch) for path, epoch in (
        (tmp_path / "new", 3), (trained.path, 3), (trained.path, 1)
    ))  # fmt: skip
    for name, value in new.items():
        if name == "conv1.weight":
            assert torch.equal(value[0], first[name][0])
            assert torch.equal(value[1:], old[name][1:])


@pytest.mark.slow
def test_a_transplant_in_memory_needs_a_twin():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    y = np.arange(40) % 2
    data = sm.from_tensors(torch.randn(40, 3, 8, 8), y, np.where(np.arange(40) % 5, y, 1 - y))
    settings = sm.StudySettings(units=("0:3",), controls=0, edit=("transplant:from=twin",), split=("train",))
    with pytest.raises(sm.UserError, match="transplant needs the state dict of a twin: pass it as `twin`"):
        sm.study_in_memory(model, data, settings)
    twin = {name: 2 * value for name, value in model.state_dict().items()}
    found = sm.study_in_memory(model, data, settings, twin=twin).effects()
    assert (found["margin_change"] != 0).any()
    wider = {**twin, "0.weight": torch.zeros(8, 3, 3, 3)}
    with pytest.raises(sm.UserError, match="the twin is of another architecture"):
        sm.study_in_memory(model, data, settings, twin=wider)
