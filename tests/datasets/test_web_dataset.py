"""Shards of WebDataset: what is read is what the library itself gives."""

from __future__ import annotations

import gc
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
import webdataset
from noise_images import SIDE, inputs_of, png

import spurious_memorization as sm
from spurious_memorization.datasets.check import check
from spurious_memorization.errors import UserError


def shard(file: Path, samples: list[dict[str, bytes | str]], name: str = "dir.1/s{:03d}.v2") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as archive:
        for i, sample in enumerate(samples):
            for key, value in sample.items():
                content = value.encode() if isinstance(value, str) else value
                entry = tarfile.TarInfo(f"{name.format(i).removesuffix('.v2')}.{key}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return file


def samples(n: int, first: int = 0) -> list[dict[str, bytes | str]]:
    return [
        {"png": png(first + i), "cls": f"{i % 2}\n", "json": json.dumps({"place": "ab"[i // 2 % 2], "box": [1, 2]})}
        for i in range(n)
    ]


def own_samples(files: list[Path]) -> list[dict[str, Any]]:
    """The samples as the library decodes them."""
    found = list(webdataset.WebDataset([str(file) for file in files], shardshuffle=False).decode("pil"))
    gc.collect()  # the library leaves its files open
    return found


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_samples_and_splits_are_those_of_the_library(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {
        "train": [shard(tmp_path / f"birds-train-{i:06d}.tar", samples(6, 10 * i)) for i in range(2)],
        "val": [shard(tmp_path / "valid" / "000000.tar", samples(4, 50))],
    }
    data = sm.read_data(tmp_path, image_size=SIDE)
    for split, parts in files.items():
        own = own_samples(parts)
        batch = data.samples(split).batch()
        torch.testing.assert_close(batch.inputs, inputs_of(sample["png"] for sample in own))
        assert batch.y.tolist() == [sample["cls"] for sample in own]
        places = [data.groups.attributes[a] for a in data.a[data.samples(split).index]]
        assert places == [sample["json"]["place"] for sample in own]
    assert "16 samples in 3 WebDataset shards; the label is 'cls'" in capsys.readouterr().err


def test_the_check_finds_a_damaged_image_and_a_copy_in_another_split(tmp_path: Path) -> None:
    broken = [{**samples(1)[0], "png": png(7)[:-30]}]
    shard(tmp_path / "train-0.tar", [*samples(6), *broken])
    shard(tmp_path / "test-0.tar", samples(3, 4))
    report = check(tmp_path)
    assert list(report.broken) == ["train-0.tar/dir.1/s006.png"]
    assert report.leaks[0] == {"train": ("train-0.tar/dir.1/s004.png",), "test": ("test-0.tar/dir.1/s000.png",)}


def test_several_images_need_a_choice(tmp_path: Path) -> None:
    two = [{"rgb.png": png(i), "ir.png": png(i + 50), "cls": str(i % 2)} for i in range(10)]
    shard(tmp_path / "x.tar", two)
    with pytest.raises(UserError, match=r"several images \(rgb.png, ir.png\): name one by image_column"):
        sm.read_data(tmp_path)
    data = sm.read_data(tmp_path, image_column="ir.png", image_size=SIDE)
    assert {path.rpartition("/")[2] for path in data.source.paths} == {f"s{i:03d}.ir.png" for i in range(10)}


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ([{"png": png(0), "json": "{"}], "is not JSON"),
        ([{"png": png(0), "json": "[]"}], "holds no names with values"),
        ([{"png": png(0), "cls": b"\xff"}], "is not text in UTF-8"),
        ([{"png": png(0), "json": '{"kind": "cat"}'}], r"no cls \(beside images they have kind\)"),
    ],
)
def test_wrong_samples_are_one_line(tmp_path: Path, made: list[dict[str, bytes | str]], message: str) -> None:
    shard(tmp_path / "x.tar", made)
    with pytest.raises(UserError, match=message) as caught:
        sm.read_data(tmp_path)
    assert "\n" not in str(caught.value)


def test_wrong_shards_are_one_line(tmp_path: Path) -> None:
    shard(tmp_path / "train.tar", samples(6))
    shard(tmp_path / "other.tar", samples(6))
    with pytest.raises(UserError, match=r"shard other.tar has no split in its name"):
        sm.read_data(tmp_path)
    (tmp_path / "other.tar").write_bytes(b"\x1f\x8bno tar")
    with pytest.raises(UserError, match="a compressed one must be unpacked first"):
        sm.read_data(tmp_path)


def test_a_path_that_leads_outside_is_refused(tmp_path: Path) -> None:
    shard(tmp_path / "x.tar", samples(4), name="../s{:03d}")
    with pytest.raises(UserError, match="leads outside the data folder"):
        sm.read_data(tmp_path)
