"""Synthbirds: generated pictures of two kinds of birds, on land or water, with a planted spurious correlation.

The kinds differ in shape alone (bill, neck, tail, feet); plumage, pose, size and surroundings are drawn from the same
distributions for both. The background is by far the easier clue, as in Waterbirds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import cos, floor, pi, sin
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydantic import Field

from ..atomic import whole_file, write_text
from ..console import progress, say
from ..errors import UserError
from ..settings import Settings
from .samples import SPLITS
from .tables import TABLE_FILES, DatasetDescription, read_frame, write_own_table

KINDS = ("landbird", "waterbird")
PLACES = ("land", "water")
BALANCED = Fraction(1, 2)
WATERBIRDS_COLUMNS = ("img_id", "img_filename", "y", "split", "place", "place_filename")

Colour = tuple[int, int, int]
Points = NDArray[np.float64]


class SynthbirdsSettings(Settings):
    """What is drawn, and how many of it."""

    train: int = Field(2400, ge=2, description="training images")
    val: int = Field(600, ge=1, description="validation images")
    test: int = Field(1200, ge=1, description="test images")
    image_size: int = Field(64, ge=16, le=512, description="side of an image in pixels")
    correlation: float = Field(
        0.95, ge=0, le=1, description="share of each kind's training images whose background matches the kind"
    )
    balance: float = Field(0.5, gt=0, lt=1, description="share of waterbirds in each split")
    seed: int = Field(0, ge=0, description="seed of every draw")
    layout: Literal["table", "waterbirds"] = Field(
        "table", description="the own-data layout, or Waterbirds' own columns and folders"
    )


def make_synthbirds(out: Path, settings: SynthbirdsSettings | None = None) -> pd.DataFrame:
    """Draw the images below `out`, then write its table.

    In each split exactly the share `balance` of the images (rounded) are waterbirds; in training exactly the share
    `correlation` of each kind has the background that matches it, in val and test half of each kind. All draws of
    an image follow from seed, split and number alone, so that a smaller set is the beginning of a larger one.

    Arguments:
        out: the data folder. One that a killed call left is continued; one that is complete stays as it is.
        settings: counts, shares, size, seed and layout.

    Returns:
        The table: one row an image, in the columns of the layout.

    Raises:
        UserError: `out` holds something else, or the same data with other settings, or can't be written.

    Example:
        ```python
        make_synthbirds(Path("birds"), SynthbirdsSettings(train=240, val=60, test=120))
        data = read_data("birds")
        ```
    """
    settings = settings or SynthbirdsSettings()
    plan = _plan(settings)
    begin_folder(out, "synthbirds", settings.model_dump(mode="json"))

    def draw(row: Any) -> Image.Image:
        return draw_picture(settings.seed, SPLITS.index(row.split), row.number, row.y, row.place, settings.image_size)

    save_pictures(out, list(plan.itertuples()), draw, "drawing birds", seconds_each=0.0045)
    if settings.layout == "waterbirds":
        description = DatasetDescription(name="synthbirds", image_size=settings.image_size, resize=settings.image_size)
        return finish_folder(out, waterbirds_table(plan), description)
    description = DatasetDescription(
        name="synthbirds",
        image_size=settings.image_size,
        classes=KINDS,
        attributes={"a": PLACES},
        group_name="{label} on {attribute}",
    )
    plan["y"] = np.take(KINDS, plan["y"])
    plan["a"] = np.take(PLACES, plan["place"])
    return finish_folder(out, plan[["path", "y", "a", "split"]], description)


def planted(n: int, share: Fraction) -> NDArray[np.bool_]:
    """Which of `n` numbered things belong to a share: evenly spread, and the same for each number whatever `n`.

    Returns:
        Shape [n], true exactly `n * share` times, rounded half up.
    """
    return np.diff([floor(number * share + BALANCED) for number in range(n + 1)]).astype(bool)


def _plan(settings: SynthbirdsSettings) -> pd.DataFrame:
    """One row an image: split, number in it, y, place and path."""
    parts = []
    for split in SPLITS:
        n = getattr(settings, split)
        y = planted(n, Fraction(str(settings.balance))).astype(np.int64)
        matches = np.zeros(n, dtype=bool)
        for kind in range(len(KINDS)):
            share = Fraction(str(settings.correlation)) if split == "train" else BALANCED
            matches[y == kind] = planted(int((y == kind).sum()), share)
        part = pd.DataFrame({"split": split, "number": range(n), "y": y, "place": np.where(matches, y, 1 - y)})
        parts.append(part)
    plan = pd.concat(parts, ignore_index=True)
    if settings.layout == "waterbirds":
        folders = [f"{kind + 1:03d}.{name.title()}/{name.title()}" for kind, name in enumerate(KINDS)]
        plan["path"] = [f"{folders[row.y]}_{row.split}_{row.number:05d}.jpg" for row in plan.itertuples()]
        plan["place_filename"] = [f"drawn/{PLACES[place]}" for place in plan["place"]]
    else:
        plan["path"] = [f"{row.split}/{row.number:05d}.jpg" for row in plan.itertuples()]
    return plan


# Folders of generated data


def begin_folder(out: Path, source: str, settings: dict[str, Any]) -> None:
    """Take `out` for generated data: record what it is made from in `<source>.json`.

    Arguments:
        source: name of the generator.
        settings: everything that the data depends on, in JSON's types.

    Raises:
        UserError: `out` is no folder, holds something else, or data of this source made otherwise.
    """
    record = out / f"{source}.json"
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: choose another place for the data")
    if not record.is_file():
        if found := next((p for p in sorted(out.glob("*")) if not p.name.startswith(".")), None):
            raise UserError(f"{out} is not empty (it holds {found.name}): choose an empty or a new folder")
        write_text(record, json.dumps(settings, indent=2) + "\n")
        return
    try:
        recorded = json.loads(record.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{record} can't be read: remove {out}, or choose another folder") from error
    if not isinstance(recorded, dict):
        raise UserError(f"{record} holds no settings: remove {out}, or choose another folder")
    for name in sorted(settings.keys() | recorded.keys()):
        if settings.get(name) != recorded.get(name):
            raise UserError(
                f"{out} was made with {name} {recorded.get(name)}, not {settings.get(name)}: "
                "choose another folder, or the same settings"
            )


def save_pictures(
    out: Path, rows: Sequence[Any], draw: Callable[[Any], Image.Image], label: str, seconds_each: float
) -> None:
    """Draw and save the picture of each row that has no file yet.

    Arguments:
        rows: what to draw; each has a `path` relative to `out`, ending in .jpg or .png.
        draw: makes the picture of a row.
        label: what the progress bar says.
        seconds_each: about how long a picture takes.

    Raises:
        UserError: a file can't be written.
    """
    missing = [row for row in rows if not (out / row.path).is_file()]
    if not missing:
        return
    seconds = len(missing) * seconds_each
    duration = f"{seconds / 60:.0f} min" if seconds > 90 else f"{max(seconds, 1):.0f} s"
    say(f"{label}: {len(missing)} pictures into {out}, about {duration}")
    for row in progress(missing, len(missing), label):
        picture = draw(row)
        with whole_file(out / row.path, flush=False) as temporary:
            if row.path.endswith(".png"):
                picture.save(temporary, format="PNG")
            else:
                picture.save(temporary, format="JPEG", quality=92, subsampling=0)


def finish_folder(out: Path, table: pd.DataFrame, description: DatasetDescription | None) -> pd.DataFrame:
    """Write the table (after its description), unless the folder has one, and return it.

    Raises:
        UserError: a file can't be written.
    """
    file = out / TABLE_FILES[0]
    if file.is_file():
        return read_frame(file)
    if description is not None:
        write_own_table(out, table, description)
    else:
        write_text(file, table.to_csv(index=False))
    return table.reset_index(drop=True)


def waterbirds_table(plan: pd.DataFrame) -> pd.DataFrame:
    """Waterbirds' own columns, from path, y, split (a name), place (1: water) and place_filename."""
    table = plan.rename(columns={"path": "img_filename"}).assign(
        img_id=np.arange(1, len(plan) + 1), split=[SPLITS.index(split) for split in plan["split"]]
    )
    return table[list(WATERBIRDS_COLUMNS)]


# Pictures


def draw_picture(seed: int, split: int, number: int, kind: int, place: int, image_size: int) -> Image.Image:
    """One bird on one background.

    Arguments:
        seed, split, number: all draws follow from these; those of the bird don't depend on the place, nor the other
            way round.
        kind: 0 landbird, 1 waterbird.
        place: 0 land, 1 water.
        image_size: side in pixels.

    Returns:
        An RGB picture of `image_size` x `image_size`.
    """
    place_draws, bird_draws = (np.random.default_rng([seed, split, number, part]) for part in (0, 1))
    supersampling = 3 if image_size <= 128 else 2
    size = image_size * supersampling
    picture = (_draw_water if place else _draw_land)(place_draws, size).reduce(supersampling)
    bird = _draw_bird(bird_draws, kind, size).reduce(supersampling)
    picture.paste(bird, mask=bird)
    return _photographed(place_draws, picture)


def _photographed(rng: Generator, picture: Image.Image) -> Image.Image:
    """Light, tint and grain of a camera."""
    light = rng.uniform(0.85, 1.12) * rng.uniform(0.96, 1.04, 3)
    grain = rng.normal(0, rng.uniform(2, 5), (picture.height, picture.width, 1))
    pixels = np.asarray(picture) * light + grain
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


# Places, in shares of the picture's side from its upper left corner

SKIES = ((120, 170, 220), (170, 200, 225), (200, 205, 210), (235, 205, 180), (150, 160, 185))
GROUNDS = ((96, 132, 58), (78, 112, 52), (128, 128, 66), (142, 116, 72), (112, 104, 60), (70, 98, 60))
BARKS = ((84, 62, 44), (104, 84, 62), (66, 56, 48))
LEAVES = ((58, 92, 44), (44, 76, 46), (88, 108, 48), (120, 104, 44))
WATERS = ((38, 92, 138), (52, 118, 150), (30, 78, 108), (74, 128, 140), (62, 96, 120), (88, 132, 164))
SHORES = ((96, 108, 116), (84, 100, 84), (120, 112, 104))


def _draw_land(rng: Generator, size: int) -> Image.Image:
    """Hills, trees and grass under a sky."""
    horizon = rng.uniform(0.22, 0.62)
    ground = _colour(rng, GROUNDS)
    picture = _plane_under_sky(rng, size, horizon, _shaded(ground, 1.12), _shaded(ground, 0.8))
    draw = ImageDraw.Draw(picture)
    for layer in range(rng.integers(1, 4)):
        ridge = _ridge(rng, horizon - 0.1 + 0.06 * layer, 0.09 - 0.02 * layer)
        hill = np.concatenate([ridge, [(1, horizon + 0.02), (0, horizon + 0.02)]])
        draw.polygon(_flat(hill * size), _shaded(ground, 0.75 + 0.1 * layer))
    for foot in np.sort(horizon + rng.uniform(-0.02, 0.14, rng.integers(2, 9))):
        _draw_tree(rng, draw, size, rng.uniform(-0.05, 1.05), foot, rng.uniform(0.18, 0.5))
    width = max(1, round(size * 0.008))
    for x, depth, height, lean, tone in rng.uniform((0, 0, 0.5, -1, 0.6), (1, 1, 1.2, 1, 1.35), (100, 5)).tolist():
        y = horizon + 0.03 + (0.97 - horizon) * depth
        blade = (x * size, y * size, (x + 0.03 * lean) * size, (y - (0.015 + 0.07 * depth) * height) * size)
        draw.line(blade, _shaded(ground, tone), width)
    return picture


def _draw_tree(rng: Generator, draw: ImageDraw.ImageDraw, size: int, x: float, foot: float, height: float) -> None:
    leaf = _colour(rng, LEAVES)
    trunk = 0.03 * height + 0.006
    draw.polygon(
        _flat(size * np.array([(x - trunk, foot), (x + trunk, foot), (x, foot - height)])), _colour(rng, BARKS)
    )
    if rng.random() < 0.4:
        for tier in range(3):
            top, width = foot - height * (1.05 - 0.26 * tier), height * (0.14 + 0.07 * tier)
            corners = np.array([(x, top), (x - width, top + 0.42 * height), (x + width, top + 0.42 * height)])
            draw.polygon(_flat(size * corners), _shaded(leaf, 1.05 - 0.1 * tier))
    else:
        for across, up, radius, tone in rng.uniform(
            (-0.25, 0.55, 0.12, 0.8), (0.25, 0.95, 0.24, 1.25), (6, 4)
        ).tolist():
            crown = _disc(np.array([x + across * height, foot - up * height]), radius * height)
            draw.polygon(_flat(size * crown), _shaded(leaf, tone))


def _draw_water(rng: Generator, size: int) -> Image.Image:
    """Waves, glitter and a far shore under a sky."""
    horizon = rng.uniform(0.12, 0.52)
    water = _colour(rng, WATERS)
    picture = _plane_under_sky(rng, size, horizon, _shaded(water, 1.25), _shaded(water, 0.78))
    draw = ImageDraw.Draw(picture)
    if rng.random() < 0.6:
        shore = _ridge(rng, horizon - rng.uniform(0.02, 0.06), 0.04) * (rng.uniform(0.3, 1), 1) + (
            rng.uniform(-0.2, 0.7),
            0,
        )
        shore = np.concatenate([[(shore[0, 0], horizon)], shore, [(shore[-1, 0], horizon)]])
        draw.polygon(_flat(size * shore), _colour(rng, SHORES))
    for x, depth, across, up, tone in rng.uniform((0, 0, 0.5, 0.4, -1), (1, 1, 1.3, 1.2, 1), (80, 5)).tolist():
        y = horizon + 0.01 + (1 - horizon) * depth
        length, crest = (0.015 + 0.08 * depth) * across, (0.003 + 0.014 * depth) * up
        wave = np.array([(x - length, y), (x, y - crest), (x + length, y), (x, y + crest / 2)])
        draw.polygon(_flat(size * wave), _shaded(water, 1.1 + 0.4 * tone if tone > 0 else 0.9 + 0.22 * tone))
    if rng.random() < 0.4:
        sun = rng.uniform(0.1, 0.9)
        for depth, drift in zip((rng.random(40) ** 1.5).tolist(), rng.normal(0, 1, 40).tolist(), strict=True):
            x, y = sun + drift * (0.03 + 0.08 * depth), horizon + (1 - horizon) * depth
            glint = (x * size, y * size, (x + 0.02 + 0.03 * depth) * size, y * size)
            draw.line(glint, _shaded(water, 1.9), max(1, size // 160))
    return picture


def _plane_under_sky(rng: Generator, size: int, horizon: float, far: Colour, near: Colour) -> Image.Image:
    """A sky down to the horizon, and a plane from the colour `far` to `near` below it."""
    sky = np.array(_colour(rng, SKIES)) * 0.85
    rows = np.arange(size)[:, None] / size
    above = sky + (np.array([255, 250, 240]) - sky) * (0.55 * rows / horizon)
    below = np.array(far) + (np.array(near) - np.array(far)) * ((rows - horizon) / (1 - horizon))
    column = np.where(rows < horizon, above, below).clip(0, 255).astype(np.uint8)
    return Image.fromarray(column[:, None]).resize((size, size), Image.Resampling.NEAREST)


def _ridge(rng: Generator, height: float, relief: float) -> Points:
    """A line of hills from left to right, [points, 2]."""
    x = np.linspace(0, 1, 25)
    waves, phases = rng.uniform(0.5, 3, 3), rng.uniform(0, 2 * pi, 3)
    y = height - relief * np.sin(2 * pi * waves * x[:, None] + phases).mean(1)
    return np.stack([x, y], axis=1)


# Birds, in body lengths from the body's middle, facing right, y up

PLUMAGES = (
    (122, 92, 66),
    (92, 84, 78),
    (150, 146, 140),
    (58, 56, 60),
    (222, 216, 204),
    (86, 104, 140),
    (158, 84, 60),
    (150, 134, 70),
    (176, 156, 128),
    (70, 92, 84),
)
BARE_PARTS = ((214, 150, 52), (96, 88, 84), (190, 108, 70), (58, 54, 56), (206, 178, 96), (168, 132, 116))

Range = tuple[float, float]


@dataclass(frozen=True)
class _Shape:
    """The ranges in which the kinds differ; `tail_lift` in radians."""

    bill_length: Range
    bill_depth: Range
    bill_waist: float
    bill_tip: Range
    neck: Range
    tail_length: Range
    tail_lift: Range
    webbed_feet: bool


SHAPES = (
    _Shape((0.12, 0.18), (0.08, 0.11), 0.62, (0.0, 0.008), (0.02, 0.10), (0.34, 0.50), (-0.25, 0.2), False),
    _Shape((0.28, 0.38), (0.045, 0.07), 0.5, (0.035, 0.05), (0.16, 0.30), (0.12, 0.22), (0.1, 0.5), True),
)


@dataclass(frozen=True)
class _Pose:
    """Where a bird's own coordinates lie on a canvas of `size` x `size` pixels.

    Arguments:
        x, y: the body's middle in pixels.
        length: of the body in pixels.
        angle: how far the body is raised in front, in radians.
        mirrored: whether it faces left.
    """

    size: int
    x: float
    y: float
    length: float
    angle: float
    mirrored: bool

    def place(self, points: Points) -> list[float]:
        """Points [points, 2] of the bird as x, y, x, y, ... on the canvas."""
        turn = np.array([[cos(self.angle), -sin(self.angle)], [sin(self.angle), cos(self.angle)]])
        scale = self.length * np.array([-1 if self.mirrored else 1, -1])
        return _flat(points @ turn.T * scale + (self.x, self.y))


@dataclass(frozen=True)
class _Head:
    """The head's middle, its radius, and where it looks, in radians."""

    middle: Points
    radius: float
    look: float


def _draw_bird(rng: Generator, kind: int, size: int) -> Image.Image:
    """A bird of a kind on a transparent canvas."""
    shape = SHAPES[kind]
    mirrored = bool(rng.random() < 0.5)
    pose = _Pose(
        size,
        x=size * ((0.55 if mirrored else 0.45) + rng.uniform(-0.08, 0.08)),
        y=size * rng.uniform(0.48, 0.68),
        length=size * rng.uniform(0.40, 0.56),
        angle=rng.uniform(-0.1, 0.45),
        mirrored=mirrored,
    )
    depth = rng.uniform(0.21, 0.28)
    head = _Head(
        middle=np.array([0.3, depth * 0.35]) + (0.2 + rng.uniform(*shape.neck)) * _towards(rng.uniform(0.75, 1.35)),
        radius=rng.uniform(0.14, 0.175),
        look=rng.uniform(-0.3, 0.15) - pose.angle * 0.8,
    )
    coat, bare = _colour(rng, PLUMAGES), _colour(rng, BARE_PARTS)
    picture = Image.new("RGBA", (size, size))
    draw = ImageDraw.Draw(picture)
    if rng.random() < 0.7:
        _draw_legs(rng, draw, pose, shape, bare)
    picture.paste(_plumage(rng, pose, coat, depth, head), mask=_outline(rng, pose, shape, depth, head))
    _draw_wing(rng, draw, pose, coat, depth)
    _draw_bill(rng, draw, pose, shape, head, bare)
    eye = head.middle + head.radius * (0.35 * _towards(head.look) + (0, 0.25))
    draw.polygon(pose.place(_disc(eye, head.radius * 0.3)), _shaded(coat, 1.4))
    draw.polygon(pose.place(_disc(eye, head.radius * 0.2)), (16, 14, 14))
    return picture


def _outline(rng: Generator, pose: _Pose, shape: _Shape, depth: float, head: _Head) -> Image.Image:
    """Body, tail, neck and head as a mask."""
    mask = Image.new("L", (pose.size, pose.size))
    draw = ImageDraw.Draw(mask)
    body = _disc(np.zeros(2), 0.5, depth)
    body[:, 1] *= 1 + 0.56 * body[:, 0]
    draw.polygon(pose.place(body), 255)

    lift, root = rng.uniform(*shape.tail_lift), np.array([-0.3, 0.02])
    back, side = np.array([-cos(lift), sin(lift)]), np.array([sin(lift), cos(lift)])
    end = root + back * (0.18 + rng.uniform(*shape.tail_length))
    notch = root + (end - root) * rng.uniform(0.82, 1.06)
    spread = side * rng.uniform(0.05, 0.09)
    tail = np.stack([root + side * 0.1, end + spread, notch, end - spread, root - side * 0.1])
    draw.polygon(pose.place(tail), 255)

    start = np.array([0.3, depth * 0.35])
    bend = np.array([rng.uniform(-0.06, 0.1), 0])
    for s in np.linspace(0, 1, 8):
        taper = (1 - s) ** 1.5
        middle = start + (head.middle - start) * s + bend * 2 * s * (1 - s)
        draw.polygon(pose.place(_disc(middle, 0.19 * taper + 0.82 * head.radius * (1 - taper))), 255)
    draw.polygon(pose.place(_disc(head.middle, head.radius)), 255)
    return mask


def _plumage(rng: Generator, pose: _Pose, coat: Colour, depth: float, head: _Head) -> Image.Image:
    """Colours and patterns of the whole coat, to be cut out by the outline."""
    canvas = (pose.size, pose.size)
    picture = Image.new("RGB", canvas, coat)
    draw = ImageDraw.Draw(picture)
    belly = _disc(np.array([0.1, -depth * 1.15]), 0.48, depth * 0.95)
    draw.polygon(pose.place(belly), _shaded(coat, rng.uniform(1.1, 1.6)))
    if rng.random() < 0.5:
        hood = _disc(head.middle + np.array([0, head.radius * rng.uniform(-0.2, 0.7)]), head.radius * 1.1)
        draw.polygon(pose.place(hood), _colour(rng, PLUMAGES))
    if rng.random() < 0.35:
        collar = _disc(head.middle - (0.03, head.radius * 1.25), 0.2, 0.035)
        draw.polygon(pose.place(collar), _shaded(coat, rng.choice((0.55, 1.7))))
    if rng.random() < 0.5:
        fleck = _shaded(coat, rng.choice((0.6, 1.45)))
        for spot in rng.uniform((-0.45, -depth), (0.5, depth), (24, 2)):
            draw.polygon(pose.place(_disc(spot, 0.018)), fleck)
    patches = rng.uniform(0, 110, (7, 7)).astype(np.uint8)
    shade = Image.fromarray(patches).resize(canvas, Image.Resampling.BILINEAR)
    picture.paste(_shaded(coat, 0.45), (0, 0, *canvas), shade)
    return picture


def _draw_wing(rng: Generator, draw: ImageDraw.ImageDraw, pose: _Pose, coat: Colour, depth: float) -> None:
    """A wing, folded or (in a quarter of the pictures) raised, with or without bars."""
    if rng.random() < 0.25:
        tip = rng.uniform(0.5, 0.8) * _towards(rng.uniform(0.9, 1.9)) + (0.05, 0)
        wing = np.stack([(0.25, 0.08), tip * (0.6, 0.7) + (0.2, 0), tip, tip * (0.6, 0.5) - (0.22, 0), (-0.2, 0.02)])
    else:
        back, droop = rng.uniform(0.34, 0.44), rng.uniform(-0.12, 0.05)
        wing = _disc(np.array([0.26 - back, 0.05]), back, depth * 0.53)
        wing[:, 1] = wing[:, 1] * (0.45 + 0.9 * (wing[:, 0] + 0.62)) + droop * (0.26 - wing[:, 0])
    tone = _shaded(coat, rng.uniform(0.6, 0.9))
    draw.polygon(pose.place(wing), tone)
    if rng.random() < 0.6:
        bar, middle = _shaded(tone, rng.choice((0.6, 1.5))), wing.mean(0)
        for part in (0.45, 0.75):
            line = middle + (wing[len(wing) // 4 : len(wing) * 3 // 4 + 1] - middle) * part
            draw.line(pose.place(line), bar, max(1, round(pose.length * 0.03)))


def _draw_bill(
    rng: Generator, draw: ImageDraw.ImageDraw, pose: _Pose, shape: _Shape, head: _Head, tone: Colour
) -> None:
    ahead, up = _towards(head.look), _towards(head.look + pi / 2)
    root = head.middle + ahead * head.radius * 0.8
    end = root + ahead * (rng.uniform(*shape.bill_length) + 0.2 * head.radius)
    waist = root + (end - root) * 0.55
    depth, tip = up * rng.uniform(*shape.bill_depth), rng.uniform(*shape.bill_tip)
    narrow, blunt = depth * shape.bill_waist, up * tip
    bill = np.stack([root + depth, waist + narrow, end + blunt, end - blunt, waist - narrow, root - depth * 0.8])
    draw.polygon(pose.place(bill), tone)
    draw.polygon(pose.place(_disc(end - ahead * tip * 0.5, tip * 1.15)), tone)


def _draw_legs(rng: Generator, draw: ImageDraw.ImageDraw, pose: _Pose, shape: _Shape, tone: Colour) -> None:
    """Two legs, upright whatever the body's angle."""
    upright = replace(pose, angle=0.0)
    width, height = max(1, round(pose.length * 0.035)), rng.uniform(0.4, 0.54)
    for x in (rng.uniform(-0.16, -0.06), rng.uniform(0.0, 0.1)):
        foot = np.array([x + rng.normal(0, 0.03), -height])
        toes = foot + np.array([(0.13, -0.02), (0.1, -0.075), (-0.06, -0.03)])
        draw.line(upright.place(np.stack([(x, -0.1), foot])), tone, width)
        if shape.webbed_feet:
            draw.polygon(upright.place(np.concatenate([[foot], toes])), tone)
        else:
            for toe in toes:
                draw.line(upright.place(np.stack([foot, toe])), tone, max(1, width - 1))


# Shapes and colours

_ROUND = np.linspace(0, 2 * pi, 24, endpoint=False)
_CIRCLE = np.stack([np.cos(_ROUND), np.sin(_ROUND)], axis=1)


def _disc(middle: Points, across: float, up: float | None = None) -> Points:
    """An ellipse with these half-axes, [points, 2]."""
    return middle + _CIRCLE * (across, across if up is None else up)


def _towards(angle: float) -> Points:
    return np.array([cos(angle), sin(angle)])


def _flat(points: Points) -> list[float]:
    flat: list[float] = points.ravel().tolist()
    return flat


def _colour(rng: Generator, palette: Sequence[Colour]) -> Colour:
    """A colour of the palette, in another light and a slightly other hue."""
    r, g, b = palette[int(rng.integers(len(palette)))]
    light = rng.uniform(0.8, 1.2)
    x, y, z = rng.normal(0, 8, 3).tolist()
    return _rgb(r * light + x, g * light + y, b * light + z)


def _shaded(colour: Colour, factor: float) -> Colour:
    r, g, b = colour
    return _rgb(r * factor, g * factor, b * factor)


def _rgb(r: float, g: float, b: float) -> Colour:
    return min(max(int(r), 0), 255), min(max(int(g), 0), 255), min(max(int(b), 0), 255)
