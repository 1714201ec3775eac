"""Waterbirds from CUB and Places. The tests make small copies of both."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pydantic import ValidationError

from spurious_memorization.datasets.cub_places import is_waterbird, make_waterbirds
from spurious_memorization.datasets.folder import read_data
from spurious_memorization.datasets.settings import CubPlacesSettings
from spurious_memorization.datasets.sources import Images
from spurious_memorization.errors import UserError

CLASSES = ("001.Black_footed_Albatross", "009.Brewer_Blackbird", "086.Pacific_Loon", "113.Western_Meadowlark")
PER_CLASS = 25
TRAINING = 20
BIRD, BEHIND, LAND, WATER = (250, 20, 20), (250, 250, 250), (20, 200, 20), (20, 20, 200)
CATEGORIES = {"b/bamboo_forest": LAND, "f/forest/broadleaf": LAND, "o/ocean": WATER, "l/lake/natural": WATER}


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CUB with red birds on white (25 per class, 20 of them for training), and a small Places."""
    folder = tmp_path_factory.mktemp("originals")
    root = folder / "CUB_200_2011"
    images, labels, split = [], [], []
    for c, name in enumerate(CLASSES):
        (root / "images" / name).mkdir(parents=True)
        (root / "segmentations" / name).mkdir(parents=True)
        for number in range(PER_CLASS):
            path, width, height = f"{name}/{name[4:]}_{number:04d}", 20 + number, 36
            image, mask = Image.new("RGB", (width, height), BEHIND), Image.new("L", (width, height))
            box = (5, 8, 15, 28)
            image.paste(BIRD, box)
            mask.paste(255, box)
            image.save(root / "images" / f"{path}.jpg", quality=95, subsampling=0)
            mask.save(root / "segmentations" / f"{path}.png")
            images.append(f"{len(images) + 1} {path}.jpg")
            labels.append(f"{len(images)} {c + 1}")
            split.append(f"{len(images)} {int(number < TRAINING)}")
    tables = {"images": images, "image_class_labels": labels, "train_test_split": split}
    tables["classes"] = [f"{c + 1} {name}" for c, name in enumerate(CLASSES)]
    for table, lines in tables.items():
        (root / f"{table}.txt").write_text("\n".join(lines) + "\n")
    for category, color in CATEGORIES.items():
        fill(folder / "places" / category, color, 30)
    return folder


@pytest.fixture
def cub(tmp_path: Path, originals: Path) -> Path:
    return Path(shutil.copytree(originals / "CUB_200_2011", tmp_path / "cub/CUB_200_2011"))


@pytest.fixture
def places(tmp_path: Path, originals: Path) -> Path:
    return Path(shutil.copytree(originals / "places", tmp_path / "places"))


def fill(folder: Path, color: tuple[int, int, int], n: int) -> None:
    folder.mkdir(parents=True)
    for number in range(n):
        Image.new("RGB", (24, 24), color).save(folder / f"{number:08d}.jpg", quality=95, subsampling=0)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def made(out: Path, cub: Path, places: Path, **options: Any) -> pd.DataFrame:
    return make_waterbirds(out, CubPlacesSettings(cub=cub, places=places, **options))


def test_counts_columns_and_official_test_split(tmp_path: Path, cub: Path, places: Path) -> None:
    table = made(tmp_path / "out", cub, places, correlation=0.9)
    assert list(table.columns) == ["img_id", "img_filename", "y", "split", "place", "place_filename"]
    data = read_data(tmp_path / "out")
    assert data.layout == "waterbirds"
    assert data.groups.names == ("landbird on land", "landbird on water", "waterbird on land", "waterbird on water")
    counts = {split: np.bincount(data.samples(split).g, minlength=4).tolist() for split in data.splits}
    assert counts == {"train": [29, 3, 3, 29], "val": [4, 4, 4, 4], "test": [5, 5, 5, 5]}
    official = table["img_filename"].str[-8:-4].astype(int) >= TRAINING
    assert ((table["split"] == 2) == official).all()
    assert table["img_filename"].str.contains("Albatross|Loon").eq(table["y"] == 1).all()


def test_birds_stand_on_the_place_that_the_table_says(tmp_path: Path, cub: Path, places: Path) -> None:
    table = made(tmp_path / "out", cub, places)
    source = read_data(tmp_path / "out").source
    assert isinstance(source, Images)
    for row in table.itertuples():
        image = source.open(row.img_id - 1)
        with Image.open(cub / "images" / str(row.img_filename)) as original:
            assert image.size == original.size
        assert np.allclose(image.getpixel((10, 18)), BIRD, atol=8)
        assert np.allclose(image.getpixel((1, 1)), WATER if row.place else LAND, atol=8)
        assert (places / str(row.place_filename)).is_file()
        assert str(row.place_filename).startswith(("o/ocean", "l/lake") if row.place else ("b/bamboo", "f/forest"))


def test_backgrounds_are_used_once_where_there_are_enough(tmp_path: Path, cub: Path, places: Path) -> None:
    assert made(tmp_path / "out", cub, places)["place_filename"].is_unique


def test_scarce_backgrounds_repeat_only_within_a_split(
    tmp_path: Path, cub: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for category, color in CATEGORIES.items():
        fill(tmp_path / "few" / category, color, 5)
    table = made(tmp_path / "out", cub, tmp_path / "few")
    assert "only 10 images of land for 50 birds" in capsys.readouterr().err
    assert table.groupby("place_filename")["split"].nunique().eq(1).all()
    assert table["place_filename"].nunique() >= 18
    shutil.rmtree(tmp_path / "few")
    for category, color in CATEGORIES.items():
        fill(tmp_path / "few" / category, color, 1)
    with pytest.raises(UserError, match="only 2 images of land"):
        made(tmp_path / "out2", cub, tmp_path / "few")


@pytest.mark.slow
def test_same_seed_same_bytes_and_another_seed_others(tmp_path: Path, cub: Path, places: Path) -> None:
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        made(tmp_path / name, cub, places, seed=seed)
    one, two, three = (contents(tmp_path / name) for name in ("one", "two", "three"))
    assert one == two
    assert one["metadata.csv"] != three["metadata.csv"]


@pytest.mark.slow
def test_other_places_of_the_folders(tmp_path: Path, cub: Path) -> None:
    shutil.move(cub / "segmentations", cub.parent / "segmentations")
    flat = tmp_path / "flat"
    for category, color in zip(
        ("bamboo_forest", "forest-broadleaf", "ocean", "lake_natural"), CATEGORIES.values(), strict=True
    ):
        fill(flat / "train" / category, color, 20)
    table = made(tmp_path / "out", cub.parent, flat)
    assert len(table) == len(CLASSES) * PER_CLASS
    assert table["place_filename"].str.startswith("train/").all()


def test_western_birds_are_no_terns_but_where_published() -> None:
    assert is_waterbird("141.Artic_Tern")
    assert is_waterbird("086.Pacific_Loon")
    assert is_waterbird("044.Frigatebird")
    for name in ("113.Western_Meadowlark", "021.Eastern_Towhee", "102.Western_Wood_Pewee"):
        assert not is_waterbird(name)
        assert is_waterbird(name, "published")


def test_published_labels(tmp_path: Path, cub: Path, places: Path) -> None:
    table = made(tmp_path / "out", cub, places, labels="published")
    assert table["y"].sum() == 3 * PER_CLASS


def test_everything_missing_is_named(tmp_path: Path, cub: Path, places: Path) -> None:
    (cub / "classes.txt").unlink()
    shutil.rmtree(cub / "segmentations")
    shutil.rmtree(places / "o")
    for file in (places / "l/lake/natural").iterdir():
        file.unlink()
    with pytest.raises(UserError) as error:
        made(tmp_path / "out", cub, places)
    message = str(error.value)
    for part in ("classes.txt", "segmentations/", "o/ocean/ (or ocean)", "images in", "l/lake/natural/"):
        assert part in message
    for part in ("images.txt", "bamboo", "\n"):
        assert part not in message
    assert not (tmp_path / "out").exists()


def test_missing_images_and_masks_are_named(tmp_path: Path, cub: Path, places: Path) -> None:
    masks = sorted((cub / "segmentations" / CLASSES[1]).iterdir())
    for file in masks[:7]:
        file.unlink()
    with pytest.raises(UserError, match=r"Brewer_Blackbird_0000\.png.* and 2 more"):
        made(tmp_path / "out", cub, places)


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("images.txt", "1 ../../escaped.jpg\n", "leads outside"),
        ("image_class_labels.txt", "1 1\n", "don't list the same"),
        ("classes.txt", "1 001.Black_footed_Albatross\n", "don't list the same"),
    ],
)
def test_tables_that_do_not_fit_are_rejected(
    tmp_path: Path, cub: Path, places: Path, file: str, line: str, message: str
) -> None:
    (cub / file).write_text(line)
    with pytest.raises(UserError, match=message):
        made(tmp_path / "out", cub, places)


@pytest.mark.slow
def test_a_broken_image_stops_it_and_the_same_call_continues(tmp_path: Path, cub: Path, places: Path) -> None:
    made(tmp_path / "whole", cub, places)
    broken = cub / "images" / CLASSES[2] / f"{CLASSES[2][4:]}_0003.jpg"
    intact = broken.read_bytes()
    broken.write_bytes(intact[:200])
    with pytest.raises(UserError, match=r"Pacific_Loon_0003\.jpg can't be read"):
        made(tmp_path / "out", cub, places)
    assert not (tmp_path / "out/metadata.csv").exists()
    broken.write_bytes(intact)
    saved = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.jpg")}
    assert len(saved) == 2 * PER_CLASS + 3
    made(tmp_path / "out", cub, places)
    assert {p: p.stat().st_mtime_ns for p in saved} == saved
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_mask_of_another_size_is_rejected(tmp_path: Path, cub: Path, places: Path) -> None:
    mask = cub / "segmentations" / CLASSES[0] / f"{CLASSES[0][4:]}_0000.png"
    Image.new("L", (5, 5)).save(mask)
    with pytest.raises(UserError, match=r"has the size \(5, 5\), but its image has \(20, 36\)"):
        made(tmp_path / "out", cub, places)


def test_other_settings_or_sources_are_rejected(tmp_path: Path, cub: Path, places: Path) -> None:
    table = made(tmp_path / "out", cub, places)
    assert made(tmp_path / "out", cub, places).equals(table)
    with pytest.raises(UserError, match="made with seed 0, not 1"):
        made(tmp_path / "out", cub, places, seed=1)
    (places / "o/ocean/00000000.jpg").unlink()
    with pytest.raises(UserError, match="made with water_backgrounds 60, not 59"):
        made(tmp_path / "out", cub, places)


@pytest.mark.parametrize("wrong", [{"correlation": 2}, {"val_share": 1.0}, {"labels": "all"}, {"seed": -1}])
def test_impossible_settings_are_rejected(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        CubPlacesSettings(cub=Path("c"), places=Path("p"), **wrong)
