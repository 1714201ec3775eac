"""`spurmem data`: make, prepare and check, from the command line."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import spurious_memorization.cli.data
from spurious_memorization.cli import main
from spurious_memorization.datasets.waterbirds import FOLDER, KNOWN_COUNTS

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def run(capture: Capture, *arguments: object) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of `spurmem data ...`."""
    with pytest.raises(SystemExit) as caught:
        main(["data", *map(str, arguments)])
    printed = capture.readouterr()
    assert isinstance(caught.value.code, int)
    return caught.value.code, printed.out, printed.err


def facts(capture: Capture, *arguments: object) -> tuple[int, Any]:
    status, out, _ = run(capture, *arguments, "--json")
    return status, json.loads(out)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small data folder of which nothing is wrong."""
    place = tmp_path / "my birds"
    place.mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for i in range(24):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(place / f"{i}.png")
        rows.append((f"{i}.png", i % 2, "[red]" if i % 3 else "blue", i // 8))
    pd.DataFrame(rows, columns=["path", "y", "a", "split"]).to_csv(place / "metadata.csv", index=False)
    return place


def test_check_of_a_sound_folder(folder: Path, capsys: Capture) -> None:
    status, out, err = run(capsys, "check", folder)
    assert (status, err) == (0, "")
    assert "my birds, 24 images" in out
    for word in ("train", "val", "test", "lift", "majority", "1 with [red]"):
        assert word in out
    assert "images missing: none" in out
    assert f"next: spurmem train '{folder}' --model resnet18 --out runs/first" in out
    status, found = facts(capsys, "check", folder)
    assert status == 0
    assert found["counts"]["train"]["0 with [red]"] == 2
    assert found["sound"]


def test_check_shows_some_and_json_all(folder: Path, capsys: Capture) -> None:
    for i in range(12):
        (folder / f"{i}.png").unlink()
    (folder / "12.png").write_bytes(b"no image")
    shutil.copy(folder / "13.png", folder / "20.png")
    status, out, _ = run(capsys, "check", folder)
    assert status == 1
    assert "images missing: 12" in out
    assert "  9.png\n" in out
    assert "  10.png\n" not in out
    assert "and 2 more (--json lists all)" in out
    assert "12.png (it is not an image of a known format)" in out
    assert "val: 13.png = test: 20.png" in out
    assert "next:" not in out
    status, found = facts(capsys, "check", folder, "--no-decode")
    assert status == 1
    assert found["missing"] == [f"{i}.png" for i in range(12)]
    assert found["broken"] == {}
    assert found["leaks"] == [{"val": ["13.png"], "test": ["20.png"]}]


def test_check_shows_contradictions_and_notes(folder: Path, capsys: Capture) -> None:
    frame = pd.read_csv(folder / "metadata.csv")
    frame.loc[0, "a"] = "[green]"
    pd.concat([frame, frame.iloc[[2]], frame.iloc[[5]].assign(y=0)]).to_csv(folder / "metadata.csv", index=False)
    small = Image.fromarray(np.random.default_rng(1).integers(0, 256, (12, 12), dtype=np.uint8))
    small.resize((96, 96)).save(folder / "4.png")
    small.resize((96, 96)).save(folder / "20.jpg", quality=80)
    frame = pd.read_csv(folder / "metadata.csv").replace("20.png", "20.jpg")
    frame.to_csv(folder / "metadata.csv", index=False)
    (folder / "dataset.yaml").write_text("minority: [1 with blue]")
    status, out, _ = run(capsys, "check", folder)
    assert status == 1
    assert "contradicting labels or attributes: 1\n  5.png: 0 with [red] and 1 with [red]\n" in out
    assert "note: rows that repeat exactly: 1\n  2.png: 2 times\n" in out
    assert "note: images that look like an image of an earlier split: 1\n  test: 20.jpg ~ train: 4.png (" in out
    assert "  attribute value '[green]' in train: 1\n  attribute value '[green]' in val: 0\n" in out
    assert (
        "note: groups too small for a verdict: 1\n"
        "  1 with blue: 3 majority samples of its label are too few for 'critical'\n"
    ) in out
    assert "modes: 22 of RGB, 2 of L" in out
    assert "sizes: 22 of 8 x 8, 2 of 96 x 96" in out
    status, found = facts(capsys, "check", folder)
    assert status == 1
    assert found["contradictions"] == [{"paths": ["5.png"], "groups": ["0 with [red]", "1 with [red]"]}]
    assert found["repeated"] == {"2.png": 2}
    assert [(near["path"], near["match"]) for near in found["near_duplicates"]] == [("20.jpg", "4.png")]
    assert {"kind": "attribute value", "value": "[green]", "split": "val", "count": 0} in found["rare"]
    assert found["modes"] == {"RGB": 22, "L": 2}
    assert [(small["group"], small["found"], small["needed"]) for small in found["too_small"]] == [
        ("1 with blue", 1, None)
    ]
    status, out, _ = run(capsys, "check", folder, "--no-duplicates")
    assert status == 0
    assert "contradicting" not in out
    assert "look like" not in out


def test_check_with_options(folder: Path, capsys: Capture) -> None:
    frame = pd.read_csv(folder / "metadata.csv").drop(columns="split")
    frame.assign(size=["large", "small"] * 12).to_csv(folder / "metadata.csv", index=False)
    (folder / "0.png").write_bytes(b"no image")
    status, out, _ = run(capsys, "check", folder, "--attribute", "size", "--no-decode")
    assert status == 0
    assert "0 with large" in out
    assert "can't be read" not in out
    assert "each group is split 70/10/20 with split seed 0" in out
    assert "--attribute size --model" in out


def test_errors_are_one_line(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    for arguments in (
        ("check", tmp_path / "absent"),
        ("check", folder, "--attribute", "size"),
        ("check",),
        ("prepare", "waterbirds"),
        ("prepare", "waterbirds", folder),
        ("prepare", "celeba"),
        ("prepare", "celeba", tmp_path / "absent", "--out", tmp_path / "new"),
        ("make", "synthbirds", "--out", tmp_path / "new", "--train", 0),
        ("make", "synthbirds", "--out", folder),
        ("make", "waterbirds", "--out", tmp_path / "new"),
        ("make", "waterbirds", "--out", tmp_path / "new", "--cub", tmp_path, "--places", tmp_path),
    ):
        status, out, err = run(capsys, *arguments)
        assert (status, out) == (2, "")
        assert err.startswith("spurmem: ")
        assert err.count("\n") == 1
    assert not (tmp_path / "new").exists()
    assert "kaggle.com" in run(capsys, "prepare", "celeba")[2]


def whole_waterbirds(place: Path) -> Path:
    """Waterbirds with the known counts, all of whose images are the same."""
    place.mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(place / "001.jpg")
    rows = [
        ("001.jpg", group // 2, split, group % 2)
        for split, counts in enumerate(KNOWN_COUNTS.values())
        for group, n in enumerate(counts)
        for _ in range(n)
    ]
    pd.DataFrame(rows, columns=["img_filename", "y", "split", "place"]).to_csv(place / "metadata.csv", index=False)
    return place


def test_prepare_waterbirds_folder_and_archive(tmp_path: Path, capsys: Capture) -> None:
    folder = whole_waterbirds(tmp_path / "mine" / FOLDER)
    status, out, _ = run(capsys, "prepare", "waterbirds", tmp_path / "mine")
    assert status == 0
    assert "counts that differ from the published ones of waterbirds: none" in out
    assert f"next: spurmem train {tmp_path / 'mine'} " in out
    with tarfile.open(tmp_path / "archive.tar.gz", "w:gz") as tar:
        tar.add(folder, FOLDER)
    status, found = facts(capsys, "prepare", "waterbirds", tmp_path / "archive.tar.gz", "--out", tmp_path / "data")
    assert status == 0
    assert found["compared"]
    assert found["folder"] == str(tmp_path / "data")
    assert (tmp_path / "data" / "metadata.csv").is_file()
    archive = tmp_path / "archive.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-100])
    status, _, err = run(capsys, "prepare", "waterbirds", archive, "--out", tmp_path / "other")
    assert status == 2
    assert "truncated or damaged" in err
    assert not (tmp_path / "other").exists()


def test_prepare_tells_where_counts_differ(tmp_path: Path, capsys: Capture) -> None:
    folder = whole_waterbirds(tmp_path / FOLDER)
    pd.read_csv(folder / "metadata.csv")[:-1].to_csv(folder / "metadata.csv", index=False)
    status, out, _ = run(capsys, "prepare", "waterbirds", folder)
    assert status == 1
    assert "waterbird on water in test: 641, not 642" in out


def test_make_synthbirds(tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "birds"
    counts = ("--train", 8, "--val", 2, "--test", 2, "--image-size", 16)
    status, text, _ = run(capsys, "make", "synthbirds", "--out", out, *counts)
    assert status == 0
    assert "landbird on water" in text
    assert f"next: spurmem train {out} --model resnet18 --out runs/first" in text
    assert facts(capsys, "check", out)[0] == 0
    status, found = facts(capsys, "make", "synthbirds", "--out", out, *counts)
    assert status == 0
    assert sum(found["counts"]["train"].values()) == 8
    layout = ("--layout", "waterbirds", "--out", tmp_path / "layout")
    status, found = facts(capsys, "make", "synthbirds", *counts, *layout)
    assert status == 0
    assert (found["layout"], found["compared"]) == ("waterbirds", False)


def test_options_from_a_file(tmp_path: Path, capsys: Capture) -> None:
    counts = ("--train", 8, "--val", 2, "--test", 2, "--image-size", 16)
    assert run(capsys, "make", "synthbirds", "--out", tmp_path / "birds", *counts)[0] == 0
    options = tmp_path / "options.yaml"
    options.write_text(f"out: {tmp_path / 'birds'}\ntrain: 8\nval: 2\ntest: 7\nimage_size: 16\n")
    status, found = facts(capsys, "make", "synthbirds", "--config", options, "--test", 2)
    assert status == 0
    assert sum(found["counts"]["train"].values()) == 8


def test_make_colored_digits(tmp_path: Path, capsys: Capture) -> None:
    pytest.importorskip("sklearn")
    status, found = facts(capsys, "make", "colored-digits", "--out", tmp_path / "digits", "--digits", "1,7")
    assert status == 0
    assert found["groups"] == ["red 1", "green 1", "red 7", "green 7"]


@pytest.mark.parametrize("command", [["make"], ["make", "waterbirds"], ["prepare"], ["prepare", "celeba"], ["check"]])
def test_help(command: list[str], capsys: Capture) -> None:
    status, out, _ = run(capsys, *command, "--help")
    assert status == 0
    assert "Usage: spurmem data" in out
    assert spurious_memorization.cli.data.SHOWN == 10
