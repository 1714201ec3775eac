"""The whole job, through the command line, on other data and networks than the demo's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

import spurious_memorization as sm

pytestmark = pytest.mark.filterwarnings("ignore:all .* samples .* are classified correctly", "ignore:only .* null sets")

Capture = pytest.CaptureFixture[str]


def whole_job(capsys: Capture, data: Path, runs: Path, model: str, *train: object) -> sm.Study:
    """Train, trace, study; the study."""
    said = tiny.spurmem(capsys, "train", data, "--model", model, "--epochs=2", *train, "--out", runs)
    assert said.status == 0, said.err
    return studied(capsys, runs, "--edit=rewind:epochs=1")


def studied(capsys: Capture, run: Path, *more: object) -> sm.Study:
    said = tiny.spurmem(capsys, "trace", run, "--criterion=magnitude,gradient,taylor", "--show=2")
    assert said.status == 0, said.err
    flags = ("--criterion=magnitude,gradient", "--size=1..2", "--edit=zero", "--edit=random_noise:std=0.02", *more)
    flags = (*flags, "--repeats=2", "--controls=2", "--split=train,test", "--per-group=3", "--json")
    said = tiny.spurmem(capsys, "study", run, *flags)
    assert said.status == 0, said.err
    result = sm.Study(Path(json.loads(said.out)["study"]))
    effects, data = result.effects(), sm.Run(run).read_data()
    groups = data.groups
    alone = {name for name, n in zip(groups.names, data.train_counts, strict=True) if n == 1}  # can't be cut in two
    assert (effects["n_controls"] == np.where(effects["traced_on"].isin(alone), 0, 2)).all()
    assert (effects["reason"] != "").all()
    assert set(result.effects().query("split == 'train'")["group_name"]) <= set(groups.names)
    return result


@pytest.mark.slow
def test_colored_digits(tmp_path: Path, capsys: Capture) -> None:
    made = tiny.spurmem(
        capsys, "data", "make", "colored-digits", "--digits=3,5,8", "--colors=4", "--image-size=16", "--out",
        tmp_path / "digits"
    )  # fmt: skip
    assert made.status == 0, made.err
    result = whole_job(capsys, tmp_path / "digits", tmp_path / "run", tiny.NETWORK)
    assert result.effects()["group"].nunique() == 12
    assert result.effects()["minority"].any()


@pytest.mark.slow
def test_three_classes_by_four_colors(tmp_path: Path, capsys: Capture) -> None:
    data = tiny.make_images(tmp_path / "data", classes=3, attributes=4, train=15)
    result = whole_job(capsys, data, tmp_path / "run", tiny.NETWORK, "--batch-size=15")
    assert set(result.effects()["group"]) == set(range(12))


@pytest.mark.slow
def test_deit_tiny(tmp_path: Path, capsys: Capture) -> None:
    data = tiny.make_images(tmp_path / "data", size=32, train=10)
    result = whole_job(capsys, data, tmp_path / "run", "deit_tiny", "--lr=1e-4", "--batch-size=10")
    tensors = {unit.split(":")[0] for units in result.variants()["units"] for unit in units.split(",")}
    assert all(tensor.startswith(("blocks.", "patch_embed.")) for tensor in tensors)
    heads = tiny.spurmem(
        capsys, "study", tmp_path / "run", "--unit=head", "--size=1", "--criterion=taylor", "--controls=2",
        "--split=test", "--json"
    )  # fmt: skip
    assert heads.status == 0, heads.err
    assert json.loads(heads.out)["effects"]


@pytest.mark.slow
def test_an_imported_network_with_three_checkpoints(
    trained: sm.Run, squares: Path, tmp_path: Path, capsys: Capture
) -> None:
    files = [tmp_path / f"epoch_{epoch}.pth" for epoch in (1, 2, 3)]
    for epoch, file in enumerate(files, 1):
        torch.save({"state_dict": trained.state(epoch)}, file)
    said = tiny.spurmem(
        capsys, "import", squares, "--model", tiny.NETWORK, *(f"--weights={file}" for file in files), "--out",
        tmp_path / "theirs"
    )  # fmt: skip
    assert said.status == 0, said.err
    theirs = studied(capsys, tmp_path / "theirs", "--edit=rewind:epochs=2")
    tiny.copied(trained, tmp_path / "ours")
    ours = studied(capsys, tmp_path / "ours", "--edit=rewind:epochs=2")
    assert theirs.results().equals(ours.results())
    assert theirs.effects().equals(ours.effects())


@pytest.mark.slow
def test_a_small_demo(tmp_path: Path, capsys: Capture) -> None:
    flags = ("--train=100", "--val=40", "--test=20", "--image-size=32", "--epochs=1", "--controls=2", "--per-group=5")
    flags = (*flags, "--networks=2", "--network-epochs=1")
    said = tiny.spurmem(capsys, "demo", "--out", tmp_path / "demo", *flags, "--json")
    assert said.status == 0, said.err
    facts = json.loads(said.out)
    assert {row["split"] for row in facts["effects"]} == {"train", "test"}
    names = {Path(file).stem for file in facts["figures"]}
    assert names == {"accuracy", "memorization", "accuracy_changes", "layers", "ablation", "comparison", "images"}
    assert set(facts["controls"]) == {"positive", "negative"}
    assert Path(facts["report"]).is_file()
    for file in facts["figures"]:
        with Image.open(file) as figure:
            figure.load()
            assert min(figure.size) > 100
    again = tiny.spurmem(capsys, "demo", "--out", tmp_path / "demo", *flags)  # continues, and shows its answer
    assert again.status == 0, again.err
    assert again.out.count("┏") == 1
    again = tiny.spurmem(capsys, "demo", "--out", tmp_path / "demo", *flags, "--verbose")
    for words in ("Accuracy after epoch 1", "Accuracy change in train", "Accuracy change in test", "next: "):
        assert words in again.out
