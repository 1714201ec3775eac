"""Networks that were trained elsewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import tiny_networks
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import spurious_memorization as sm

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(5)
    return tiny_networks.small_convnet().eval()


def research_file(state: dict[str, Tensor], file: Path, head: str = "fc") -> Path:
    """As the research code of You et al. writes: the head inside a Sequential, position 0 for class 1."""
    renamed = {
        name.replace(f"{head}.", f"{head}.0."): value.flip(0) if name.startswith(f"{head}.") else value
        for name, value in state.items()
    }
    torch.save({"epoch": 0, "model_state_dict": renamed, "optimizer_state_dict": {}, "loss": np.float64(0.5)}, file)
    return file


def bring(squares: Path, out: Path, *files: Path, **changes: Any) -> sm.Run:
    return sm.import_network(squares, out, sm.ImportSettings(**{"model": tiny.NETWORK, **changes}, weights=files))


def predictions(network: nn.Module, squares: Path, split: str) -> np.ndarray:
    with torch.no_grad():
        return network(sm.read_data(squares).samples(split).batch().inputs).argmax(1).numpy()


def same_predictions(run: sm.Run, epoch: int, network: nn.Module, squares: Path) -> bool:
    return all(
        (run.predictions(epoch, split).to_numpy().argmax(1) == predictions(network, squares, split)).all()
        for split in ("train", "val", "test")
    )


@pytest.mark.parametrize("form", ["bare", "model", "safetensors", "data-parallel"])
def test_one_file(form: str, network: nn.Module, squares: Path, tmp_path: Path) -> None:
    state, file = network.state_dict(), tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    match form:
        case "safetensors":
            save_file(state, file)
        case "data-parallel":
            torch.save({f"module.{name}": value for name, value in state.items()}, file)
        case _:
            torch.save(state if form == "bare" else {form: state}, file)
    run = bring(squares, tmp_path / "run", file)
    assert run.record.origin == "import"
    assert run.epochs() == [1]
    assert same_predictions(run, 1, network, squares)
    assert all(torch.equal(value, run.state(1)[name]) for name, value in state.items())


def test_three_epochs_of_the_research_code(trained: sm.Run, squares: Path, tmp_path: Path, capsys: Capture) -> None:
    """Its epoch_N is the network after N + 1 epochs, and its label order is turned back."""
    files = [
        research_file(trained.state(epoch), tmp_path / f"epoch_{epoch - 1}_checkpoints.pth.tar") for epoch in (3, 1, 2)
    ]
    done = tiny.spurmem(
        capsys, "import", squares, "--model", tiny.NETWORK, *(f"--weights={file}" for file in files), "--out",
        tmp_path / "run"
    )  # fmt: skip
    assert done.status == 0, done.err
    run = sm.Run(tmp_path / "run")
    assert run.epochs() == [1, 2, 3]
    assert run.record.settings["epochs"] == [3, 1, 2]
    theirs = run.history().query("epoch > 0").drop(columns="loss").reset_index(drop=True)
    ours = trained.history().query("epoch > 0").drop(columns="loss").reset_index(drop=True)
    assert theirs.equals(ours)
    assert run.choose_epoch("best") in (1, 2, 3)
    assert all(torch.equal(value, run.state(2)[name]) for name, value in trained.state(2).items())


def test_the_research_codes_transformers(tmp_path: Path) -> None:
    data = tiny.make_images(tmp_path / "data", size=32, train=10)
    import timm

    torch.manual_seed(0)
    theirs = timm.create_model("deit_tiny_patch16_224", num_classes=2, img_size=32, depth=1).eval()
    with pytest.raises(sm.UserError, match="another architecture"):  # one block instead of twelve
        bring(data, tmp_path / "run", research_file(theirs.state_dict(), tmp_path / "w.pth", "head"), model="deit_tiny")
    theirs = timm.create_model("deit_tiny_patch16_224", num_classes=2, img_size=32).eval()
    file = research_file(theirs.state_dict(), tmp_path / "w.pth", "head")
    run = bring(data, tmp_path / "run", file, model="deit_tiny")
    assert run.record.network.norm_eps == 1e-5
    network = run.network(1)
    assert {module.eps for module in network.modules() if isinstance(module, nn.LayerNorm)} == {1e-5}
    for module in theirs.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-5
    inputs = sm.read_data(data).test.batch().inputs
    with torch.no_grad():
        torch.testing.assert_close(network(inputs), theirs(inputs))


def test_a_rewind_on_an_imported_run(trained: sm.Run, squares: Path, tmp_path: Path) -> None:
    files = []
    for epoch in (1, 2, 3):
        files.append(tmp_path / f"epoch_{epoch}.pth")
        torch.save(trained.state(epoch), files[-1])
    run = bring(squares, tmp_path / "run", *files)
    settings = sm.StudySettings(units=("conv1:2", "conv2:1"), edit=("rewind:epochs=2",), split=("test",), controls=2)
    imported, own = sm.study(run, settings), sm.study(tiny.copied(trained, tmp_path / "own"), settings)
    assert imported.results().equals(own.results())
    with pytest.raises(sm.UserError, match="needs the checkpoint of epoch 0"):
        sm.study(run, settings.model_copy(update={"edit": ("rewind:epochs=3",)}))


def test_a_class_map(squares: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    many = tiny_networks.small_convnet(5).eval()
    torch.save(many.state_dict(), tmp_path / "w.pth")
    run = bring(squares, tmp_path / "run", tmp_path / "w.pth", class_map=(3, 1))
    inputs = sm.read_data(squares).test.batch().inputs
    with torch.no_grad():
        torch.testing.assert_close(run.network(1)(inputs), many(inputs)[:, [3, 1]])
    with pytest.raises(sm.UserError, match="the network has 5 outputs but the data have 2 classes: give --class-map"):
        bring(squares, tmp_path / "other", tmp_path / "w.pth")
    for wrong in ((3,), (3, 3), (1, 2, 3)):
        with pytest.raises(sm.UserError, match="must name 2 different outputs"):
            bring(squares, tmp_path / "other", tmp_path / "w.pth", class_map=wrong)
    for wrong in ((0, 5), (-1, 0)):
        with pytest.raises(sm.UserError, match="names an output that the network does not have"):
            bring(squares, tmp_path / "other", tmp_path / "w.pth", class_map=wrong)
    assert not (tmp_path / "other").exists()


def test_epochs_from_names_or_settings(network: nn.Module, squares: Path, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a-epoch10.pth", "b_epoch_2.pth", "last.pth")]
    for file in files:
        torch.save(network.state_dict(), file)
    assert bring(squares, tmp_path / "named", *files[:2]).epochs() == [2, 10]
    assert bring(squares, tmp_path / "numbered", *files).epochs() == [1, 2, 3]
    assert bring(squares, tmp_path / "recorded", *files, epochs=(0, 7, 5)).epochs() == [0, 5, 7]


@pytest.mark.parametrize("epochs", [(1, 1), (1,), (1, 2, 3), (-1, 2)])
def test_epochs_that_clash(epochs: tuple[int, ...], network: nn.Module, squares: Path, tmp_path: Path) -> None:
    files = [tmp_path / "a.pth", tmp_path / "b.pth"]
    for file in files:
        torch.save(network.state_dict(), file)
    with pytest.raises(sm.UserError, match=re.escape(f"not {list(epochs)}: give them with --epochs")):
        bring(squares, tmp_path / "run", *files, epochs=epochs)
    assert not (tmp_path / "run").exists()


def test_names_that_clash(network: nn.Module, squares: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    files = [tmp_path / "epoch_1.pth", tmp_path / "other" / "epoch_1.pth"]
    for file in files:
        torch.save(network.state_dict(), file)
    with pytest.raises(sm.UserError, match="2 different epochs"):
        bring(squares, tmp_path / "run", *files)


def test_an_existing_run_is_kept(trained: sm.Run, network: nn.Module, squares: Path, tmp_path: Path) -> None:
    torch.save(network.state_dict(), tmp_path / "w.pth")
    run = tiny.copied(trained, tmp_path / "run")
    with pytest.raises(sm.UserError, match="exists"):
        bring(squares, run.path, tmp_path / "w.pth")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").write_text("mine")
    with pytest.raises(sm.UserError, match="exists and is not empty"):
        bring(squares, tmp_path / "folder", tmp_path / "w.pth")
    assert tiny.same_networks(run, trained)
    assert tiny.files_below(tmp_path / "folder") == {"mine"}


def test_nothing_is_left_when_measuring_fails(network: nn.Module, tmp_path: Path) -> None:
    data = tiny.make_images(tmp_path / "data")
    (data / "test_1_00.png").write_bytes((data / "test_1_00.png").read_bytes()[:200])
    torch.save(network.state_dict(), tmp_path / "w.pth")
    before = tiny.files_below(tmp_path)
    with pytest.raises(sm.UserError, match=r"test_1_00\.png can't be read"):
        bring(data, tmp_path / "run", tmp_path / "w.pth")
    assert tiny.files_below(tmp_path) == before
    assert not (tmp_path / "run").exists()
