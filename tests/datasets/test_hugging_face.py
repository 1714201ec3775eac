"""Data sets of Hugging Face's `datasets`: what is read is what the library itself gives."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from noise_images import SIDE, inputs_of, noise_image
from PIL import Image

import datasets
import spurious_memorization as sm
from spurious_memorization.datasets.hugging_face import Rows
from spurious_memorization.datasets.sources import Images
from spurious_memorization.errors import UserError

FEATURES = {
    "image": datasets.Image(),
    "label": datasets.ClassLabel(names=["dog", "cat"]),
    "place": datasets.ClassLabel(names=["snow", "grass"]),
    "camera": datasets.Value("string"),
}
AS_BYTES = datasets.Image(decode=False)
COUNTS = {"train": 12, "validation": 8, "test": 4}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def rows(n: int, first: int = 0, **columns: Any) -> datasets.Dataset:
    number = range(n)
    values = {
        "image": [noise_image(first + i) for i in number],
        "label": [i % 2 for i in number],
        "place": [i // 2 % 2 for i in number],
        "camera": [f"model {i % 3}" for i in number],
    }
    features = {name: FEATURES.get(name) for name in {**values, **columns}}
    known = all(feature is not None for feature in features.values())
    return datasets.Dataset.from_dict({**values, **columns}, features=datasets.Features(features) if known else None)


def splits() -> datasets.DatasetDict:
    return datasets.DatasetDict({name: rows(n, 100 * i) for i, (name, n) in enumerate(COUNTS.items())})


def saved(found: datasets.Dataset | datasets.DatasetDict, place: Path) -> Path:
    found.save_to_disk(place)
    return place


def assert_equal(data: sm.Dataset, own: datasets.DatasetDict) -> None:
    for name, split in (("train", "train"), ("validation", "val"), ("test", "test")):
        samples = data.samples(split)
        assert len(samples) == len(own[name])
        batch = samples.batch()
        torch.testing.assert_close(batch.inputs, inputs_of(own[name]["image"]))
        assert batch.y.tolist() == own[name]["label"]
        assert data.a[samples.index].tolist() == own[name]["place"]
    assert (data.groups.classes, data.groups.attributes) == (("dog", "cat"), ("snow", "grass"))


def test_a_saved_data_set_is_that_of_the_library(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = saved(splits(), tmp_path / "saved")
    data = sm.read_data(place, image_size=SIDE)
    assert_equal(data, datasets.load_from_disk(place))
    assert data.layout == "hugging-face"
    said = capsys.readouterr().err
    assert "images are 'image'; the label is 'label'; columns for attributes are place, camera" in said


def test_parquet_shards_are_split_as_by_the_library(tmp_path: Path) -> None:
    (tmp_path / "shards" / "data").mkdir(parents=True)
    for name, part in splits().items():
        for shard in range(2):
            file = tmp_path / "shards" / "data" / f"{name}-{shard:05}-of-00002.parquet"
            part.shard(2, shard, contiguous=True).to_parquet(file)
    data = sm.read_data(tmp_path / "shards", image_size=SIDE)
    assert_equal(data, datasets.load_dataset(str(tmp_path / "shards")))


def test_one_part_is_split_by_group(tmp_path: Path) -> None:
    data = sm.read_data(saved(rows(40), tmp_path / "one"))
    assert data.split_seed == 0
    assert [len(data.samples(split)) for split in data.splits] == [28, 4, 8]


def test_named_columns_replace_those_that_are_found(tmp_path: Path) -> None:
    part = ["train", "val", "test", "train"] * 3
    place = saved(rows(12, second=[noise_image(i + 50) for i in range(12)], part=part), tmp_path / "two")
    with pytest.raises(UserError, match="the columns image, second are images: name the column of images"):
        sm.read_data(place)
    data = sm.read_data(
        place, image_column="second", label_column="camera", split_column="part", attribute="place", image_size=SIDE
    )
    assert data.groups.classes == ("model 0", "model 1", "model 2")
    assert data.split.tolist() == part
    torch.testing.assert_close(data.val.batch().inputs, inputs_of(noise_image(i + 50) for i in (1, 5, 9)))
    with pytest.raises(UserError, match="no column 'place' of images"):
        sm.read_data(place, image_column="place")
    with pytest.raises(UserError, match="no label column 'second'"):
        sm.read_data(place, image_column="image", label_column="second")


def test_splits_with_other_names_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = datasets.DatasetDict({"train": rows(8), "extra": rows(8)})
    data = sm.read_data(saved(datasets.DatasetDict({**named, "dev": rows(4)}), tmp_path / "parts"))
    assert [len(data.samples(split)) for split in data.splits] == [8, 4]
    assert "left out, since they are not named train, validation or test: extra" in capsys.readouterr().err
    with pytest.raises(UserError, match="none of the splits a, b is named train"):
        sm.read_data(saved(datasets.DatasetDict({"a": rows(8), "b": rows(8)}), tmp_path / "unnamed"))


def test_the_fingerprint_follows_the_bytes(tmp_path: Path) -> None:
    flat = rows(12, image=[Image.new("RGB", (SIDE, SIDE))] * 12)
    one, same, other = (saved(part, tmp_path / str(i)) for i, part in enumerate((rows(12), rows(12), flat)))
    prints = [sm.read_data(place).fingerprint() for place in (one, same, other)]
    assert prints[0] == prints[1] != prints[2]


def test_an_image_file_outside_the_folder_is_never_opened(tmp_path: Path) -> None:
    noise_image(0).save(tmp_path / "secret.png")
    stored = {"image": [{"bytes": None, "path": str(tmp_path / "secret.png")}]}
    part = datasets.Dataset.from_dict(stored, features=datasets.Features(image=datasets.Image(decode=False)))
    for is_within in (True, False):
        source = Images(Rows(tmp_path / "data", {"train": part}, "image", is_within), ("train/0",), None)
        if is_within:
            with pytest.raises(UserError, match="outside the data folder"):
                source.open(0)
        else:
            assert source.open(0).size == (SIDE, SIDE)


def test_a_damaged_folder_is_one_line(tmp_path: Path) -> None:
    place = saved(rows(12), tmp_path / "saved")
    next(place.glob("*.arrow")).write_bytes(b"no table")
    with pytest.raises(UserError, match="can't be read by Hugging Face's datasets"):
        sm.read_data(place)


def test_the_package_is_named_if_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = saved(rows(12), tmp_path / "saved")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"pip install 'spurious-memorization\[datasets\]'"):
        sm.read_data(place)


@pytest.mark.slow
def test_a_data_set_of_the_hub_is_loaded_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def loaded(place: str, **options: Any) -> datasets.DatasetDict:
        asked.append((place, options))
        return splits()

    monkeypatch.setattr(datasets, "load_dataset", loaded)
    settings = sm.TrainSettings(model="resnet18", epochs=1, image_size=32)
    run = sm.train("hf:owner/birds", tmp_path / "run", settings)
    assert asked[0] == ("owner/birds", {"name": None})
    assert run.record.data.folder == "hf:owner/birds"
    assert run.read_data().fingerprint() == run.record.data.fingerprint
    with pytest.raises(UserError, match="write it as hf:owner/name"):
        sm.read_data("hf:birds")


def test_labels_that_are_hidden_are_named(tmp_path: Path) -> None:
    place = saved(datasets.DatasetDict({"train": rows(8), "test": rows(4, label=[-1] * 4)}), tmp_path / "hidden")
    with pytest.raises(UserError, match="column 'y' has no value in row 8"):
        sm.read_data(place)


def test_a_live_data_set_may_be_shuffled_and_selected(tmp_path: Path) -> None:
    live = datasets.DatasetDict({name: part.shuffle(seed=1).select(range(3)) for name, part in splits().items()})
    data = sm.from_hugging_face(live, image_size=SIDE)
    assert_equal(data, live)
    assert data.source.files.size("train/0") == len(live["train"].cast_column("image", AS_BYTES)[0]["image"]["bytes"])
    with pytest.raises(UserError, match="no Dataset or DatasetDict"):
        sm.from_hugging_face(live["train"].to_iterable_dataset())


def test_bytes_without_a_feature_are_images_too() -> None:
    stored = {"shown": [noise_image(i) for i in range(20)], "y": ["finch", "gull"] * 10}
    features = datasets.Features(shown=datasets.Image(), y=datasets.Value("string"))
    table = datasets.Dataset.from_dict(stored, features=features).data.table
    plain = datasets.Dataset(table.replace_schema_metadata(None))
    assert not isinstance(plain.features["shown"], datasets.Image)
    data = sm.from_hugging_face(plain, image_size=SIDE)
    assert data.groups.classes == ("finch", "gull")
    torch.testing.assert_close(data.train.batch().inputs, inputs_of(noise_image(i) for i in data.train.index))
