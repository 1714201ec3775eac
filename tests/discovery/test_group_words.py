"""Words for candidate groups: by a real CLIP network of open_clip with random weights."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import open_clip
import pandas as pd
import pytest
import tiny
import tiny_clip
import torch
from PIL import Image
from torchvision.transforms import v2

import spurious_memorization as sm
from spurious_memorization.discovery.default_words import WORDS

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip") / "tiny"
    tiny_clip.make_clip(folder)
    return folder


@pytest.fixture
def groups(squares: Path, tmp_path: Path) -> Path:
    table = pd.read_csv(squares / "metadata.csv")[["path", "y", "split"]]
    table["attribute"] = np.where(np.arange(len(table)) % 3 == 0, "atypical", "typical")
    table.to_csv(tmp_path / "groups.csv", index=False)
    return tmp_path / "groups.csv"


def test_the_list_of_words() -> None:
    assert len(set(WORDS)) == len(WORDS) > 100
    assert all(word == word.strip() and word for word in WORDS)


def test_words_are_those_of_open_clip(squares: Path, groups: Path, clip: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "words.txt").write_text("water\n\n  dark   trees \nwater\n", encoding="utf-8")
    flags = ("--clip", clip, "--words", tmp_path / "words.txt", "--permutations", 19, "--eval-batch-size", 7)
    said = tiny.spurmem(capsys, "words", squares, groups, *flags)
    assert said.status == 0, said.err
    found = pd.read_csv(tmp_path / "groups_words.csv")
    assert len(found) == 2 * 4
    model = tiny_clip.make_clip(tmp_path / "again")
    table = pd.read_csv(groups).query("split == 'train'")
    normalize = v2.Normalize([0.5] * 3, [0.25] * 3)  # images and input have 16 pixels a side
    pixels = [np.array(Image.open(squares / path)) / 255 for path in table["path"]]
    with torch.no_grad():
        images = model.encode_image(normalize(torch.tensor(np.array(pixels)).permute(0, 3, 1, 2).float()))
        texts = model.encode_text(open_clip.tokenize(["a photo with water", "a photo with dark trees"]))
    cosine = torch.nn.functional.cosine_similarity(images[:, None], texts[None], dim=-1).numpy()
    for row in found.itertuples():
        label, _, value = row.group.partition(", ")
        of_class, own = table["y"] == int(label.removeprefix("class ")), table["attribute"] == value
        column = cosine[:, ["water", "dark trees"].index(row.word)]
        assert row.n == (of_class & own).sum()
        expected = column[of_class & own].mean() - column[of_class & ~own].mean()
        assert row.difference == pytest.approx(expected, abs=1e-5)
    again = sm.group_words(
        squares, groups, sm.WordSettings(clip=str(clip), words=tmp_path / "words.txt", permutations=19)
    )
    pd.testing.assert_frame_equal(again, found, rtol=1e-5)


def test_networks_that_cannot_be_loaded(
    squares: Path, groups: Path, clip: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    bare = tmp_path / "bare"
    shutil.copytree(clip, bare)
    weights = bare / "open_clip_model.safetensors"
    weights.unlink()
    remedy = "give a folder with open_clip_config.json and its weights, or ARCHITECTURE:FILE"

    def error(name: object) -> str:
        return tiny.spurmem(capsys, "words", squares, groups, "--clip", name).error

    assert remedy in error(bare)
    assert remedy in error("hf-hub:nobody/nothing")
    assert remedy in error("ViT-B-32:laion2b_s34b_b79k")
    assert remedy in error(f"nothing:{clip / 'open_clip_model.safetensors'}")
    assert "name its weights, too" in error(tmp_path / "nowhere")
    torch.save({"model": tmp_path}, bare / "open_clip_pytorch_model.bin")  # a path has to be unpickled
    assert remedy in error(bare)
    assert not list(tmp_path.glob("*_words.csv"))


def test_lists_without_words(squares: Path, groups: Path, clip: Path, tmp_path: Path, capsys: Capture) -> None:
    for text in ("", "\n \n", "\n".join(map(str, range(1001)))):
        (tmp_path / "words.txt").write_text(text, encoding="utf-8")
        flags = ("--clip", clip, "--words", tmp_path / "words.txt")
        assert "one a line" in tiny.spurmem(capsys, "words", squares, groups, *flags).error


def test_without_the_library(squares: Path, groups: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    said = tiny.spurmem(capsys, "words", squares, groups)
    assert "pip install 'spurious-memorization[clip]'" in said.error


def test_classes_with_one_group(squares: Path, groups: Path, clip: Path, capsys: Capture) -> None:
    pd.read_csv(groups).assign(attribute="typical").to_csv(groups, index=False)
    assert "nothing to compare" in tiny.spurmem(capsys, "words", squares, groups, "--clip", clip).error
