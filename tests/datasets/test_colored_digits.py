"""Colored digits: exact counts for any number of classes and colors, and images in the color of the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from spurious_memorization.datasets.colored_digits import make_colored_digits
from spurious_memorization.datasets.folder import read_data
from spurious_memorization.datasets.settings import COLORS, ColoredDigitsSettings
from spurious_memorization.datasets.sources import Images
from spurious_memorization.errors import UserError

SMALL: dict[str, Any] = {"digits": "3,8", "image_size": 8}


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.slow
def test_three_classes_by_four_colors(tmp_path: Path) -> None:
    settings = ColoredDigitsSettings(digits="3,5,8", colors=4, correlation=0.9, image_size=8)
    table = make_colored_digits(tmp_path, settings)
    data = read_data(tmp_path)
    assert list(table.columns) == ["path", "y", "a", "split"]
    assert data.groups.classes == ("3", "5", "8")
    assert data.groups.attributes == ("red", "green", "blue", "yellow")
    assert data.groups.names[6] == "blue 5"
    assert data.train_counts.reshape(3, 4).tolist() == [[115, 5, 4, 4], [4, 115, 5, 4], [4, 4, 110, 4]]
    for split in ("val", "test"):
        counts = np.bincount(data.samples(split).g, minlength=12).reshape(3, 4)
        assert (np.ptp(counts, axis=1) <= 1).all()
    assert (len(data.train), len(data.val), len(data.test)) == (378, 53, 108)
    assert data.train.batch().inputs.shape == (378, 3, 8, 8)  # type: ignore[union-attr]


@pytest.mark.slow
def test_all_digits_by_two_colors(tmp_path: Path) -> None:
    table = make_colored_digits(tmp_path, ColoredDigitsSettings(image_size=8))
    data = read_data(tmp_path)
    assert len(data) == 1797
    assert table["path"].map(lambda path: Path(path).name).is_unique
    assert len(data.groups) == 20
    assert data.minority == tuple(2 * digit + 1 - digit % 2 for digit in range(10))
    shares = data.train_counts.reshape(10, 2)[np.arange(10), np.arange(10) % 2] / data.train_counts.reshape(10, 2).sum(
        1
    )
    assert np.allclose(shares, 0.9, atol=0.005)


@pytest.mark.slow
@pytest.mark.parametrize(("correlation", "usual"), [(0.0, 0.0), (1.0, 1.0)])
def test_the_ends_of_the_correlation(tmp_path: Path, correlation: float, usual: float) -> None:
    make_colored_digits(tmp_path, ColoredDigitsSettings(**SMALL, colors=3, correlation=correlation))
    train = read_data(tmp_path).train
    assert (train.y == train.g % 3).mean() == usual


@pytest.mark.slow
def test_images_have_the_color_that_the_table_says(tmp_path: Path) -> None:
    make_colored_digits(tmp_path, ColoredDigitsSettings(digits="1,4", colors=8, image_size=16))
    data = read_data(tmp_path)
    assert isinstance(data.source, Images)
    palette = np.array([COLORS[name] for name in data.groups.attributes], dtype=float)
    right = []
    for index in range(0, len(data), 3):
        pixels = np.asarray(data.source.open(index), dtype=float).reshape(-1, 3)
        ink = pixels[np.argsort(pixels.sum(1))[-20:]].mean(0)
        right.append(
            np.argmin(((palette / palette.max(1, keepdims=True) - ink / ink.max()) ** 2).sum(1)) == data.a[index]
        )
    assert np.mean(right) > 0.95


@pytest.mark.slow
def test_same_seed_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        make_colored_digits(tmp_path / name, ColoredDigitsSettings(**SMALL, seed=seed))
    one, two, three = (contents(tmp_path / name) for name in ("one", "two", "three"))
    assert one == two
    shared = [name for name in one.keys() & three.keys() if name.endswith(".png")]
    assert shared
    assert not any(one[name] == three[name] for name in shared)
    assert one["metadata.csv"] != three["metadata.csv"]


@pytest.mark.slow
def test_a_stopped_call_is_continued_and_a_complete_folder_stays(tmp_path: Path) -> None:
    settings = ColoredDigitsSettings(**SMALL)
    table = make_colored_digits(tmp_path, settings)
    whole = contents(tmp_path)
    (tmp_path / "metadata.csv").unlink()
    (tmp_path / table["path"][7]).unlink()
    make_colored_digits(tmp_path, settings)
    assert contents(tmp_path) == whole
    assert make_colored_digits(tmp_path, settings).equals(table)


def test_other_settings_or_contents_are_rejected(tmp_path: Path) -> None:
    make_colored_digits(tmp_path / "made", ColoredDigitsSettings(**SMALL))
    with pytest.raises(UserError, match="made with colors 2, not 3"):
        make_colored_digits(tmp_path / "made", ColoredDigitsSettings(**SMALL, colors=3))
    with pytest.raises(UserError, match="not empty"):
        make_colored_digits(tmp_path, ColoredDigitsSettings(**SMALL))


def test_digits_may_be_a_list_or_a_range() -> None:
    assert ColoredDigitsSettings(digits="8, 3,5,5").digits == "3,5,8"
    assert ColoredDigitsSettings(digits="0..2,7").digits == "0,1,2,7"


@pytest.mark.parametrize(
    "wrong",
    [
        {"digits": "3"},
        {"digits": "3,x"},
        {"digits": "8..12"},
        {"digits": "5..3"},
        {"digits": ""},
        {"colors": 1},
        {"colors": 9},
        {"correlation": 1.5},
        {"image_size": 0},
        {"val_share": 0.5, "test_share": 0.5},
    ],
)
def test_impossible_settings_are_rejected(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        ColoredDigitsSettings(**wrong)
