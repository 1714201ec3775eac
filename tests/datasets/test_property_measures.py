"""Properties of one image, against scikit-image, published formulas and images for which the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import color, filters

from spurious_memorization.datasets.property_measures import (
    CORNERS,
    HUES,
    MAX_SIDE,
    MIN_CHROMA,
    color_name,
    corner_marks,
    file_properties,
    measured_properties,
)

MARKS = [f"mark_{corner}" for corner in CORNERS]


def noisy(seed: int, height: int = 40, width: int = 50) -> Image.Image:
    """Noise around a random color, with a random spread."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(0, 255, 3) + rng.uniform(1, 80) * rng.normal(size=(height, width, 3))
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def of_color(*rgb: int, size: tuple[int, int] = (30, 20)) -> Image.Image:
    return Image.new("RGB", size, rgb)


seeds = st.integers(0, 2**32 - 1)


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_gray_values_are_those_of_scikit_image(seed: int) -> None:
    image = noisy(seed)
    found = measured_properties(image)
    gray = color.rgb2yuv(np.asarray(image))[..., 0]  # the weights of Rec. 601; Pillow rounds to whole gray values
    assert found["brightness"] == pytest.approx(gray.mean(), abs=0.5 / 255)
    assert found["contrast"] == pytest.approx(gray.std(), abs=0.5 / 255)


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_sharpness_is_the_variance_of_the_laplacian_of_scikit_image(seed: int) -> None:
    image = noisy(seed)
    gray = np.asarray(image.convert("L"), np.float64)
    assert measured_properties(image)["sharpness"] == pytest.approx(filters.laplace(gray).var(), rel=1e-4)


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_the_dominant_hue_is_that_of_scikit_image(seed: int) -> None:
    image = noisy(seed)
    hue, saturation, value = np.moveaxis(color.rgb2hsv(np.asarray(image)), -1, 0)
    chroma = saturation * value
    distance = np.abs((hue[..., None] * 6 - np.arange(6) + 3) % 6 - 3)  # of each pixel from each named hue
    least, most = ((chroma[..., None] * (distance < side)).sum((0, 1)) for side in (0.45, 0.55))
    found = measured_properties(image)["hue"]
    if abs(chroma.mean() - MIN_CHROMA) > 0.01:
        assert (found == "gray") == (chroma.mean() < MIN_CHROMA)
    if found != "gray":
        assert most[HUES.index(str(found))] >= 0.98 * least.max()  # Pillow rounds hues to 256 levels


@pytest.mark.parametrize(
    ("rgb", "expected"),
    [
        ((90, 90, 90), 0.0),
        ((255, 0, 0), 0.3 * np.hypot(255, 127.5)),
        ((0, 0, 255), 0.3 * 255),
        ((255, 255, 0), 0.3 * 255),
    ],
)
def test_colorfulness_of_one_color(rgb: tuple[int, int, int], expected: float) -> None:
    assert measured_properties(of_color(*rgb))["colorfulness"] == pytest.approx(expected, rel=1e-5)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_colorfulness_is_the_formula_of_hasler_and_suesstrunk(seed: int) -> None:
    image = noisy(seed)
    r, g, b = np.asarray(image, np.float64).reshape(-1, 3).T
    rg, yb = r - g, 0.5 * (r + g) - b
    spread, mean = np.sqrt(rg.var() + yb.var()), np.sqrt(rg.mean() ** 2 + yb.mean() ** 2)
    assert measured_properties(image)["colorfulness"] == pytest.approx(spread + 0.3 * mean, rel=1e-4)


@pytest.mark.parametrize("rgb", [(0, 0, 0), (77, 77, 77), (200, 30, 90), (255, 255, 255)])
def test_one_color_has_no_variation_of_any_kind(rgb: tuple[int, int, int]) -> None:
    found = measured_properties(of_color(*rgb, size=(61, 43)))
    assert [found[name] for name in ("contrast", "sharpness", "border_variation", *MARKS)] == [0] * 7


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((1, 0, 0), "red"),
        ((1, 0.02, 0.1), "red"),
        ((0.9, 0.9, 0.1), "yellow"),
        ((0, 0.5, 0), "green"),
        ((0, 0.8, 0.8), "cyan"),
        ((0.1, 0.1, 0.6), "blue"),
        ((0.7, 0, 0.7), "magenta"),
        ((0.1, 0.1, 0.1), "black"),
        ((0.5, 0.5, 0.55), "gray"),
        ((1, 0.95, 0.95), "white"),
    ],
)
def test_names_of_colors(rgb: tuple[float, float, float], name: str) -> None:
    assert color_name(*rgb) == name


@pytest.mark.parametrize("size", [(64, 64), (200, 90)])
def test_a_frame_is_measured_and_nothing_else(size: tuple[int, int]) -> None:
    width, height = size
    values = np.full((height, width, 3), (200, 30, 30), np.uint8)
    t = max(1, round(0.03 * min(size)))
    values[t:-t, t:-t] = np.random.default_rng(0).integers(0, 256, (height - 2 * t, width - 2 * t, 3))
    found = measured_properties(Image.fromarray(values))
    assert found["border_color"] == "red"
    assert found["border_variation"] == 0
    assert found["border_brightness"] == pytest.approx((0.299 * 200 + 0.701 * 30) / 255, abs=0.5 / 255)


@given(seeds, st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_a_tag_makes_its_corner_stand_out(seed: int, corner: int) -> None:
    values = np.asarray(noisy(seed, 60, 60), np.uint8).copy()
    values[:8, :8] = np.where(values.mean() < 128, 255, 0)
    for _ in range(3):
        values[2:6, 2 + 2 * _] = 128
    flipped = values[:: -1 if corner >= 2 else 1, :: -1 if corner % 2 else 1]
    found = measured_properties(Image.fromarray(np.ascontiguousarray(flipped)))
    assert max(MARKS, key=lambda name: float(found[name])) == MARKS[corner]


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_a_mirror_swaps_the_marks_of_left_and_right(seed: int) -> None:
    pixels = np.asarray(noisy(seed), np.float64) / 255
    gray = pixels.mean(2)
    there, mirrored = corner_marks(pixels, gray), corner_marks(pixels[:, ::-1], gray[:, ::-1])
    np.testing.assert_allclose(there[[1, 0, 3, 2]], mirrored, atol=1e-12)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1), (2, 2), (3000, 2), (1, 4000)])
def test_tiny_and_narrow_images(size: tuple[int, int]) -> None:
    found = measured_properties(of_color(10, 20, 30, size=size))
    assert all(isinstance(value, str) or np.isfinite(value) for value in found.values())


def test_large_images_are_measured_on_fewer_pixels() -> None:
    small = noisy(3, MAX_SIDE // 4, MAX_SIDE // 2)
    large = small.resize((small.width * 6, small.height * 6), Image.Resampling.NEAREST)
    assert max(large.size) > MAX_SIDE
    found, of_large = measured_properties(small), measured_properties(large)
    for name in ("brightness", "contrast", "colorfulness", "border_brightness"):
        assert of_large[name] == pytest.approx(found[name], rel=0.02)


def test_properties_of_the_file() -> None:
    found = file_properties(40, 20, 1600, "PNG")
    assert found == {
        "width": 40,
        "height": 20,
        "aspect_ratio": 2,
        "pixels": 800,
        "file_size": 1600,
        "bytes_per_pixel": 2,
        "file_format": "PNG",
    }
