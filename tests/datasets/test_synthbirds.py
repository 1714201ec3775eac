"""Synthbirds: exact counts, images that depend only on seed and number, folders that are complete or continued."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from spurious_memorization.datasets.folder import read_data
from spurious_memorization.datasets.settings import SynthbirdsSettings
from spurious_memorization.datasets.synthbirds import make as synthbirds
from spurious_memorization.datasets.synthbirds.drawing import draw_image
from spurious_memorization.datasets.synthbirds.make import SHAPES, make_synthbirds
from spurious_memorization.errors import UserError

SMALL: dict[str, Any] = {"train": 40, "val": 8, "test": 12, "image_size": 16}


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize(
    ("options", "train", "val", "test"),
    [
        ({"correlation": 0.9}, (18, 2, 2, 18), (2, 2, 2, 2), (3, 3, 3, 3)),
        ({"balance": 0.25}, (29, 1, 0, 10), (3, 3, 1, 1), (5, 4, 1, 2)),
        ({"correlation": 0.0, "train": 7}, (0, 3, 4, 0), (2, 2, 2, 2), (3, 3, 3, 3)),
        ({"correlation": 1.0, "val": 3, "test": 1}, (20, 0, 0, 20), (1, 0, 1, 1), (0, 0, 0, 1)),
    ],
)
def test_counts_per_group_are_exact(
    tmp_path: Path, options: dict[str, Any], train: tuple[int, ...], val: tuple[int, ...], test: tuple[int, ...]
) -> None:
    make_synthbirds(tmp_path / "out", SynthbirdsSettings(**{**SMALL, **options}))
    data = read_data(tmp_path / "out")
    for split, counts in (("train", train), ("val", val), ("test", test)):
        assert tuple(np.bincount(data.samples(split).g, minlength=4)) == counts, split


def test_table_layout_fixes_names_and_size(tmp_path: Path) -> None:
    table = make_synthbirds(tmp_path / "out", SynthbirdsSettings(**SMALL))
    data = read_data(tmp_path / "out")
    assert list(table.columns) == ["path", "y", "a", "split"]
    assert len(table) == len(data) == 60
    assert data.name == "synthbirds"
    assert data.groups.names == ("landbird on land", "landbird on water", "waterbird on land", "waterbird on water")
    assert data.val.batch().inputs.shape == (8, 3, 16, 16)  # type: ignore[union-attr]
    assert data.minority == (1, 2)


def test_waterbirds_layout_has_the_same_images(tmp_path: Path) -> None:
    plain, waterbirds = tmp_path / "plain", tmp_path / "waterbirds"
    make_synthbirds(plain, SynthbirdsSettings(**SMALL))
    table = make_synthbirds(waterbirds, SynthbirdsSettings(**SMALL, layout="waterbirds"))
    assert list(table.columns) == ["img_id", "img_filename", "y", "split", "place", "place_filename"]
    first, second = read_data(plain), read_data(waterbirds)
    assert second.layout == "waterbirds"
    assert first.groups == second.groups
    for name in ("y", "a", "split"):
        assert np.array_equal(getattr(first, name), getattr(second, name)), name
    index = np.arange(len(first))
    assert np.array_equal(first.source.load(index), second.source.load(index))
    assert second.source.load(index).shape == (len(first), 3, 16, 16)  # type: ignore[union-attr]
    assert {path.split("/")[0] for path in table["img_filename"]} == {"001.Landbird", "002.Waterbird"}


@pytest.mark.slow
def test_same_seed_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("one", 3), ("two", 3), ("three", 4)):
        make_synthbirds(tmp_path / name, SynthbirdsSettings(**SMALL, seed=seed))
    one, two, three = (contents(tmp_path / name) for name in ("one", "two", "three"))
    assert one == two
    images = [name for name in one if name.endswith(".jpg")]
    assert len(images) == 60
    assert not any(one[name] == three[name] for name in images)
    assert len({one[name] for name in images}) == 60


def test_a_smaller_set_is_the_beginning_of_a_larger_one(tmp_path: Path) -> None:
    small = make_synthbirds(tmp_path / "small", SynthbirdsSettings(**SMALL))
    large = make_synthbirds(tmp_path / "large", SynthbirdsSettings(**{**SMALL, "train": 60, "test": 20}))
    assert small.merge(large).equals(small)
    assert all((tmp_path / "large" / p).read_bytes() == (tmp_path / "small" / p).read_bytes() for p in small["path"])


def test_bird_and_place_are_drawn_independently() -> None:
    images = {
        (kind, place): np.asarray(draw_image(0, 0, 7, SHAPES[kind], place, 64), dtype=float)
        for kind, place in itertools.product((0, 1), repeat=2)
    }
    for place in (0, 1):
        differing = np.abs(images[0, place] - images[1, place]).max(-1) > 0
        assert 0 < differing.mean() < 0.25
    assert (np.abs(images[0, 0] - images[0, 1]).max(-1) > 20).mean() > 0.5


def test_images_of_any_size_show_the_same_scene() -> None:
    small = draw_image(0, 2, 5, SHAPES[1], 1, 32)
    large = draw_image(0, 2, 5, SHAPES[1], 1, 160)
    assert small.size == (32, 32)
    assert large.size == (160, 160)
    difference = np.asarray(small, dtype=float) - np.asarray(large.resize((32, 32), Image.Resampling.BOX), dtype=float)
    assert np.abs(difference).mean() < 12


def test_an_interrupted_generation_leaves_no_table_and_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SynthbirdsSettings(**SMALL)
    make_synthbirds(tmp_path / "whole", settings)
    drawn = 0

    def interrupted(*arguments: int) -> Image.Image:
        nonlocal drawn
        drawn += 1
        if drawn == 30:
            raise KeyboardInterrupt
        return draw_image(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(synthbirds, "draw_image", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make_synthbirds(tmp_path / "out", settings)
        assert not (tmp_path / "out/metadata.csv").exists()
        with pytest.raises(UserError, match="not in a known layout"):
            read_data(tmp_path / "out")
        make_synthbirds(tmp_path / "out", settings)
    assert drawn == 30 + 60 - 29
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_complete_folder_stays_and_gets_back_lost_images(tmp_path: Path) -> None:
    settings = SynthbirdsSettings(**SMALL)
    table = make_synthbirds(tmp_path, settings)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    assert make_synthbirds(tmp_path, settings).equals(table)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before
    lost = tmp_path / table["path"][3]
    original = lost.read_bytes()
    lost.unlink()
    make_synthbirds(tmp_path, settings)
    assert lost.read_bytes() == original


def test_another_setting_is_rejected_naming_both_values(tmp_path: Path) -> None:
    make_synthbirds(tmp_path, SynthbirdsSettings(**SMALL))
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"made with correlation 0\.95, not 0\.8"):
        make_synthbirds(tmp_path, SynthbirdsSettings(**SMALL, correlation=0.8))
    with pytest.raises(UserError, match="layout table, not waterbirds"):
        make_synthbirds(tmp_path, SynthbirdsSettings(**SMALL, layout="waterbirds"))
    assert contents(tmp_path) == before


def test_a_folder_or_file_with_something_else_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"not empty \(it contains notes\.txt\)"):
        make_synthbirds(tmp_path, SynthbirdsSettings(**SMALL))
    with pytest.raises(UserError, match="is a file"):
        make_synthbirds(tmp_path / "notes.txt", SynthbirdsSettings(**SMALL))
    assert contents(tmp_path) == {"notes.txt": b"mine"}


@pytest.mark.parametrize("record", ["{", "[1]"])
def test_a_damaged_record_is_rejected(tmp_path: Path, record: str) -> None:
    (tmp_path / "synthbirds.json").write_text(record)
    with pytest.raises(UserError, match=r"synthbirds\.json"):
        make_synthbirds(tmp_path, SynthbirdsSettings(**SMALL))


def test_the_settings_are_recorded(tmp_path: Path) -> None:
    settings = SynthbirdsSettings(**SMALL, seed=5)
    make_synthbirds(tmp_path, settings)
    assert json.loads((tmp_path / "synthbirds.json").read_text()) == settings.model_dump(mode="json")


@pytest.mark.parametrize(
    "wrong",
    [
        {"correlation": 1.1},
        {"correlation": -0.1},
        {"correlation": float("nan")},
        {"balance": 0.0},
        {"balance": 1.0},
        {"train": 0},
        {"val": 0},
        {"test": -1},
        {"image_size": 0},
        {"seed": -1},
        {"layout": "celeba"},
        {"unknown": 1},
    ],
)
def test_impossible_settings_are_rejected(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        SynthbirdsSettings(**wrong)
