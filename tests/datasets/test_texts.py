"""Texts: inputs are those of the tokenizer, and don't depend on the batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import spurious_memorization as sm
from spurious_memorization.datasets.check import check
from spurious_memorization.datasets.negated_pairs import make_negated_pairs
from spurious_memorization.datasets.settings import NegatedPairsSettings
from spurious_memorization.errors import UserError
from spurious_memorization.networks.build import NetworkSettings, with_own_transform
from spurious_memorization.training.recipes import expanded
from spurious_memorization.training.settings import TrainSettings

transformers = pytest.importorskip("transformers")

SMALL = NegatedPairsSettings(train=40, val=12, test=16)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts") / "pairs"
    make_negated_pairs(folder, SMALL)
    return folder


def tokenized(folder: Path, network: Path, **options: Any) -> sm.Dataset:
    settings = NetworkSettings(model=f"hf:{network}", n_classes=2).with_configuration()
    return with_own_transform(sm.read_data(folder, **options), settings)


def test_inputs_are_the_tokenizers_own_padded_to_the_longest_text(pairs: Path) -> None:
    data = tokenized(pairs, pairs / "network")
    tokenizer = transformers.AutoTokenizer.from_pretrained(pairs / "network")
    expected = tokenizer(list(data.source.texts), list(data.source.pairs), padding=True, return_tensors="pt")
    inputs = data.source.load(np.arange(len(data)))
    assert set(inputs) == set(expected)
    assert all(torch.equal(inputs[name], expected[name]) for name in expected)
    alone = data.source.load(np.array([3]))
    assert all(torch.equal(alone[name], expected[name][3:4]) for name in expected)


def test_longer_texts_are_cut_and_a_line_says_so(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tokenized(pairs, pairs / "network", max_tokens=9)
    assert data.transform is not None
    assert data.transform.length == 9
    assert "68 of 68 texts have more than 9 tokens" in capsys.readouterr().err
    assert data.source.load(np.arange(2))["input_ids"].shape == (2, 9)


def test_columns_may_have_other_names(pairs: Path, tmp_path: Path) -> None:
    rows = [("a dog", "x", "u", "train"), ("", "y", "v", "train"), ("a cat, too", "x", "v", "test")]
    table = "\n".join(["sentence,label,who,split", *(",".join(f'"{cell}"' for cell in row) for row in rows)])
    (tmp_path / "metadata.csv").write_text(table)
    data = sm.read_data(tmp_path, text_column="sentence", label_column="label", attribute="who")
    assert data.source.texts == ("a dog", "", "a cat, too")
    assert data.source.pairs is None
    assert data.groups.names == ("x with u", "x with v", "y with u", "y with v")
    changed = sm.read_data(tmp_path, text_column="sentence", label_column="label", attribute="who").fingerprint()
    (tmp_path / "metadata.csv").write_text(table.replace("a dog", "a hog"))
    again = sm.read_data(tmp_path, text_column="sentence", label_column="label", attribute="who").fingerprint()
    assert data.fingerprint() == changed != again


def test_a_changed_tokenizer_is_refused(pairs: Path, tmp_path: Path) -> None:
    network = tmp_path / "network"
    network.mkdir()
    for file in (pairs / "network").iterdir():
        (network / file.name).write_bytes(file.read_bytes())
    data = tokenized(pairs, network)
    stored = json.loads((network / "tokenizer.json").read_text())
    words = stored["model"]["vocab"]
    words["cat"], words["cow"] = words["cow"], words["cat"]
    (network / "tokenizer.json").write_text(json.dumps(stored))
    with pytest.raises(UserError, match="is not the one that was used before"):
        data.train.batch()


def test_texts_need_a_network_of_text(pairs: Path, tmp_path: Path) -> None:
    data = sm.read_data(pairs)
    with pytest.raises(UserError, match="takes no texts: choose a network with a tokenizer"):
        with_own_transform(data, NetworkSettings(model="resnet18", n_classes=2))
    with pytest.raises(UserError, match="choose a network, --model hf:PATH"):
        data.train.batch()
    with pytest.raises(UserError, match="no image size"):
        sm.read_data(pairs, image_size=32)


def test_check_finds_texts_that_repeat(tmp_path: Path) -> None:
    rows = ["one,u,train,x", "one,v,test,x", "two,u,train,y", "two,u,train,y", "three,u,test,x"]
    (tmp_path / "metadata.csv").write_text("\n".join(["text,a,split,y", *rows]))
    report = check(tmp_path)
    assert report.leaks == ({"train": ("0",), "test": ("1",)},)
    assert [found.groups for found in report.contradictions] == [("x with u", "x with v")]
    assert report.copies == (("2", "3"),)
    assert (report.kind, report.images, report.sound) == ("texts", 5, False)


def test_words_are_properties_of_texts(tmp_path: Path) -> None:
    rows = [f"It's {'never' if y else 'always'} so {'far' * (i % 2)},{y},train" for i in range(20) for y in (0, 1)]
    (tmp_path / "metadata.csv").write_text("\n".join(["text,y,split", *rows]))
    words = sm.text_properties(tmp_path)
    assert set(words) == {"words", "word_always", "word_never", "word_far"}
    assert words["word_never"].tolist() == [False, True] * 20
    assert words["words"].tolist()[:4] == [3, 3, 4, 4]
    found = sm.property_associations(tmp_path, words, permutations=99).set_index("property")
    assert found["goes_with_label"].to_dict() == {
        "word_never": True,
        "word_always": True,
        "word_far": False,
        "words": False,
    }
    assert found.loc["word_never", "difference"] == "1: word never in 100 % against 0 %"


def test_planted_negation_has_the_planted_counts(pairs: Path) -> None:
    data = sm.read_data(pairs)
    assert data.train_counts.tolist() == [19, 1, 1, 19]
    has_negation = np.array(["nobody" in text.split() for text in data.source.pairs])
    assert np.array_equal(has_negation, data.a == data.groups.attributes.index("negation"))
    rests = [text.split()[2] for text in data.source.pairs]
    assert not set(np.array(rests)[data.y == 0]) & set(np.array(rests)[data.y == 1])
    assert check(pairs).sound


def test_a_trained_network_of_text_is_fine_tuned_and_a_random_one_is_trained(pairs: Path) -> None:
    model, data = f"hf:{pairs / 'network'}", sm.read_data(pairs)
    tuned = expanded(TrainSettings(model=model, epochs=3), data)
    assert (tuned.weights, tuned.optimizer, tuned.lr, tuned.epochs) == ("pretrained", "adamw", 2e-5, 3)
    trained = expanded(TrainSettings(model=model, weights="none"), data)
    assert (trained.weights, trained.optimizer, trained.lr, trained.epochs) == ("none", "adam", 1e-3, 12)


@pytest.mark.parametrize("objective", ["mixup", "lisa"])
def test_texts_have_no_mixtures(pairs: Path, tmp_path: Path, objective: str) -> None:
    settings = TrainSettings(model=f"hf:{pairs / 'network'}", weights="none", objective=objective)
    with pytest.raises(UserError, match="texts have no mixtures"):
        sm.train(pairs, tmp_path / "run", settings)
    assert not (tmp_path / "run" / "run.json").exists()
