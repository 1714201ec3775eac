"""`check` finds every problem of a data folder, and finds none in a correct folder."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from spurious_memorization.datasets import file_facts
from spurious_memorization.datasets.celeba import KNOWN_COUNTS as CELEBA_COUNTS
from spurious_memorization.datasets.check import KNOWN_COUNTS, Contradiction, CountDifference, RareValue, check
from spurious_memorization.errors import UserError

N = 30


def table() -> pd.DataFrame:
    number = np.arange(N)
    return pd.DataFrame(
        {
            "path": [f"images/{i:02d}.{'png' if i % 2 else 'jpg'}" for i in number],
            "y": np.where(number % 10 < 5, "finch", "gull"),
            "a": np.where(number % 10 < 4, "wood", "sea"),
            "split": np.array(["train", "val", "test"])[number // 10],
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for path in table()["path"]:
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(tmp_path / path)
    table().to_csv(tmp_path / "metadata.csv", index=False)
    return tmp_path


def test_a_correct_folder(folder: Path) -> None:
    report = check(folder)
    assert report.sound
    assert report.groups == ("finch with sea", "finch with wood", "gull with sea", "gull with wood")
    assert report.counts == dict.fromkeys(("train", "val", "test"), (1, 4, 5, 0))
    np.testing.assert_allclose(report.lift, [1 / 3, 2, 5 / 3, 0])
    assert report.minority == ("finch with sea",)
    assert report.majority == ("finch with wood", "gull with sea")
    assert (report.images, report.decoded, report.compared, report.split_seed) == (N, True, False, None)


def test_the_facts_are_json(folder: Path) -> None:
    without_gulls_at_sea = table()[lambda t: (t["y"] == "finch") | (t["split"] == "test")]
    without_gulls_at_sea.to_csv(folder / "metadata.csv", index=False)
    facts = json.loads(json.dumps(check(folder).facts(), allow_nan=False))
    assert facts["sound"]
    assert facts["counts"]["test"] == {
        "finch with sea": 1,
        "finch with wood": 4,
        "gull with sea": 5,
        "gull with wood": 0,
    }
    assert facts["lift"]["gull with sea"] is None
    assert facts["lift"]["finch with sea"] == 1


def test_missing_images(folder: Path) -> None:
    for number in (1, 28):
        (folder / table()["path"][number]).unlink()
    (folder / table()["path"][2]).unlink()
    (folder / table()["path"][2]).mkdir()
    for decode in (True, False):
        report = check(folder, decode=decode)
        assert not report.sound
        assert report.missing == ("images/01.png", "images/28.jpg")
        assert report.broken == {"images/02.jpg": "it is not a regular file"}
        assert not report.leaks


def test_broken_images(folder: Path) -> None:
    jpeg, png = folder / "images/00.jpg", folder / "images/01.png"
    jpeg.write_bytes(jpeg.read_bytes()[:-100])
    png.write_bytes(png.read_bytes()[:-100])
    (folder / "images/02.jpg").write_text("<html>404</html>")
    (folder / "images/03.png").write_bytes(b"")
    damaged = bytearray((folder / "images/05.png").read_bytes())
    damaged[80] ^= 0xFF
    (folder / "images/05.png").write_bytes(damaged)
    report = check(folder)
    assert not report.sound
    assert sorted(report.broken) == [f"images/0{i}" for i in ("0.jpg", "1.png", "2.jpg", "3.png", "5.png")]
    assert "truncated" in report.broken["images/00.jpg"]
    assert report.broken["images/02.jpg"] == "it is not an image of a known format"
    assert report.broken["images/03.png"] == "the file is empty"
    assert list(check(folder, decode=False).broken) == ["images/03.png"]


def test_images_in_two_splits(folder: Path) -> None:
    shutil.copy(folder / "images/00.jpg", folder / "images/10.jpg")
    shutil.copy(folder / "images/00.jpg", folder / "images/02.jpg")
    shutil.copy(folder / "images/03.png", folder / "images/05.png")
    frame = table()
    frame.loc[29, "path"] = "images/13.png"
    frame.to_csv(folder / "metadata.csv", index=False)
    for decode in (True, False):
        report = check(folder, decode=decode)
        assert not report.sound
        assert sorted(report.leaks, key=str) == [
            {"train": ("images/00.jpg", "images/02.jpg"), "val": ("images/10.jpg",)},
            {"val": ("images/13.png",), "test": ("images/13.png",)},
        ]
    assert check(folder, duplicates=False).sound


def test_equal_sizes_are_no_copies(folder: Path) -> None:
    for i, path in enumerate(table()["path"]):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(folder / path, format="BMP")
    assert check(folder).sound


def test_paths_outside(folder: Path) -> None:
    frame = table()
    frame.loc[[0, 9], "path"] = ["../other.jpg", "/etc/passwd"]
    frame.to_csv(folder / "metadata.csv", index=False)
    report = check(folder)
    assert not report.sound
    assert report.outside == ("../other.jpg", "/etc/passwd")
    assert report.counts["train"] == (1, 3, 4, 0)
    frame.assign(path="/etc/passwd").to_csv(folder / "metadata.csv", index=False)
    with pytest.raises(UserError, match="all paths lead outside"):
        check(folder)


def test_a_split_that_was_made_is_reported(folder: Path) -> None:
    table().drop(columns="split").to_csv(folder / "metadata.csv", index=False)
    report = check(folder)
    assert report.sound
    assert report.split_seed == 0
    assert report.counts["train"] == (3 - 1, 12 - 1 - 2, 15 - 2 - 3, 0)


def test_another_attribute(folder: Path) -> None:
    table().assign(light=np.arange(N) % 2).to_csv(folder / "metadata.csv", index=False)
    assert check(folder, attribute="light").attribute == "light"
    with pytest.raises(UserError, match="no attribute column 'dark'"):
        check(folder, attribute="dark")


@pytest.mark.parametrize("chunk", [1, 7])
def test_many_images(folder: Path, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[str] = []
    monkeypatch.setattr(file_facts, "CHUNK", chunk)
    monkeypatch.setattr(file_facts, "LONG_SECONDS", 0)
    monkeypatch.setattr(file_facts, "log", logged.append)
    (folder / "images/17.png").write_bytes(b"broken")
    assert list(check(folder).broken) == ["images/17.png"]
    assert logged[0].startswith("decoding 30 images, about")


# The same image more than once


@pytest.mark.parametrize("column", ["y", "a"])
def test_one_image_in_two_groups(folder: Path, column: str) -> None:
    frame = table()
    again = frame.iloc[[1, 6]].assign(**{column: frame[column].iloc[[6, 1]].to_numpy()})
    pd.concat([frame, again]).to_csv(folder / "metadata.csv", index=False)
    for decode in (True, False):
        report = check(folder, decode=decode)
        assert not report.sound
        groups = {
            "y": [("finch with wood", "gull with wood"), ("finch with sea", "gull with sea")],
            "a": [("finch with sea", "finch with wood"), ("gull with sea", "gull with wood")],
        }[column]
        assert report.contradictions == (
            Contradiction(paths=("images/01.png",), groups=groups[0]),
            Contradiction(paths=("images/06.jpg",), groups=groups[1]),
        )
        assert not report.leaks
    assert check(folder, duplicates=False).sound


def test_copies_in_two_groups_of_several_splits(folder: Path) -> None:
    shutil.copy(folder / "images/01.png", folder / "images/07.png")
    shutil.copy(folder / "images/01.png", folder / "images/19.png")
    report = check(folder)
    paths = ("images/01.png", "images/07.png", "images/19.png")
    assert report.contradictions == (Contradiction(paths=paths, groups=("finch with wood", "gull with sea")),)
    assert report.leaks == ({"train": paths[:2], "val": paths[2:]},)
    assert report.copies == ()


def test_copies_and_repeated_rows_are_notes(folder: Path) -> None:
    shutil.copy(folder / "images/00.jpg", folder / "images/02.jpg")
    pd.concat([table(), table().iloc[[5, 5, 29]]]).to_csv(folder / "metadata.csv", index=False)
    report = check(folder)
    assert report.sound
    assert report.copies == (("images/00.jpg", "images/02.jpg"),)
    assert report.repeated == {"images/05.png": 3, "images/29.png": 2}


def blurred(seed: int, side: int = 96) -> Image.Image:
    """A random image with large structures, as photographs have them."""
    small = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)


def test_near_duplicates_between_splits(folder: Path) -> None:
    for i, path in enumerate(table()["path"]):
        blurred(i).save(folder / path)
    blurred(3).resize((64, 64)).save(folder / "images/12.jpg", quality=80)
    blurred(15).point(lambda value: value * 0.9).save(folder / "images/21.png")
    blurred(4).save(folder / "images/08.jpg", quality=60)
    report = check(folder)
    assert report.sound
    assert not report.leaks
    found = {(pair.path, pair.split, pair.match, pair.match_split) for pair in report.near_duplicates}
    assert found == {
        ("images/12.jpg", "val", "images/03.png", "train"),
        ("images/21.png", "test", "images/15.png", "val"),
    }
    assert all(pair.distance <= 15 for pair in report.near_duplicates)
    assert not check(folder, decode=False).near_duplicates
    assert not check(folder, duplicates=False).near_duplicates


def test_exact_copies_are_no_near_duplicates(folder: Path) -> None:
    shutil.copy(folder / "images/01.png", folder / "images/13.png")
    report = check(folder)
    assert len(report.leaks) == 1
    assert report.near_duplicates == ()


def test_flat_images_are_not_compared(folder: Path) -> None:
    for i, path in enumerate(table()["path"]):
        Image.new("RGB", (32, 32), (8 * i, 100, 100)).save(folder / path)
    assert check(folder).near_duplicates == ()


# Notes


def test_modes_sizes_and_rotations(folder: Path) -> None:
    exif = Image.Exif()
    exif[274] = 8
    blurred(1, 20).convert("L").save(folder / "images/04.jpg", exif=exif)
    Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16) * 257).save(folder / "images/05.png")
    report = check(folder)
    assert report.sound
    assert report.modes == {"RGB": 28, "L": 1, "I;16": 1}
    assert report.sizes == {"16 x 16": 29, "20 x 20": 1}
    assert report.unusual == {"images/04.jpg": "mode L, 20 x 20 pixels", "images/05.png": "mode I;16"}
    assert report.rotated == ("images/04.jpg",)
    assert check(folder, decode=False).modes == {}


def test_where_most_sizes_differ_none_is_unusual(folder: Path) -> None:
    for i, path in enumerate(table()["path"]):
        blurred(i, 20 + i).save(folder / path)
    report = check(folder)
    assert len(report.sizes) == N
    assert report.unusual == {}


def test_ambiguous_values_are_broken_images(folder: Path) -> None:
    Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16) * 16).save(folder / "images/05.png")
    Image.fromarray(np.arange(256, dtype=np.float32).reshape(16, 16)).save(folder / "images/07.png", format="TIFF")
    report = check(folder)
    assert not report.sound
    assert list(report.broken) == ["images/05.png", "images/07.png"]
    assert "mode I;16 with values 0 to 4080" in report.broken["images/05.png"]
    assert "mode F with values 0 to 255" in report.broken["images/07.png"]


def test_pipes_are_not_read(folder: Path) -> None:
    (folder / "images/05.png").unlink()
    os.mkfifo(folder / "images/05.png")
    for decode in (True, False):
        assert check(folder, decode=decode).broken == {"images/05.png": "it is not a regular file"}


def test_values_that_occur_once_or_never_in_a_split(folder: Path) -> None:
    frame = table()
    frame.loc[[0, 11], "a"] = "ice"
    frame.to_csv(folder / "metadata.csv", index=False)
    assert check(folder).rare == (
        RareValue(kind="attribute value", value="ice", split="train", count=1),
        RareValue(kind="attribute value", value="ice", split="val", count=1),
        RareValue(kind="attribute value", value="ice", split="test", count=0),
    )
    table()[lambda t: (t["split"] == "train") | (t["y"] == "gull")].to_csv(folder / "metadata.csv", index=False)
    classes = [(rare.value, rare.split, rare.count) for rare in check(folder).rare if rare.kind == "class"]
    assert classes == [("finch", "val", 0), ("finch", "test", 0)]


# Known data sets


def waterbirds(counts: dict[str, tuple[int, ...]]) -> pd.DataFrame:
    rows = [
        (group // 2, split, group % 2)
        for split, numbers in enumerate(counts.values())
        for group, n in enumerate(numbers)
        for _ in range(n)
    ]
    frame = pd.DataFrame(rows, columns=["y", "split", "place"])
    return frame.assign(img_filename=[f"001.Bird/Bird_{i:04d}.jpg" for i in range(len(frame))])


@pytest.mark.slow
def test_waterbirds_counts(tmp_path: Path) -> None:
    known = KNOWN_COUNTS["waterbirds"]
    waterbirds(known).to_csv(tmp_path / "metadata.csv", index=False)
    report = check(tmp_path, decode=False)
    assert report.compared
    assert not report.differences
    assert len(report.missing) == report.images == 11788
    waterbirds({**known, "train": (3498, 184, 55, 1058)}).to_csv(tmp_path / "metadata.csv", index=False)
    report = check(tmp_path, decode=False)
    assert not report.sound
    assert report.differences == (
        CountDifference(split="train", group="waterbird on land", found=55, known=56),
        CountDifference(split="train", group="waterbird on water", found=1058, known=1057),
    )


@pytest.mark.parametrize(("file", "text"), [("dataset.yaml", "name: mine"), ("waterbirds.json", "{}")])
def test_other_data_in_waterbirds_layout(tmp_path: Path, file: str, text: str) -> None:
    waterbirds({"train": (2, 1, 1, 2)}).to_csv(tmp_path / "metadata.csv", index=False)
    assert check(tmp_path, decode=False).compared
    (tmp_path / file).write_text(text)
    assert not check(tmp_path, decode=False).compared


def test_celeba_counts(tmp_path: Path) -> None:
    (tmp_path / "img_align_celeba").mkdir()
    names = [f"{i + 1:06d}.jpg" for i in range(6)]
    for i, name in enumerate(names):
        Image.new("RGB", (4, 4), (40 * i, 0, 0)).save(tmp_path / "img_align_celeba" / name)
    attributes = {"Blond_Hair": [-1, 1] * 3, "Male": [-1] * 6, "Smiling": [1, 1, -1] * 2}
    pd.DataFrame({"image_id": names, **attributes}).to_csv(tmp_path / "list_attr_celeba.csv", index=False)
    splits = pd.DataFrame({"image_id": names, "partition": [0, 0, 1, 1, 2, 2]})
    splits.to_csv(tmp_path / "list_eval_partition.csv", index=False)
    for attribute in (None, "Male"):
        report = check(tmp_path, attribute)
        assert len(report.differences) == 12
        assert report.differences[0] == CountDifference(
            split="train", group="non-blond female", found=1, known=CELEBA_COUNTS["train"][0]
        )
    report = check(tmp_path, "Smiling")
    assert report.sound
    assert not report.compared
