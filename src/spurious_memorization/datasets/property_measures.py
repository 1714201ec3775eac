"""Properties of one image that need no network: formulas on its pixels, and facts of its file."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import laplace

MAX_SIDE = 1024
"""Pixels are measured on an image whose longer side has at most this many: larger ones are shrunk by a whole factor."""

HUES = ("red", "yellow", "green", "cyan", "blue", "magenta")
"""Names of the hues at 0, 60, ..., 300 degrees. Each stands for 30 degrees on both sides."""
GRAY = "gray"

MIN_CHROMA = 0.05
"""Mean chroma (largest minus least of red, green and blue, in 0..1) under which an image has no hue."""
MIN_CHROMA_OF_COLOR = 0.1
"""The same for a single color, which is named black, gray or white below it."""
DARK, LIGHT = 0.2, 0.8

BORDER = 0.03
"""Width of the outer frame, as a share of the shorter side."""
CORNER = 1 / 6
"""Side of the square in a corner, as a share of the shorter side."""
CORNERS = ("top_left", "top_right", "bottom_left", "bottom_right")

DIGITS = 6
"""Values are rounded to this many decimals: beyond them, uniform images would differ by errors of float32."""

Floats = NDArray[np.floating[Any]]
Property = float | str


def measured_properties(image: Image.Image) -> Mapping[str, Property]:
    """The properties of an image that can be seen in its pixels.

    Arguments:
        image: in RGB.

    Returns:
        For each property its value:

        - brightness, contrast: mean and standard deviation of the gray values, in 0..1 (Rec. 601; the contrast is the
          RMS contrast of Peli 1990)
        - sharpness: variance of the Laplacian of the gray values in 0..255 (Pech-Pacheco et al. 2000)
        - colorfulness: of Hasler and Süsstrunk (2003); 0 is gray, 109 extremely colorful
        - hue: the name of the dominant hue, or "gray"
        - border_color: name of the mean color of the outer frame
        - border_brightness: mean gray value of the frame, in 0..1
        - border_variation: root mean square distance of the frame's pixels from their mean color, in 0..1; 0 is uniform
        - mark_top_left, ...: how much a corner stands out; see `corner_marks`
    """
    small = image.reduce(max(1, -(-max(image.size) // MAX_SIDE)))
    pixels = np.asarray(small, np.float32)
    gray = np.asarray(small.convert("L"), np.float32)
    frame = np.concatenate([part.reshape(-1, 3) for part in _frame(pixels)])
    frame_gray = np.concatenate([part.ravel() for part in _frame(gray)])
    mean_color = frame.mean(0) / 255
    marks = corner_marks(pixels / 255, gray / 255)
    values: dict[str, Property] = {
        "brightness": float(gray.mean()) / 255,
        "contrast": float(gray.std()) / 255,
        "sharpness": float(laplace(gray).var()),
        "colorfulness": colorfulness(pixels),
        "hue": dominant_hue(small),
        "border_color": color_name(*mean_color.tolist()),
        "border_brightness": float(frame_gray.mean()) / 255,
        "border_variation": float(np.sqrt(np.square(frame / 255 - mean_color).mean())),
        **{f"mark_{corner}": float(mark) for corner, mark in zip(CORNERS, marks, strict=True)},
    }
    return {name: value if isinstance(value, str) else round(value, DIGITS) for name, value in values.items()}


def file_properties(width: int, height: int, n_bytes: int, file_format: str) -> Mapping[str, Property]:
    """The properties of an image that are known from its file: size in pixels and bytes, and format."""
    return {
        "width": float(width),
        "height": float(height),
        "aspect_ratio": width / height,
        "pixels": float(width * height),
        "file_size": float(n_bytes),
        "bytes_per_pixel": n_bytes / (width * height),
        "file_format": file_format,
    }


def colorfulness(pixels: Floats) -> float:
    """The metric M of Hasler and Süsstrunk (2003, "Measuring colorfulness in natural images").

    Arguments:
        pixels: [height, width, 3], in 0..255.
    """
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    red_green, yellow_blue = red - green, (red + green) / 2 - blue
    spread = np.hypot(red_green.std(), yellow_blue.std())
    return float(spread + 0.3 * np.hypot(red_green.mean(), yellow_blue.mean()))


def dominant_hue(image: Image.Image) -> str:
    """The sector of 60 degrees with the most chroma, by name; "gray" if the mean chroma is under `MIN_CHROMA`."""
    hue, saturation, value = (np.asarray(band) for band in image.convert("HSV").split())
    chroma = saturation.astype(np.float32) * value / 255**2
    if chroma.mean() < MIN_CHROMA:
        return GRAY
    sectors = np.arange(256) * len(HUES) / 256 + 0.5
    of_hue = np.bincount(hue.ravel(), weights=chroma.ravel(), minlength=256)
    return HUES[np.bincount(sectors.astype(int) % len(HUES), weights=of_hue).argmax()]


def color_name(red: float, green: float, blue: float) -> str:
    """A name for a color in 0..1: black, gray, white, or its hue."""
    if max(red, green, blue) - min(red, green, blue) < MIN_CHROMA_OF_COLOR:
        mean = (red + green + blue) / 3
        return "black" if mean < DARK else "white" if mean > LIGHT else GRAY
    return HUES[int(colorsys.rgb_to_hsv(red, green, blue)[0] * len(HUES) + 0.5) % len(HUES)]


def corner_marks(pixels: Floats, gray: Floats) -> Floats:
    """How much each corner stands out from the other three, as a tag, a watermark or a printed text does.

    A corner's value is the mean distance of its pixels from the mean color of the other corners, plus the mean
    absolute step from one gray value to the next. Its mark is this value minus the median of the other corners: near 0
    if the corners are alike, whatever their texture is.

    Arguments:
        pixels: [height, width, 3], in 0..1.
        gray: [height, width], in 0..1.

    Returns:
        The mark of each corner, [corners], in the order of `CORNERS`.
    """
    corners, gray_corners = _corners(pixels), _corners(gray)
    means = corners.mean((1, 2))
    others = (means.sum(0) - means) / (len(CORNERS) - 1)
    distance = np.abs(corners - others[:, None, None]).mean((1, 2, 3))
    steps = sum(_mean_step(gray_corners, axis) for axis in (1, 2))
    values = distance + steps
    marks: Floats = values - np.array([np.median(np.delete(values, corner)) for corner in range(len(CORNERS))])
    return marks


def _frame(values: Floats) -> list[Floats]:
    """The four strips of the outer frame, each pixel once."""
    height, width = values.shape[:2]
    t = max(1, round(BORDER * min(height, width)))
    if 2 * t >= min(height, width):
        return [values]
    return [values[:t], values[-t:], values[t:-t, :t], values[t:-t, -t:]]


def _corners(values: Floats) -> Floats:
    """The four corners, [corners, side, side, ...]."""
    side = max(1, round(CORNER * min(values.shape[:2])))
    top, bottom = values[:side], values[-side:]
    return np.stack([top[:, :side], top[:, -side:], bottom[:, :side], bottom[:, -side:]])


def _mean_step(corners: Floats, axis: int) -> Floats:
    """Mean absolute difference of neighbors along an axis, [corners]. 0 if there is only one pixel."""
    if corners.shape[axis] < 2:
        return np.zeros(len(corners), np.float32)
    steps: Floats = np.abs(np.diff(corners, axis=axis)).mean((1, 2))
    return steps
