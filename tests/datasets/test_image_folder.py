"""A folder per class: classes, order and inputs are those of torchvision's `ImageFolder`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from noise_images import SIDE, inputs_of, noise_image
from torchvision.datasets import ImageFolder

import spurious_memorization as sm
from spurious_memorization.errors import UserError


def images(place: Path, *folders: str, each: int = 4) -> Path:
    for i, name in enumerate(folders):
        (place / name).mkdir(parents=True)
        for number in range(each):
            noise_image(100 * i + number).save(place / name / f"{number}.png")
    return place


def test_classes_and_splits_are_those_of_image_folder(tmp_path: Path) -> None:
    parts = {"train": 6, "validation": 4, "test": 2}
    for name, n in parts.items():
        images(tmp_path / name, "10", "9", "cat", each=n)
    data = sm.read_data(tmp_path, image_size=SIDE)
    for name, split in zip(parts, ("train", "val", "test"), strict=True):
        own = ImageFolder(str(tmp_path / name))
        batch = data.samples(split).batch()
        assert data.groups.classes == tuple(own.classes)
        assert batch.y.tolist() == own.targets
        torch.testing.assert_close(batch.inputs, inputs_of(image for image, _ in own))
    assert len(data.groups) == 3


def test_without_splits_each_class_is_split(tmp_path: Path) -> None:
    data = sm.read_data(images(tmp_path, "cat", "dog", each=20), image_size=SIDE)
    own = ImageFolder(str(tmp_path))
    assert data.split_seed == 0
    assert data.y.tolist() == own.targets
    assert [len(data.samples(split)) for split in data.splits] == [28, 4, 8]


def test_folders_below_the_classes_are_an_attribute(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [f"{split}/{label}/{place}" for split in ("train", "test") for label in ("cat", "dog") for place in "ab"]
    data = sm.read_data(images(tmp_path, *folders))
    assert data.groups.names == ("cat with a", "cat with b", "dog with a", "dog with b")
    assert data.train_counts.tolist() == [4, 4, 4, 4]
    assert "the folders below the classes are attributes (a, b)" in capsys.readouterr().err


def test_two_levels_are_two_attributes(tmp_path: Path) -> None:
    folders = [
        f"{y}/{place}/{light}" for y in ("cat", "dog") for place in ("snow", "grass") for light in ("day", "night")
    ]
    data = sm.read_data(images(tmp_path, *folders), attribute="folder_1,folder_2")
    assert "cat with snow, night" in data.groups.names
    with pytest.raises(UserError, match=r"several attribute columns \(folder_1, folder_2\)"):
        sm.read_data(tmp_path)


@pytest.mark.parametrize(
    "folders",
    [
        ("train", "bus"),  # a vehicle, beside another
        ("train", "test"),  # images lie directly in them
        ("train/1/a", "bus/2/b"),  # other folders below each
    ],
)
def test_a_folder_is_no_split_only_because_of_its_name(tmp_path: Path, folders: tuple[str, ...]) -> None:
    data = sm.read_data(images(tmp_path, *folders))
    assert set(data.groups.classes) == {folder.split("/")[0] for folder in folders}
    assert data.split_seed == 0
    assert len(data.groups) == 2


def test_a_table_beside_the_folders_has_the_attributes(tmp_path: Path) -> None:
    images(tmp_path, "train/cat", "train/dog", "test/cat", "test/dog")
    paths = [file.relative_to(tmp_path).as_posix() for file in sorted(tmp_path.rglob("*.png"))]
    table = pd.DataFrame({"file_name": paths, "light": ["day", "night"] * 8})
    table.to_csv(tmp_path / "metadata.csv", index=False)
    data = sm.read_data(tmp_path)
    assert data.groups.names == ("cat with day", "cat with night", "dog with day", "dog with night")
    assert data.train_counts.tolist() == [2, 2, 2, 2]
    table[1:].to_csv(tmp_path / "metadata.csv", index=False)
    with pytest.raises(UserError, match=r"no row for 'test/cat/0.png' \(1 images have none\)"):
        sm.read_data(tmp_path)
    pd.concat([table, table[:1]]).to_csv(tmp_path / "metadata.csv", index=False)
    with pytest.raises(UserError, match=r"has the image 'test/cat/0.png' twice"):
        sm.read_data(tmp_path)
    table.replace("test/cat/0.png", "test/cat/9.png").to_csv(tmp_path / "metadata.csv", index=False)
    with pytest.raises(UserError, match="no row for"):
        sm.read_data(tmp_path)
