"""The network whose weights come with this package: its file, its start, and what its weights have learned."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file

import spurious_memorization as sm
from pretraining.__main__ import main, predicted
from pretraining.species import SPLIT_OF_SPECIES, draw_species
from spurious_memorization.datasets.samples import SPLITS
from spurious_memorization.datasets.settings import SynthbirdsSettings
from spurious_memorization.datasets.synthbirds.make import make_synthbirds
from spurious_memorization.networks import birds_resnet18
from spurious_memorization.networks.build import NetworkSettings, build_pretrained
from spurious_memorization.training.recipes import expanded

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def birds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "birds"
    make_synthbirds(folder, SynthbirdsSettings(train=60, val=16, test=16))
    return folder


def test_the_file_is_small_and_holds_the_whole_network() -> None:
    assert birds_resnet18.WEIGHTS.stat().st_size <= 1_000_000
    stored = load_file(birds_resnet18.WEIGHTS)
    built = build_pretrained(NetworkSettings(model="birds_resnet18", n_classes=80))[0].state_dict()
    assert stored.keys() == built.keys()
    for name, value in stored.items():
        assert torch.equal(built[name], value.to(built[name].dtype)), name


def test_another_number_of_classes_gets_a_head_at_random() -> None:
    stored = load_file(birds_resnet18.WEIGHTS)
    built = build_pretrained(NetworkSettings(model="birds_resnet18", n_classes=2))[0].state_dict()
    assert built["fc.weight"].shape == (2, 96)
    assert torch.equal(built["conv1.weight"], stored["conv1.weight"].float())


@pytest.mark.slow
def test_it_tells_species_and_places_apart_on_images_it_was_not_trained_on() -> None:
    images, species, place = draw_species(range(20_000, 20_240), 40, 64, seed=0)
    assert len(images) == 240
    model = build_pretrained(NetworkSettings(model="birds_resnet18", n_classes=80))[0].eval()
    found = predicted(model, images).numpy()
    assert (found % 2 == place).mean() > 0.97
    assert (found // 2 == species).mean() > 0.35  # chance is 2.5 %


def test_no_image_of_synthbirds_is_among_the_species() -> None:
    assert SPLIT_OF_SPECIES not in range(len(SPLITS))


def test_synthbirds_start_from_it_by_default(birds: Path, tmp_path: Path, capsys: Capture) -> None:
    said = tiny.spurmem(capsys, "train", birds, "--epochs=1", "--out", tmp_path / "run")
    assert said.status == 0, said.err
    assert "weights: those that come with this package for birds_resnet18" in said.err
    run = sm.Run(tmp_path / "run")
    assert run.record.settings["weights"] == "package"
    assert run.record.network.model == "birds_resnet18"
    assert torch.equal(run.state(0)["conv1.weight"], load_file(birds_resnet18.WEIGHTS)["conv1.weight"].float())
    assert not run.record.trained_start


def test_a_named_network_or_other_data_start_as_before(birds: Path, squares: Path) -> None:
    of_birds = sm.read_data(birds)
    assert expanded(sm.TrainSettings(), of_birds).weights == "package"
    named = expanded(sm.TrainSettings(model="resnet18"), of_birds)
    assert (named.model, named.weights, named.optimizer, named.epochs) == ("resnet18", "none", "adam", 12)
    assert expanded(sm.TrainSettings(weights="none"), of_birds).weights == "none"
    others = expanded(sm.TrainSettings(), sm.read_data(squares))
    assert (others.model, others.weights) == ("resnet18", "none")


def test_no_other_network_has_weights_in_the_package(squares: Path, tmp_path: Path, capsys: Capture) -> None:
    words = ("train", squares, "--model", tiny.NETWORK, "--weights=package", "--out", tmp_path / "run")
    assert "no weights of tiny_networks:small_convnet come with this package" in tiny.spurmem(capsys, *words).error


@pytest.mark.slow
def test_the_command_that_made_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "weights.safetensors"
    flags = ["--images=300", "--species=2", "--epochs=1", f"--out={out}"]
    monkeypatch.setattr(sys, "argv", ["pretraining", *flags])
    main()
    first = load_file(out)
    assert first["fc.weight"].shape == (4, 96)
    assert {value.dtype for name, value in first.items() if name.endswith("weight")} == {torch.float16}
    assert np.isfinite(first["conv1.weight"].float().numpy()).all()
