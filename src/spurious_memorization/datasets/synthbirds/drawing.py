"""Drawings of birds of any shape, on land or water. Everything random depends on a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import cos, pi, sin

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Color = tuple[int, int, int]
Points = NDArray[np.float64]


def draw_image(seed: int, split: int, number: int, shape: Shape, place: int, image_size: int) -> Image.Image:
    """One bird on one background.

    Arguments:
        seed, split, number: they determine all random numbers. Those of the bird don't depend on the place, and those
            of the place don't depend on the bird.
        shape: the ranges of the bird's shape.
        place: 0 land, 1 water.
        image_size: side in pixels.

    Returns:
        An RGB image of `image_size` x `image_size`.
    """
    place_draws, bird_draws = (np.random.default_rng([seed, split, number, part]) for part in (0, 1))
    supersampling = 3 if image_size <= 128 else 2
    size = image_size * supersampling
    image = (_draw_water if place else _draw_land)(place_draws, size).reduce(supersampling)
    bird = _draw_bird(bird_draws, shape, size).reduce(supersampling)
    image.paste(bird, mask=bird)
    return _photographed(place_draws, image)


def _photographed(rng: Generator, image: Image.Image) -> Image.Image:
    """Light, tint and grain of a camera."""
    light = rng.uniform(0.85, 1.12) * rng.uniform(0.96, 1.04, 3)
    grain = rng.normal(0, rng.uniform(2, 5), (image.height, image.width, 1))
    pixels = np.asarray(image) * light + grain
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


# Places. Coordinates are fractions of the image's side, from the upper left corner.

SKIES = ((120, 170, 220), (170, 200, 225), (200, 205, 210), (235, 205, 180), (150, 160, 185))
GROUNDS = ((96, 132, 58), (78, 112, 52), (128, 128, 66), (142, 116, 72), (112, 104, 60), (70, 98, 60))
BARKS = ((84, 62, 44), (104, 84, 62), (66, 56, 48))
LEAVES = ((58, 92, 44), (44, 76, 46), (88, 108, 48), (120, 104, 44))
WATERS = ((38, 92, 138), (52, 118, 150), (30, 78, 108), (74, 128, 140), (62, 96, 120), (88, 132, 164))
SHORES = ((96, 108, 116), (84, 100, 84), (120, 112, 104))


def _draw_land(rng: Generator, size: int) -> Image.Image:
    """Hills, trees and grass under a sky."""
    horizon = rng.uniform(0.22, 0.62)
    ground = _color(rng, GROUNDS)
    image = _plane_under_sky(rng, size, horizon, _shaded(ground, 1.12), _shaded(ground, 0.8))
    draw = ImageDraw.Draw(image)
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
    return image


def _draw_tree(rng: Generator, draw: ImageDraw.ImageDraw, size: int, x: float, foot: float, height: float) -> None:
    leaf = _color(rng, LEAVES)
    trunk = 0.03 * height + 0.006
    draw.polygon(_flat(size * np.array([(x - trunk, foot), (x + trunk, foot), (x, foot - height)])), _color(rng, BARKS))
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
    water = _color(rng, WATERS)
    image = _plane_under_sky(rng, size, horizon, _shaded(water, 1.25), _shaded(water, 0.78))
    draw = ImageDraw.Draw(image)
    if rng.random() < 0.6:
        shore = _ridge(rng, horizon - rng.uniform(0.02, 0.06), 0.04) * (rng.uniform(0.3, 1), 1) + (
            rng.uniform(-0.2, 0.7),
            0,
        )
        shore = np.concatenate([[(shore[0, 0], horizon)], shore, [(shore[-1, 0], horizon)]])
        draw.polygon(_flat(size * shore), _color(rng, SHORES))
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
    return image


def _plane_under_sky(rng: Generator, size: int, horizon: float, far: Color, near: Color) -> Image.Image:
    """A sky above the horizon, and below it a plane whose color goes from `far` to `near`."""
    sky = np.array(_color(rng, SKIES)) * 0.85
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


# Birds. Coordinates are in body lengths from the middle of the body; the bird faces right and y points up.

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


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The ranges from which the shape of a bird is drawn.

    Lengths are in body lengths, `tail_lift` is in radians. `bill_waist` is the bill's depth in its middle, as a share
    of the depth at its root.
    """

    bill_length: Range
    bill_depth: Range
    bill_waist: float
    bill_tip: Range
    neck: Range
    tail_length: Range
    tail_lift: Range
    webbed_feet: bool


@dataclass(frozen=True, kw_only=True)
class _Pose:
    """Position of a bird on a canvas of `size` x `size` pixels.

    Arguments:
        size: side of the canvas in pixels.
        x, y: middle of the body in pixels.
        length: length of the body in pixels.
        angle: angle by which the front of the body is raised, in radians.
        mirrored: whether the bird faces left.
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
    """The head: its middle, its radius, and the direction of its gaze in radians."""

    middle: Points
    radius: float
    look: float


def _draw_bird(rng: Generator, shape: Shape, size: int) -> Image.Image:
    """A bird on a transparent canvas."""
    mirrored = bool(rng.random() < 0.5)
    pose = _Pose(
        size=size,
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
    coat, bare = _color(rng, PLUMAGES), _color(rng, BARE_PARTS)
    image = Image.new("RGBA", (size, size))
    draw = ImageDraw.Draw(image)
    if rng.random() < 0.7:
        _draw_legs(rng, draw, pose, shape, bare)
    image.paste(_plumage(rng, pose, coat, depth, head), mask=_outline(rng, pose, shape, depth, head))
    _draw_wing(rng, draw, pose, coat, depth)
    _draw_bill(rng, draw, pose, shape, head, bare)
    eye = head.middle + head.radius * (0.35 * _towards(head.look) + (0, 0.25))
    draw.polygon(pose.place(_disc(eye, head.radius * 0.3)), _shaded(coat, 1.4))
    draw.polygon(pose.place(_disc(eye, head.radius * 0.2)), (16, 14, 14))
    return image


def _outline(rng: Generator, pose: _Pose, shape: Shape, depth: float, head: _Head) -> Image.Image:
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


def _plumage(rng: Generator, pose: _Pose, coat: Color, depth: float, head: _Head) -> Image.Image:
    """Colors and patterns of the whole plumage. The outline cuts the bird out of it."""
    canvas = (pose.size, pose.size)
    image = Image.new("RGB", canvas, coat)
    draw = ImageDraw.Draw(image)
    belly = _disc(np.array([0.1, -depth * 1.15]), 0.48, depth * 0.95)
    draw.polygon(pose.place(belly), _shaded(coat, rng.uniform(1.1, 1.6)))
    if rng.random() < 0.5:
        hood = _disc(head.middle + np.array([0, head.radius * rng.uniform(-0.2, 0.7)]), head.radius * 1.1)
        draw.polygon(pose.place(hood), _color(rng, PLUMAGES))
    if rng.random() < 0.35:
        collar = _disc(head.middle - (0.03, head.radius * 1.25), 0.2, 0.035)
        draw.polygon(pose.place(collar), _shaded(coat, rng.choice((0.55, 1.7))))
    if rng.random() < 0.5:
        fleck = _shaded(coat, rng.choice((0.6, 1.45)))
        for spot in rng.uniform((-0.45, -depth), (0.5, depth), (24, 2)):
            draw.polygon(pose.place(_disc(spot, 0.018)), fleck)
    patches = rng.uniform(0, 110, (7, 7)).astype(np.uint8)
    shade = Image.fromarray(patches).resize(canvas, Image.Resampling.BILINEAR)
    image.paste(_shaded(coat, 0.45), (0, 0, *canvas), shade)
    return image


def _draw_wing(rng: Generator, draw: ImageDraw.ImageDraw, pose: _Pose, coat: Color, depth: float) -> None:
    """A wing with or without bars. It is raised in a quarter of the images, otherwise folded."""
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


def _draw_bill(rng: Generator, draw: ImageDraw.ImageDraw, pose: _Pose, shape: Shape, head: _Head, tone: Color) -> None:
    ahead, up = _towards(head.look), _towards(head.look + pi / 2)
    root = head.middle + ahead * head.radius * 0.8
    end = root + ahead * (rng.uniform(*shape.bill_length) + 0.2 * head.radius)
    waist = root + (end - root) * 0.55
    depth, tip = up * rng.uniform(*shape.bill_depth), rng.uniform(*shape.bill_tip)
    narrow, blunt = depth * shape.bill_waist, up * tip
    bill = np.stack([root + depth, waist + narrow, end + blunt, end - blunt, waist - narrow, root - depth * 0.8])
    draw.polygon(pose.place(bill), tone)
    draw.polygon(pose.place(_disc(end - ahead * tip * 0.5, tip * 1.15)), tone)


def _draw_legs(rng: Generator, draw: ImageDraw.ImageDraw, pose: _Pose, shape: Shape, tone: Color) -> None:
    """Two legs. They are upright for every angle of the body."""
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


# Shapes and colors

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


def _color(rng: Generator, palette: Sequence[Color]) -> Color:
    """A random color of the palette, with a random change of brightness and hue."""
    r, g, b = palette[int(rng.integers(len(palette)))]
    light = rng.uniform(0.8, 1.2)
    x, y, z = rng.normal(0, 8, 3).tolist()
    return _rgb(r * light + x, g * light + y, b * light + z)


def _shaded(color: Color, factor: float) -> Color:
    r, g, b = color
    return _rgb(r * factor, g * factor, b * factor)


def _rgb(r: float, g: float, b: float) -> Color:
    return min(max(int(r), 0), 255), min(max(int(g), 0), 255), min(max(int(b), 0), 255)
