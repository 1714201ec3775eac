"""Networks that were trained elsewhere."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import tiny_networks
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor, nn

import spurious_memorization as sm
from spurious_memorization.networks.build import NetworkSettings, build

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


@pytest.mark.slow
def test_the_research_codes_transformers(tmp_path: Path) -> None:
    data, file = tiny.make_images(tmp_path / "data", size=32, train=10), tmp_path / "epoch_0_checkpoints.pth.tar"
    import timm

    torch.manual_seed(0)
    theirs = timm.create_model("deit_tiny_patch16_224", num_classes=2, img_size=32, depth=1).eval()
    with pytest.raises(sm.UserError, match="another architecture"):  # one block instead of twelve
        bring(data, tmp_path / "run", research_file(theirs.state_dict(), file, "head"), model="deit_tiny")
    theirs = timm.create_model("deit_tiny_patch16_224", num_classes=2, img_size=32).eval()
    research_file(theirs.state_dict(), file, "head")
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


@pytest.mark.slow
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
    with pytest.raises(sm.UserError, match="do not say their epochs"):
        bring(squares, tmp_path / "unknown", *files)
    assert bring(squares, tmp_path / "recorded", *files, epochs=(0, 7, 5)).epochs() == [0, 5, 7]


@pytest.mark.parametrize("epochs", [(1, 1), (1,), (1, 2, 3)])
def test_epochs_that_clash(epochs: tuple[int, ...], network: nn.Module, squares: Path, tmp_path: Path) -> None:
    files = [tmp_path / "a.pth", tmp_path / "b.pth"]
    for file in files:
        torch.save(network.state_dict(), file)
    with pytest.raises(sm.UserError, match=re.escape(f"not {list(epochs)}: give them with --epochs")):
        bring(squares, tmp_path / "run", *files, epochs=epochs)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("epoch", [-1, 10**20])
def test_epochs_out_of_range(epoch: int) -> None:
    with pytest.raises(ValidationError, match=r"epochs\.0"):
        sm.ImportSettings(model=tiny.NETWORK, weights=("a.pth",), epochs=(epoch,))


@pytest.mark.parametrize(
    ("names", "epochs"),
    [
        (["net-10.pth", "net-2.pth", "net-9.pth"], [10, 2, 9]),
        (["epoch=3-step=12.ckpt", "epoch=11-step=44.ckpt"], [3, 11]),
        (["r50_v2_0010.pth", "r50_v2_0002.pth"], [10, 2]),
        (["1/model.pth", "12/model.pth"], [1, 12]),
        (["net-20240115.pth"], [1]),
    ],
)
def test_epochs_are_the_numbers_in_the_names(
    names: list[str], epochs: list[int], squares: Path, tmp_path: Path
) -> None:
    """The order of the files, as a shell's pattern gives it, says nothing."""
    networks, files = {}, []
    for name, epoch in zip(names, epochs, strict=True):
        networks[epoch] = tiny_networks.small_convnet()
        files.append(tmp_path / "files" / name)
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        torch.save(networks[epoch].state_dict(), files[-1])
    run = bring(squares, tmp_path / "run", *files)
    assert run.epochs() == sorted(epochs)
    for epoch, network in networks.items():
        assert torch.equal(run.state(epoch)["fc.weight"], network.fc.weight)


@pytest.mark.parametrize("names", [("a.pth", "b.pth"), ("best.pth", "last.pth"), ("e1_s2.pth", "e2_s4.pth")])
def test_names_that_do_not_say_the_epoch(
    names: tuple[str, str], network: nn.Module, squares: Path, tmp_path: Path
) -> None:
    for name in names:
        torch.save(network.state_dict(), tmp_path / name)
    with pytest.raises(sm.UserError, match="do not say their epochs"):
        bring(squares, tmp_path / "run", *(tmp_path / name for name in names))
    assert not (tmp_path / "run").exists()


def test_what_was_decided_is_printed_and_stored(
    network: nn.Module, squares: Path, tmp_path: Path, capsys: Capture
) -> None:
    state = {f"module.net.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": {**state, "criterion.weight": torch.ones(2)}}, tmp_path / "w.pth")
    run = bring(squares, tmp_path / "run", tmp_path / "w.pth")
    said = capsys.readouterr().err
    assert (
        "w.pth: a plain state dict under state_dict, 'module.net.' taken off its names, "
        "1 tensors left out (criterion.weight), head fc"
    ) in said
    assert "output 0 is 'class 0'; output 1 is 'class 1'" in said
    (decided,) = sm.Run(tmp_path / "run").record.weights
    assert (decided.key, decided.prefix, decided.left_out) == ("state_dict", "module.net.", ("criterion.weight",))
    assert (decided.research, decided.head, decided.head_loaded) == (False, ("fc",), True)
    assert decided.sha256 == hashlib.sha256((tmp_path / "w.pth").read_bytes()).hexdigest()
    assert same_predictions(run, 1, network, squares)


def test_a_users_head_in_a_sequential_is_not_turned_round(squares: Path, tmp_path: Path) -> None:
    """The names of a head are no proof that the research code wrote a file, and neither are usual entries."""
    torch.manual_seed(2)
    own = tiny_networks.small_convnet()
    renamed = {name.replace("fc.", "fc.0."): value for name, value in own.state_dict().items()}
    checkpoint = {"epoch": 0, "model_state_dict": renamed, "optimizer_state_dict": {}, "loss": 0.5}
    torch.save(renamed, tmp_path / "epoch_0_checkpoints.pth.tar")
    torch.save(checkpoint, tmp_path / "mine.pth")
    for name in ("epoch_0_checkpoints.pth.tar", "mine.pth"):
        with pytest.raises(sm.UserError, match="say --weight-format research, otherwise name your network"):
            bring(squares, tmp_path / "run", tmp_path / name)
    run = bring(squares, tmp_path / "run", tmp_path / "mine.pth", weight_format="research")
    assert torch.equal(run.state(1)["fc.weight"], own.fc.weight.flip(0))
    assert run.record.weights[0].research


def test_a_head_that_the_user_names(squares: Path, tmp_path: Path) -> None:
    torch.manual_seed(2)
    torch.save(tiny_networks.small_convnet().state_dict(), tmp_path / "w.pth")
    run = bring(squares, tmp_path / "run", tmp_path / "w.pth", head=("fc",))
    assert run.record.network.head == run.record.weights[0].head == ("fc",)
    with pytest.raises(sm.UserError, match="the network has 12 outputs"):
        bring(squares, tmp_path / "other", tmp_path / "w.pth", head=("conv2",))
    with pytest.raises(sm.UserError, match="no layer 'conv9' for a head"):
        bring(squares, tmp_path / "other", tmp_path / "w.pth", head=("conv9",))


@pytest.mark.parametrize(
    ("factory", "message"),
    [("forgetful", "answers differently when it is asked twice"), ("sociable", "depends on the other images")],
)
def test_networks_that_do_not_answer_alike(
    factory: str, message: str, squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropout that is left on, and batch statistics in evaluation: neither is imported or trained."""
    (tmp_path / "odd_networks.py").write_text(
        "from torch import nn\n"
        "class Forgetful(nn.Sequential):\n"
        "    def forward(self, x):\n"
        "        return super().forward(nn.functional.dropout(x, 0.5))\n"
        "def layers(*norm):\n"
        "    return nn.Conv2d(3, 4, 3), *norm, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)\n"
        "def forgetful():\n"
        "    return Forgetful(*layers())\n"
        "def sociable():\n"
        "    return nn.Sequential(*layers(nn.BatchNorm2d(4, track_running_stats=False)))\n"
    )
    monkeypatch.chdir(tmp_path)
    model = f"odd_networks:{factory}"
    with pytest.raises(sm.UserError, match=message):
        sm.train(squares, tmp_path / "trained", sm.TrainSettings(model=model, epochs=1))
    torch.save(build(NetworkSettings(model=model, n_classes=2)).state_dict(), "w.pth")
    with pytest.raises(sm.UserError, match=message):
        bring(squares, tmp_path / "imported", tmp_path / "w.pth", model=model)
    assert not (tmp_path / "imported").exists()


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
