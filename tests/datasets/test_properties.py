"""Properties of the images of a folder that has no attribute column, and the table of attributes made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

import spurious_memorization as sm
from docs.figures.planted_properties import make_planted
from spurious_memorization.datasets.folder import read_table
from spurious_memorization.datasets.properties import property_table, without_attribute


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_planted(tmp_path_factory.mktemp("planted") / "data", "image size", seed=0, train=30, test=12)


@pytest.fixture(scope="module")
def properties(planted: Path) -> pd.DataFrame:
    return sm.image_properties(planted)


def test_one_row_per_image(planted: Path, properties: pd.DataFrame) -> None:
    paths = pd.read_csv(planted / "metadata.csv")["path"]
    assert list(properties.index) == list(range(42))
    for number, path in enumerate(paths):
        with Image.open(planted / path) as image:
            size, file_format = image.size, image.format
        row = properties.loc[number]
        assert (row["width"], row["height"], row["file_format"]) == (*size, file_format)
        assert row["file_size"] == (planted / path).stat().st_size
    assert set(properties["width"]) == {64, 80}


def test_the_same_again_and_from_a_data_set(planted: Path, properties: pd.DataFrame) -> None:
    data = without_attribute(planted, read_table(planted))
    pd.testing.assert_frame_equal(sm.image_properties(data), properties)
    assert data.groups.classes == ("falling", "rising")
    assert (data.splits, data.split_seed) == (("train", "test"), None)


def test_the_table_of_attributes_is_read_as_metadata(planted: Path, properties: pd.DataFrame, tmp_path: Path) -> None:
    data = without_attribute(planted, read_table(planted))
    table = property_table(data, properties)
    assert list(table) == ["path", "y", "split", *properties]
    for path in table["path"]:
        (tmp_path / path).symlink_to(planted / path)
    table.to_csv(tmp_path / "metadata.csv", index=False)
    read = sm.read_data(tmp_path, attribute="brightness")
    np.testing.assert_array_equal(read.y, data.y)
    np.testing.assert_array_equal(read.split, data.split)
    assert read.groups.attributes == ("high", "low", "mid")
    assert np.bincount(read.a[read.split == "train"]).tolist() == [10, 10, 10]
    for name in properties:
        of_name = sm.read_data(tmp_path, attribute=name)
        assert [of_name.groups.attributes[a] for a in of_name.a] == table[name].tolist()
    pd.testing.assert_frame_equal(sm.image_properties(tmp_path), properties)


def test_own_attributes_and_names_stay(squares: Path, tmp_path: Path) -> None:
    table = read_table(squares)
    data = without_attribute(squares, table)
    written = property_table(data, sm.image_properties(data), table)
    assert list(written)[:4] == ["path", "y", "a", "split"]
    assert written["a"].tolist() == table.frame["a"].tolist()
    assert set(written["y"]) == {"class 0", "class 1"}
    written.to_csv(tmp_path / "metadata.csv", index=False)
    (tmp_path / "dataset.yaml").write_text((squares / "dataset.yaml").read_text())
    before, after = sm.read_data(squares), sm.read_data(tmp_path)
    assert (before.groups, before.y.tolist(), before.a.tolist()) == (after.groups, after.y.tolist(), after.a.tolist())


def test_a_split_is_made_of_each_class_or_of_the_groups(squares: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(squares / "metadata.csv").drop(columns="split")
    for name, table in (("class", frame.drop(columns="a")), ("group", frame)):
        folder = tmp_path / name
        folder.mkdir()
        table.to_csv(folder / "metadata.csv", index=False)
        data = without_attribute(folder, read_table(folder))
        assert data.split_seed == 0
        assert abs((data.y[data.split == "train"] == 1).mean() - 0.5) < 0.05
        if name == "group":
            np.testing.assert_array_equal(data.split, sm.read_data(folder).split)


def test_several_attribute_columns_and_odd_names_are_no_hindrance(squares: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(squares / "metadata.csv").assign(b=0.5, c="")
    frame.to_csv(tmp_path / "metadata.csv", index=False)
    names = {
        "classes": ["x", "y"],
        "attributes": {"a": ["p", "q"]},
        "minority": ["x with p"],
        "group_name": "{attribute}",
    }
    (tmp_path / "dataset.yaml").write_text(yaml.safe_dump(names))
    assert without_attribute(tmp_path, read_table(tmp_path)).groups.classes == ("x", "y")


def test_tensors_have_no_files() -> None:
    with pytest.raises(sm.UserError, match="the data are tensors"):
        sm.image_properties(sm.from_tensors(torch.zeros(4, 3, 8, 8), [0, 1, 0, 1], [0, 1, 0, 1]))


@pytest.mark.parametrize("content", [None, b"no image"])
def test_a_broken_image_is_named(content: bytes | None, tmp_path: Path) -> None:
    folder = make_planted(tmp_path / "data", None, seed=0, train=6)
    (folder / "train_0003.img").unlink()
    if content is not None:
        (folder / "train_0003.img").write_bytes(content)
    with pytest.raises(sm.UserError, match=r"train_0003\.img (is missing|can't be read).*data check"):
        sm.image_properties(folder)


def test_paths_stay_within_the_folder(tmp_path: Path) -> None:
    folder = make_planted(tmp_path / "data", None, seed=0, train=6)
    table = pd.read_csv(folder / "metadata.csv")
    table.loc[2, "path"] = "../secret.img"
    table.to_csv(folder / "metadata.csv", index=False)
    with pytest.raises(sm.UserError, match="leads outside the data folder"):
        sm.image_properties(folder)
