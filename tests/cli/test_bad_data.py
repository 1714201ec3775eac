"""Broken tables, images and groups: an error of one line, exit status 2, and nothing lost or half written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
import tiny

import spurious_memorization as sm

pytestmark = pytest.mark.filterwarnings("ignore:all .* samples .* are classified correctly", "ignore:only .* null sets")

Capture = pytest.CaptureFixture[str]


def spoil(folder: Path, what: str) -> None:
    table = pd.read_csv(folder / "metadata.csv").astype({"y": object, "split": object})
    match what:
        case "missing column":
            table = table.drop(columns="y")
        case "unknown split":
            table.loc[3, "split"] = "holdout"
        case "leading outside":
            table.loc[3, "path"] = "../secret.png"
        case "absolute":
            table.loc[3, "path"] = str(folder / "train_0_00.png")
        case "one class":
            table["y"] = 1
        case "no label":
            table.loc[3, "y"] = None
        case "no rows":
            table = table.iloc[:0]
        case "no training samples":
            table = table[table["split"] != "train"]
        case "no table":
            (folder / "metadata.csv").unlink()
            return
    table.to_csv(folder / "metadata.csv", index=False)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("missing column", "has no column 'y'"),
        ("unknown split", "unknown split 'holdout'"),
        ("leading outside", "'../secret.png' leads outside the data folder"),
        ("absolute", "leads outside the data folder"),
        ("one class", "at least two classes are needed"),
        ("no label", "column 'y' has no value in metadata.csv, line 5"),
        ("no rows", "the table has no rows"),
        ("no training samples", "no samples in split 'train'"),
        ("no table", "is not in a known layout"),
    ],
)
def test_a_spoiled_table(what: str, message: str, data: Path, tmp_path: Path, capsys: Capture) -> None:
    spoil(data, what)
    before = tiny.contents(data)
    assert message in tiny.spurmem(capsys, "train", data, *tiny.train_flags(tmp_path / "out")).error
    assert tiny.contents(data) == before
    assert not sm.Run(tmp_path / "out").exists


@pytest.mark.slow
@pytest.mark.parametrize("what", ["missing", "truncated", "no image"])
@pytest.mark.parametrize("file", ["train_0_01.png", "test_1_00.png"])
def test_a_spoiled_image(
    what: str, file: str, data: Path, squares: Path, tmp_path: Path, capsys: Capture, trained: sm.Run
) -> None:
    """The same command works once the image is fixed."""
    image = data / file
    match what:
        case "missing":
            image.unlink()
        case "truncated":
            image.write_bytes(image.read_bytes()[:300])
        case _:
            image.write_text("text")
    done = tiny.spurmem(capsys, "train", data, *tiny.train_flags(tmp_path / "out"))
    assert ("is missing" if what == "missing" else "can't be read") in done.error
    assert file in done.error
    shutil.copy(squares / file, image)
    assert tiny.spurmem(capsys, "train", data, *tiny.train_flags(tmp_path / "out")).status == 0
    assert tiny.same_networks(sm.Run(tmp_path / "out"), trained)


@pytest.mark.slow
def test_an_image_lost_during_training(data: Path, squares: Path, tmp_path: Path, capsys: Capture) -> None:
    assert tiny.spurmem(capsys, "train", data, *tiny.train_flags(tmp_path / "out", epochs=1)).status == 0
    before = tiny.contents(tmp_path / "out")
    (data / "test_1_00.png").unlink()
    study = ("study", tmp_path / "out", "--criterion=magnitude", "--controls=1")
    assert "does not hold the data" in tiny.spurmem(capsys, *study).error
    assert tiny.contents(tmp_path / "out") == before
    shutil.copy(squares / "test_1_00.png", data)
    assert tiny.spurmem(capsys, *study).status == 0


def test_workers_name_which_image_is_spoiled(data: Path, tmp_path: Path, capsys: Capture) -> None:
    (data / "train_0_01.png").write_bytes(b"no image")
    error = tiny.spurmem(capsys, "train", data, *tiny.train_flags(tmp_path / "out"), "--workers=1").error
    assert "train_0_01.png can't be read" in error


@pytest.mark.slow
@pytest.mark.parametrize("command", ["trace", "study"])
def test_an_empty_group_is_an_error_only_if_it_is_traced(
    command: str, data: Path, tmp_path: Path, capsys: Capture
) -> None:
    table = pd.read_csv(data / "metadata.csv")
    emptied = (table["y"] == 0) & (table["a"] == 1) & (table["split"] == "val")
    table[~emptied].to_csv(data / "metadata.csv", index=False)
    out = tmp_path / "out"
    assert tiny.spurmem(capsys, "train", data, *tiny.train_flags(out, epochs=1)).status == 0
    before = tiny.contents(out)
    flags = ("--criterion=gradient", "--group=class 0 with color 1")
    extra = ("--controls=1", "--size=1") if command == "study" else ()
    error = tiny.spurmem(capsys, command, out, *flags, "--traced-on=val", *extra).error
    assert "group 'class 0 with color 1' has no samples in split 'val'" in error
    assert tiny.contents(out) == before
    assert tiny.spurmem(capsys, command, out, *flags, *extra).status == 0


def test_no_minority(tmp_path: Path, capsys: Capture, data: Path) -> None:
    table = pd.read_csv(data / "metadata.csv")
    table["a"] = [i % 2 for i in range(len(table))]
    table.to_csv(data / "metadata.csv", index=False)
    assert tiny.spurmem(capsys, "train", data, *tiny.train_flags(tmp_path / "out", epochs=0)).status == 0
    error = tiny.spurmem(capsys, "study", tmp_path / "out", "--criterion=gradient").error
    assert "the data have no minority group" in error
    assert "--group" in error


def test_images_too_small_for_the_network_are_one_line_with_its_own_error(
    squares: Path, tmp_path: Path, capsys: Capture
) -> None:
    words = ("train", squares, "--model=test_vit", "--weights=none", "--image-size=3", "--out", tmp_path / "run")
    printed = tiny.spurmem(capsys, *words)
    assert printed.status == 2
    last = printed.error.splitlines()[-1]
    assert "fails on inputs of shape" in last
    assert "use images of another size (--image-size) or another network (--model)" in last
