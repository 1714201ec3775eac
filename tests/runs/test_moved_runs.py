"""A run that was moved to a place where the folder of its network is not: it is studied from its own files."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny

import spurious_memorization as sm
from spurious_memorization.datasets.negated_pairs import make_negated_pairs
from spurious_memorization.datasets.settings import NegatedPairsSettings
from spurious_memorization.networks import hugging_face
from spurious_memorization.runs.edited import save_edited

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore:all .* are classified correctly", "ignore:only .* null sets")

UNITS = "bert.encoder.layer.0.output.dense:1"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("moved") / "pairs"
    make_negated_pairs(folder, NegatedPairsSettings(train=40, val=12, test=16))
    return folder


@pytest.fixture
def data(pairs: Path, tmp_path: Path) -> Path:
    """A copy of the data that a test may change."""
    return Path(shutil.copytree(pairs, tmp_path / "data"))


def train(data: Path, out: Path, **changes: object) -> sm.Run:
    settings = {"model": f"hf:{data / 'network'}", "weights": "none", "epochs": 1, **changes}
    return sm.train(data, out, sm.TrainSettings(**settings))


def moved(run: sm.Run, to: Path, network: Path) -> sm.Run:
    """The run in another place, without the folder of its network."""
    shutil.rmtree(network)
    return sm.Run(shutil.move(run.path, to))


@pytest.mark.slow
def test_texts_are_studied_without_the_folder_of_their_network(data: Path, tmp_path: Path) -> None:
    run = train(data, tmp_path / "run")
    before = run.read_data().source.load(np.arange(9))
    run = moved(run, tmp_path / "elsewhere" / "run", data / "network")
    again = run.read_data().source.load(np.arange(9))
    assert before.keys() == again.keys()
    assert all(np.array_equal(before[name], again[name]) for name in before)
    assert all(ranking.scores.n for ranking in sm.trace(run, sm.TraceSettings(criterion=("taylor",))))
    study = sm.study(run, sm.StudySettings(criterion=("magnitude",), size=("1",), edit=("zero",), controls=1))
    assert study.is_complete
    edited = save_edited(run, tmp_path / "edited", UNITS)
    edited = moved(edited, tmp_path / "elsewhere" / "edited", run.network_folder)
    pd.testing.assert_frame_equal(edited.read_data().counts(), run.read_data().counts())
    assert edited.read_data().train.batch().inputs["input_ids"].shape == (40, again["input_ids"].shape[1])


def test_a_moved_run_of_texts_is_trained_further(data: Path, tmp_path: Path) -> None:
    run = moved(train(data, tmp_path / "run"), tmp_path / "moved", data / "network")
    further = train(data, tmp_path / "more", model=f"hf:{run.network_folder}", start=f"{run.path}@last")
    before, after = run.state(1), further.state(0)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_a_changed_copy_is_refused(data: Path, tmp_path: Path) -> None:
    run = train(data, tmp_path / "run")
    file = run.network_folder / "tokenizer.json"
    file.write_text(file.read_text().replace('"nobody"', '"no-one"'))
    with pytest.raises(sm.UserError, match=r"hugging_face is not the one that was used before"):
        run.read_data().train.batch()


def test_a_large_tokenizer_is_not_copied(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hugging_face, "LARGEST_COPY", 1000)
    run = train(data, tmp_path / "run")
    assert "is not copied to" in capsys.readouterr().err
    assert not run.network_folder.exists()
    assert len(run.read_data().train.batch().y) == 40
    shutil.rmtree(data / "network")
    with pytest.raises(sm.UserError, match=r"data.network has no tokenizer"):
        run.read_data().train.batch()


@pytest.mark.slow
def test_images_are_studied_without_the_folder_of_their_network(squares: Path, tmp_path: Path) -> None:
    options = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    config = transformers.AutoConfig.for_model("vit", num_labels=2, image_size=16, patch_size=8, **options)
    transformers.AutoModelForImageClassification.from_config(config).save_pretrained(tmp_path / "vit")
    settings = sm.TrainSettings(**{**tiny.QUICK, "model": f"hf:{tmp_path / 'vit'}", "epochs": 1})
    run = moved(sm.train(squares, tmp_path / "run", settings), tmp_path / "moved", tmp_path / "vit")
    study = sm.study(run, sm.StudySettings(criterion=("magnitude",), size=("1",), edit=("zero",), controls=1))
    assert study.is_complete
