"""The words that candidate groups are compared with if no list is given. Each one completes "a photo with ..."."""

from __future__ import annotations

_PLACES = """
water, the sea, a beach, sand, snow, ice, grass, a meadow, a forest, trees, bamboo, leaves, flowers, a mountain, rocks,
a desert, the sky, clouds, fog, rain, a sunset, darkness, bright sunlight, shadows, a lake, a river, a swamp, a garden,
a field, soil, a city, a street, a road, a building, a house, a bridge, a fence, a wall, a window, a door, a room,
a kitchen, a bathroom, a bed, a table, a chair, a floor, a carpet, a shelf, a stage
"""

_PEOPLE_AND_THINGS = """
a person, a face, a hand, a child, a woman, a man, a crowd, glasses, a hat, long hair, short hair, blond hair,
dark hair, a beard, makeup, a smile, a uniform, a dog, a cat, a bird, a horse, a fish, an insect, a car, a truck,
a bicycle, a boat, an airplane, a phone, a computer, a bottle, a cup, food, a ball, a book, a bag, a toy
"""

_MARKS_AND_STYLES = """
a ruler, a scale bar, a marker, a bandage, a tube, a cable, a metal token, a label, a caption, a watermark, a logo,
numbers, handwriting, a frame, a black border, a white border, a white background, a black background,
a plain background, a cluttered background, red colors, green colors, blue colors, yellow colors, no colors,
motion blur, noise, low resolution, a close view, a distant view, several objects
"""

WORDS = tuple(
    " ".join(word.split()) for words in (_PLACES, _PEOPLE_AND_THINGS, _MARKS_AND_STYLES) for word in words.split(",")
)
