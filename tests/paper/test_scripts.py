"""The research code's commands, as its users type them, on generated images in Waterbirds' layout."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import tiny
import torch
from torch import nn

import spurious_memorization as sm
from spurious_memorization.datasets.settings import SynthbirdsSettings
from spurious_memorization.datasets.synthbirds.make import make_synthbirds
from spurious_memorization.paper.arguments import Pretraining
from spurious_memorization.paper.text_files import read_result
from spurious_memorization.paper.training_settings import training_of
from spurious_memorization.training.recipes import TrainSettings

Capture = pytest.CaptureFixture[str]
SCRIPTS = Path(__file__).parent.parent.parent / "scripts"
ERM = Path("experiments/resnet50_waterbirds_group_unbalanced_erm")
STUDIED = Path("experiments/resnet50_waterbirds_train_group_unbalanced_erm")

pytestmark = pytest.mark.filterwarnings("ignore:all .* are classified correctly:UserWarning")


@pytest.fixture(scope="module")
def waterbirds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("birds") / "waterbird_complete95_forest2water2"
    make_synthbirds(folder, SynthbirdsSettings(train=60, val=12, test=24, image_size=32, layout="waterbirds"))
    return folder


def script(capsys: Capture, monkeypatch: pytest.MonkeyPatch, name: str, *arguments: object) -> tiny.Printed:
    """Run a script in this process, from the working directory."""
    monkeypatch.setattr(sys, "argv", [f"scripts/{name}.py", *map(str, arguments)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
    printed = capsys.readouterr()
    return tiny.Printed(int(caught.value.code or 0), printed.out, printed.err)


@pytest.mark.slow
def test_the_readmes_examples(
    waterbirds: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def run(name: str, *arguments: object) -> tiny.Printed:
        return script(capsys, monkeypatch, name, *arguments)

    data = ("--celeba_dataset_path=nowhere/celeba", f"--waterbird_dataset_path={waterbirds}")
    before = run("StudyChannelwiseLargestNeuronExperiments", *data)
    assert f"{ERM} holds no network: train one with scripts/SpuriousCorrelationPretrainingErm.py" in before.error
    trained = run("SpuriousCorrelationPretrainingErm", *data, "--epochs", 2, "--image-size", 32)
    assert trained.status == 0, trained.err
    assert (ERM / "accuracy.png").is_file()
    settings = sm.Run(ERM).record.settings
    assert (settings["model"], settings["recipe"], settings["lr"], settings["batch_size"]) == (
        "resnet50",
        "paper-script",
        5e-6,
        256,
    )
    example = (
        "--experiment_dataset=waterbirds",
        "--experiment_split=train",
        *data,
        "--modification_mode=zero",
        "--noise_std=0",
        "--row_back_n_epochs=0",
        "--top_k=3",
    )
    largest = run("StudyChannelwiseLargestNeuronExperiments", *example)
    assert largest.status == 0, largest.err
    said = " ".join(largest.err.split())
    assert f"{ERM} has no epoch_40" in said
    assert "using its last one, after 2" in said
    file = STUDIED / "zero_global_top3_largest_neuron.txt"
    assert file.read_text() in largest.out
    content = read_result(file)
    assert content.modified[0].group is None
    assert len(content.modified[0].channels) == 3
    counted = sm.Run(ERM).history().query("epoch == 2 and split == 'train'")
    assert content.before == pytest.approx(counted["correct"] / counted["n"], abs=5e-5)
    activated = run("StudyChannelwiseMostActivatedNeuronExperiments", *example)
    assert activated.status == 0, activated.err
    content = read_result(STUDIED / "zero_poorest_random_batch200_global_top3_most_activated_neuron.txt")
    assert [part.group for part in content.modified] == [0, 1, 2, 3]
    assert all(len(part.channels) == 3 and len(part.after) == 1 for part in content.modified)
    studies = sm.Run(ERM).path / "studies"
    assert len(list(studies.glob("*/effects.parquet"))) == 2  # a run with studies, next to the result files


@pytest.mark.slow
def test_threshold_and_fine_tuning_chain_and_errors_are_one_line(
    waterbirds: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def run(name: str, *arguments: object) -> tiny.Printed:
        return script(capsys, monkeypatch, name, *arguments)

    arch = ("--experiment_arch=test_resnet", f"--waterbird_dataset_path={waterbirds}")
    assert run("SpuriousCorrelationPretrainingErm", *arch, "--epochs", 2, "--image_size=32", "--seed=1").status == 0
    erm = Path("experiments/test_resnet_waterbirds_group_unbalanced_erm")
    flags = ("--modification_percentage=0.1", "--if_smallest_magnitude", "--dropout_p=0.8")
    done = run("StudyLargestNeuronByThresholdExperiments", *arch, *flags)
    assert done.status == 0, done.err
    assert (erm / "zero_0.1_global_smallest_neuron.txt").is_file()
    noisy = ("--modification_mode=random_init", "--noise_std=0.3", "--modification_percentage=0.5")
    assert run("StudyLargestNeuronByThresholdExperiments", *arch, *noisy).status == 0
    assert len(read_result(erm / "random_init_0.5_std0.3_global_largest_neuron.txt").modified[0].after) == 10
    back = ("--modification_mode=rewind", "--row_back_n_epochs=2", "--top_k=1", "--experiment_split=test")
    assert run("StudyChannelwiseLargestNeuronExperiments", *arch, *back).status == 0
    on_test = Path("experiments/test_resnet_waterbirds_test_group_unbalanced_erm")
    assert (on_test / "rewind_2epochs_back_global_top1_largest_neuron.txt").is_file()
    tuned = run("SpuriousCorrelationFinetuningPruning", *arch, "--epochs", 1)
    assert tuned.status == 0, tuned.err
    run_of = sm.Run(Path("experiments/test_resnet_waterbirds_group_unbalanced_mag_0.01"))
    assert run_of.record.settings["start"] == f"{erm}@2"
    assert (run_of.record.settings["lr"], run_of.record.settings["batch_size"]) == (2e-4, 100)
    assert run_of.epochs() == [0, 1]
    for wrong, message in (
        (("--modification_mode=rewind",), "modification_mode rewind needs row_back_n_epochs of at least 1"),
        (("--modification_mode=rewind", "--row_back_n_epochs=3"), "needs the checkpoint of epoch -1"),
        (("--modification_mode=nonsense",), "--modification-mode"),
        (("--top_k=5000",), "size 5000"),
        (("--experiment_dataset=imagenet",), "--experiment-dataset"),
    ):
        assert message in run("StudyChannelwiseLargestNeuronExperiments", *arch, *wrong).error
    unnamed = run("SpuriousCorrelationPretrainingErm", "--experiment_dataset=celeba").error
    assert "the folder of celeba is not given: name it with --celeba_dataset_path" in unnamed


class Theirs(nn.Module):
    """A network as the research code builds it: a softmax in its head, class 1 at position 0."""

    def __init__(self) -> None:
        super().__init__()
        self.model = timm.create_model("test_resnet", num_classes=2)
        self.model.fc = nn.Sequential(nn.Linear(self.model.num_features, 2), nn.Softmax(dim=1))

    def correct(self, samples: sm.Samples) -> np.ndarray:
        """Right answers of each group."""
        batch = samples.batch()
        with torch.no_grad():
            is_waterbird = self.model.eval()(batch.inputs).argmax(1) == 0
        return np.bincount(samples.g[is_waterbird.int().numpy() == samples.y], minlength=4)


@pytest.fixture(scope="module")
def checkpoints(waterbirds: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, dict[str, list]]]:
    """Checkpoints of epochs 30, 35 and 40 by a training in its form, and the right answers after each."""
    torch.manual_seed(0)
    folder, theirs = tmp_path_factory.mktemp("checkpoints"), Theirs()
    optimizer = torch.optim.Adam(theirs.model.parameters(), lr=3e-3)
    data = sm.read_data(waterbirds)
    found = {}
    for epoch in (30, 35, 40):
        theirs.model.train()
        for batch in data.train.batches(20):
            target = torch.stack([batch.y, 1 - batch.y], 1).float()
            loss = nn.functional.cross_entropy(theirs.model(batch.inputs), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        content = {
            "epoch": epoch,
            "model_state_dict": theirs.model.state_dict(),
            "optimizer_state_dict": optimizer.state_dict(),
            "loss": np.float64(loss.item()),
        }
        torch.save(content, folder / f"epoch_{epoch}_checkpoints.pth.tar")
        found[epoch] = {split: theirs.correct(data.samples(split)).tolist() for split in ("train", "val", "test")}
    assert len({str(of["train"]) for of in found.values()}) > 1
    return folder, found


def test_their_checkpoints_through_import(
    waterbirds: Path, checkpoints: tuple[Path, dict[int, Any]], tmp_path: Path, capsys: Capture
) -> None:
    folder, found = checkpoints
    files = [f"--weights={folder / f'epoch_{epoch}_checkpoints.pth.tar'}" for epoch in found]
    said = tiny.spurmem(capsys, "import", waterbirds, "--model", "test_resnet", *files, "--out", tmp_path / "run")
    assert said.status == 0, said.err
    history = sm.Run(tmp_path / "run").history()
    for epoch, right in found.items():
        for split, expected in right.items():
            counted = history[(history["epoch"] == epoch + 1) & (history["split"] == split)]["correct"].tolist()
            assert counted == expected


@pytest.mark.slow
def test_their_checkpoints_through_the_scripts(
    waterbirds: Path,
    checkpoints: tuple[Path, dict[int, Any]],
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    folder, found = checkpoints
    erm = Path("experiments/test_resnet_waterbirds_group_unbalanced_erm")
    shutil.copytree(folder, erm)
    arch = ("--experiment_arch=test_resnet", "--experiment_split=test", "--top_k=1")
    named = f"--waterbird_dataset_path={waterbirds}"
    unnamed = script(capsys, monkeypatch, "StudyChannelwiseLargestNeuronExperiments", *arch)
    assert f"the checkpoints in {erm} need their data" in unnamed.error
    back = ("--modification_mode=rewind", "--row_back_n_epochs=5")
    said = script(capsys, monkeypatch, "StudyChannelwiseLargestNeuronExperiments", *arch, named, *back)
    assert said.status == 0, said.err
    assert "has no epoch_40" not in said.err
    assert sm.Run(erm).epochs() == [31, 36, 41]
    assert len(list(erm.glob("*.pth.tar"))) == 3  # theirs stay where they were
    on_test = Path("experiments/test_resnet_waterbirds_test_group_unbalanced_erm")
    content = read_result(on_test / "rewind_5epochs_back_global_top1_largest_neuron.txt")
    test = sm.read_data(waterbirds).test
    n = np.bincount(test.g, minlength=4)
    assert content.before == pytest.approx(np.array(found[40]["test"]) / n, abs=5e-5)
    assert not list(Path("experiments").glob(".*"))


def test_published_weights_below_experiments_come_first(tmp_path: Path) -> None:
    (tmp_path / "deit_tiny_patch16_224-a1311bcf.pth").touch()
    (tmp_path / "resnet50-19c8e357.pth").touch()

    def weights(**flags_given: Any) -> str | None:
        flags = Pretraining(**flags_given)
        chosen = training_of(flags, TrainSettings(model=flags.experiment_arch), tmp_path)
        return chosen.weights if "weights" in chosen.model_fields_set else None

    assert weights(experiment_arch="deit_tiny") == str(tmp_path / "deit_tiny_patch16_224-a1311bcf.pth")
    assert weights(experiment_arch="deit_small") is None  # the recipe's: a download
    assert weights() is None  # the released script starts ResNet-50 at random
    assert weights(recipe="paper-readme") == str(tmp_path / "resnet50-19c8e357.pth")
    assert weights(recipe="paper-readme", weights="none") == "none"


@pytest.mark.parametrize("name", sorted(file.stem for file in SCRIPTS.glob("*.py")))
def test_each_script_has_a_shell_file_whose_flags_it_takes(
    name: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each the first thing that is missing is the network or the data, not a flag."""
    said: dict[str, Any] = {}
    recorder = tmp_path / "python"
    recorder.write_text('#!/bin/sh\nfor word in "$@"; do echo "$word"; done\n')
    recorder.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(recorder), "WATERBIRDS": "data/of birds"}
    shell = subprocess.run(
        ["sh", SCRIPTS / f"run{name}.sh", "--seed=3"], env=environment, capture_output=True, text=True, check=True
    )
    path, *arguments = shell.stdout.splitlines()
    assert path == f"scripts/{name}.py"
    assert "--waterbird_dataset_path=data/of birds" in arguments
    assert "--seed=3" in arguments
    monkeypatch.chdir(tmp_path)
    said = script(capsys, monkeypatch, name, *arguments)
    assert ("holds no network" in said.error) or ("data folder data/of birds does not exist" in said.error)


@pytest.mark.slow
def test_help_needs_no_torch() -> None:
    """Of every script, in one process. Without torch the help takes well under a second."""
    code = f"""
import runpy, sys
from pathlib import Path
for script in sorted(Path({str(SCRIPTS)!r}).glob("*.py")):
    sys.argv = [str(script), "--help"]
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as end:
        assert end.code == 0
print(sorted({{"torch", "pandas", "scipy", "timm", "torchvision"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count("Flags may be written with - or _.") == 5
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_the_shell_files_run(waterbirds: Path, tmp_path: Path) -> None:
    """As a program of its own, from the project's root."""
    (tmp_path / "scripts").symlink_to(SCRIPTS)
    environment = {**os.environ, "PYTHON": sys.executable, "WATERBIRDS": str(waterbirds)}

    def run(name: str, *further: str) -> None:
        command = ["sh", f"scripts/run{name}.sh", *further]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    run("SpuriousCorrelationPretrainingErm", "--epochs=1", "--image-size=32")
    run("StudyChannelwiseLargestNeuronExperiments")
    run("StudyChannelwiseMostActivatedNeuronExperiments")
    run("StudyLargestNeuronByThresholdExperiments")
    run("SpuriousCorrelationFinetuningPruning", "--epochs=1")
    assert (tmp_path / STUDIED / "zero_global_top3_largest_neuron.txt").is_file()
    assert (tmp_path / ERM / "zero_0.05_global_smallest_neuron.txt").is_file()
    assert (tmp_path / "experiments/resnet50_waterbirds_group_unbalanced_mag_0.01/history.parquet").is_file()
