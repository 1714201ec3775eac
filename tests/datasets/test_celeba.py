"""CelebA in every known layout."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from spurious_memorization.datasets.celeba import KNOWN_COUNTS, prepare_celeba
from spurious_memorization.datasets.folder import read_data
from spurious_memorization.datasets.groups import group_counts
from spurious_memorization.errors import UserError

ATTRIBUTES = ("5_o_Clock_Shadow", "Blond_Hair", "Male", "Smiling", "Young")
LAYOUTS = ("kaggle", "kaggle nested", "below data", "txt", "original folders")


def table() -> pd.DataFrame:
    """Every combination of the attributes in every split, with image names as index."""
    n = 3 * 2 ** len(ATTRIBUTES)
    bits = (np.arange(n)[:, None] >> np.arange(len(ATTRIBUTES))) & 1
    frame = pd.DataFrame(bits * 2 - 1, columns=list(ATTRIBUTES))
    frame.insert(0, "image_id", [f"{i + 1:06d}.jpg" for i in range(n)])
    return frame.assign(partition=np.arange(n) // 2 ** len(ATTRIBUTES))


def write_images(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True)
    for i, name in enumerate(names):
        Image.new("RGB", (6, 8), (i, 0, 0)).save(folder / name)


def write_csv(folder: Path, frame: pd.DataFrame) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    frame.drop(columns="partition").to_csv(folder / "list_attr_celeba.csv", index=False)
    frame[["image_id", "partition"]].to_csv(folder / "list_eval_partition.csv", index=False)


def write_txt(attributes: Path, splits: Path, frame: pd.DataFrame) -> None:
    for folder in (attributes, splits):
        folder.mkdir(parents=True, exist_ok=True)
    lines = [str(len(frame)), " ".join(ATTRIBUTES) + " "]
    for name, *values in frame.drop(columns="partition").itertuples(index=False):
        lines += [f"{name} " + " ".join(f"{value:2d}" for value in values)]
    (attributes / "list_attr_celeba.txt").write_text("\n".join(lines) + "\n")
    rows = zip(frame["image_id"], frame["partition"], strict=True)
    (splits / "list_eval_partition.txt").write_text("".join(f"{name} {split}\n" for name, split in rows))


def write(folder: Path, layout: str) -> Path:
    frame = table()
    place = {"below data": "data", "original folders": "Img"}.get(layout, "")
    nested = "img_align_celeba" if layout == "kaggle nested" else ""
    write_images(folder / place / "img_align_celeba" / nested, frame["image_id"].to_list())
    if layout == "txt":
        write_txt(folder, folder, frame)
    elif layout == "original folders":
        write_txt(folder / "Anno", folder / "Eval", frame)
    else:
        write_csv(folder / place, frame)
    return folder


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same(tmp_path: Path, layout: str) -> None:
    frame = table()
    data = read_data(write(tmp_path / "celeba", layout))
    assert data.layout == data.name == "celeba"
    assert data.groups.names == ("non-blond female", "non-blond male", "blond female", "blond male")
    np.testing.assert_array_equal(data.y, frame["Blond_Hair"] == 1)
    np.testing.assert_array_equal(data.a, frame["Male"] == 1)
    assert data.split.tolist() == [("train", "val", "test")[code] for code in frame["partition"]]
    transform = data.source.transform
    assert (transform.resize, transform.image_size, transform.keep_aspect) == (256, 224, False)
    assert all(abs(data.source.open(i).getpixel((0, 0))[0] - i) < 4 for i in range(0, 96, 16))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_attribute_can_be_chosen(tmp_path: Path, layout: str) -> None:
    data = read_data(write(tmp_path / "celeba", layout), attribute="5_o_Clock_Shadow")
    assert data.groups.attributes == ("not 5 o clock shadow", "5 o clock shadow")
    np.testing.assert_array_equal(data.a, table()["5_o_Clock_Shadow"] == 1)
    smiling = read_data(tmp_path / "celeba", attribute="Smiling")
    assert smiling.groups.names[-1] == "blond smiling"
    assert read_data(tmp_path / "celeba", attribute="Male").groups.attributes == ("female", "male")
    with pytest.raises(UserError, match="no attribute column 'Blond_Hair'"):
        read_data(tmp_path / "celeba", attribute="Blond_Hair")


@pytest.mark.parametrize("place", ["", "img_align_celeba", "img_align_celeba/img_align_celeba"])
@pytest.mark.parametrize("with_attributes", [False, True])
def test_a_ready_table(tmp_path: Path, place: str, with_attributes: bool) -> None:
    frame = table()[::-1]
    ready = pd.DataFrame(
        {
            "img_filename": frame["image_id"],
            "y": (frame["Blond_Hair"] == 1).astype(int),
            "split": frame["partition"],
            "place": (frame["Male"] == 1).astype(int),
        }
    )
    folder = tmp_path / "celeba"
    write_images(folder / place, frame["image_id"].to_list()) if place else folder.mkdir()
    if not place:
        for name in frame["image_id"]:
            Image.new("RGB", (6, 8)).save(folder / name)
    if with_attributes:
        write_csv(folder, table())
        (folder / "list_eval_partition.csv").unlink()
    ready.to_csv(folder / "metadata.csv", index=False)
    data = read_data(folder)
    assert data.groups.names[3] == "blond male"
    np.testing.assert_array_equal(data.a, ready["place"])
    assert data.source.open(0).size == (6, 8)
    if with_attributes:
        np.testing.assert_array_equal(read_data(folder, attribute="Young").a, frame["Young"] == 1)
    else:
        with pytest.raises(UserError, match="no attribute column 'Young'"):
            read_data(folder, attribute="Young")


def test_an_own_table_comes_before_the_lists(tmp_path: Path) -> None:
    write(tmp_path / "celeba", "kaggle")
    own = pd.DataFrame({"path": ["img_align_celeba/000001.jpg", "img_align_celeba/000002.jpg"], "y": [0, 1], "a": 0})
    own.to_csv(tmp_path / "celeba" / "metadata.csv", index=False)
    assert read_data(tmp_path / "celeba").layout == "table"


@pytest.mark.parametrize(
    ("removed", "named"),
    [
        ("list_eval_partition.csv", "not list_eval_partition.csv"),
        ("list_attr_celeba.csv", "not list_attr_celeba.csv"),
        ("img_align_celeba", "not img_align_celeba/"),
    ],
)
def test_the_missing_part_is_named(tmp_path: Path, removed: str, named: str) -> None:
    folder = write(tmp_path / "celeba", "kaggle")
    (folder / removed).rename(tmp_path / removed)
    with pytest.raises(UserError, match="part of CelebA") as caught:
        read_data(folder)
    assert named in str(caught.value)
    assert str(caught.value).count(" not ") == 1
    images_alone = tmp_path / "alone"
    (images_alone / "img_align_celeba").mkdir(parents=True)
    with pytest.raises(UserError, match=r"not list_attr_celeba.* and not list_eval_partition"):
        read_data(images_alone)


def test_damaged_lists(tmp_path: Path) -> None:
    folder = write(tmp_path / "celeba", "txt")
    attributes, splits = folder / "list_attr_celeba.txt", folder / "list_eval_partition.txt"
    whole_attributes, whole_splits = attributes.read_text(), splits.read_text()
    splits.write_text("".join(whole_splits.splitlines(keepends=True)[:-3]))
    with pytest.raises(UserError, match=r"don't list the same images \(3 .*000094\.jpg"):
        read_data(folder)
    splits.write_text(whole_splits + whole_splits.splitlines()[0])
    with pytest.raises(UserError, match="twice"):
        read_data(folder)
    splits.write_text(whole_splits)
    for damaged in (
        whole_attributes[:-8],
        "".join(whole_attributes.splitlines(keepends=True)[:-1]),
        whole_attributes.replace("-1", "-7", 1),
    ):
        attributes.write_text(damaged)
        with pytest.raises(UserError, match="truncated or damaged"):
            read_data(folder)
    attributes.write_text(whole_attributes.replace("Blond_Hair", "Blond"))
    with pytest.raises(UserError, match="has no column Blond_Hair"):
        read_data(folder)
    attributes.write_text("")
    with pytest.raises(UserError, match="has no column Blond_Hair and Male"):
        read_data(folder)


@pytest.mark.slow
def test_the_known_counts(tmp_path: Path) -> None:
    cells = [
        (y, a, split)
        for split, counts in enumerate(KNOWN_COUNTS.values())
        for (y, a), n in zip(((0, 0), (0, 1), (1, 0), (1, 1)), counts, strict=True)
        for _ in range(n)
    ]
    y, a, split = np.array(cells).T
    assert len(y) == 202_599
    names = [f"{i + 1:06d}.jpg" for i in range(len(y))]
    attributes = pd.DataFrame({"image_id": names, "Blond_Hair": 2 * y - 1, "Male": 2 * a - 1})
    attributes.to_csv(tmp_path / "list_attr_celeba.csv", index=False)
    pd.DataFrame({"image_id": names, "partition": split}).to_csv(tmp_path / "list_eval_partition.csv", index=False)
    (tmp_path / "img_align_celeba").mkdir()
    data = read_data(tmp_path)
    for name, counts in KNOWN_COUNTS.items():
        assert tuple(group_counts(data.groups, data.g[data.split == name])) == counts
    assert [data.groups.names[g] for g in data.minority] == ["blond male"]


def test_preparing(tmp_path: Path) -> None:
    folder = write(tmp_path / "celeba", "kaggle nested")
    assert prepare_celeba(folder) == folder
    archive = tmp_path / "archive.zip"
    with zipfile.ZipFile(archive, "w") as bundle:
        for file in folder.rglob("*.*"):
            bundle.write(file, file.relative_to(folder))
    assert prepare_celeba(archive, tmp_path / "out") == tmp_path / "out"
    assert len(read_data(tmp_path / "out")) == 96
    with zipfile.ZipFile(archive, "w") as bundle:
        bundle.write(folder / "list_attr_celeba.csv", "list_attr_celeba.csv")
    with pytest.raises(UserError, match=r"not list_eval_partition\.csv .* and not img_align_celeba/"):
        prepare_celeba(archive, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(UserError, match=r"without an account.*kaggle\.com"):
        prepare_celeba(None)
