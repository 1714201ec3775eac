"""Settings of reading and making data sets. This module imports no torch and no pandas: the command line uses it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from ..settings import MAX_COUNT, MAX_IMAGE_SIZE, MAX_SEED, Settings

NO_ATTRIBUTE = "none"
"""The value of `attribute` with which groups are the classes, whatever columns a table has."""

NETWORK_FOLDER = "network"
"""Where generated texts have the configuration and the tokenizer of a small network."""

COLORS = {
    "red": (230, 60, 50),
    "green": (70, 190, 80),
    "blue": (70, 110, 240),
    "yellow": (230, 205, 60),
    "magenta": (215, 75, 200),
    "cyan": (70, 205, 215),
    "orange": (240, 140, 45),
    "white": (225, 225, 225),
}
"""Colors of the colored digits: {name: red, green and blue, 0 to 255}."""


class Columns(Settings):
    """The columns that a user has named. None leaves the choice to the layout."""

    image_column: str | None = Field(None, description="column of the image or its path; by default found")
    label_column: str | None = Field(None, description="column of the label; by default found")
    split_column: str | None = Field(None, description="column of the split; by default found")
    text_column: str | None = Field(None, description="column of the text; by default 'text', if there is no 'path'")
    text_pair_column: str | None = Field(
        None, description="column of the second text of a pair; by default 'text_pair'"
    )

    @property
    def of_table(self) -> dict[str, str]:
        """{column of `AnnotatedTable.frame`: the column that was named for it}."""
        named = {
            "path": self.image_column,
            "y": self.label_column,
            "split": self.split_column,
            "text": self.text_column,
            "text_pair": self.text_pair_column,
        }
        return {column: name for column, name in named.items() if name is not None}


FOUND_COLUMNS = Columns()
"""No column is named, so that the layout decides."""


class DataSettings(Columns):
    """How a data folder is read. These are flags of every command that takes a data folder."""

    attribute: str | None = Field(
        None,
        description="attribute column; by default 'a'; several, such as a,b, for groups by all of them; "
        "none for the classes alone; or a table of discover, such as groups.csv",
    )
    min_group_size: int = Field(
        1,
        ge=1,
        le=MAX_COUNT,
        description="attribute values, or combinations of them, with fewer training samples are merged into one",
    )
    minority: tuple[str, ...] = Field(
        (), description="names of the minority groups; by default those with a lift below 0.5"
    )
    image_size: int | None = Field(None, ge=1, le=MAX_IMAGE_SIZE, description="side of the square input, in pixels")
    max_tokens: int | None = Field(
        None, ge=4, le=MAX_COUNT, description="tokens of a text, at most; the rest is cut; by default 128"
    )
    split_seed: int = Field(0, ge=0, le=MAX_SEED, description="seed of the split, if the table has no split")


class SynthbirdsSettings(Settings):
    """Number, size and shares of the generated bird images."""

    train: int = Field(2400, ge=2, le=MAX_COUNT, description="training images")
    val: int = Field(600, ge=1, le=MAX_COUNT, description="validation images")
    test: int = Field(1200, ge=1, le=MAX_COUNT, description="test images")
    image_size: int = Field(64, ge=16, le=512, description="side of an image in pixels")
    correlation: float = Field(
        0.95, ge=0, le=1, description="share of each kind's training images whose background matches the kind"
    )
    balance: float = Field(0.5, gt=0, lt=1, description="share of waterbirds in each split")
    seed: int = Field(0, ge=0, le=MAX_SEED, description="seed of everything random")
    layout: Literal["table", "waterbirds"] = Field(
        "table", description="table: the layout for your own data; waterbirds: the columns and folders of Waterbirds"
    )


class ColoredDigitsSettings(Settings):
    """Digits, colors and shares of the colored digits."""

    digits: str = Field("0..9", description="the classes: 3,5,8 or 0..9")
    colors: int = Field(2, ge=2, le=len(COLORS), description="number of colors; the color is the attribute")
    correlation: float = Field(
        0.9, ge=0, le=1, description="share of each class's training images in its usual color (class mod colors)"
    )
    val_share: float = Field(0.1, ge=0, lt=1, description="share of each class's scans in val")
    test_share: float = Field(0.2, ge=0, lt=1, description="share of each class's scans in test")
    image_size: int = Field(32, ge=8, le=512, description="side of an image in pixels")
    seed: int = Field(0, ge=0, le=MAX_SEED, description="seed of the split, the colors and the tints")

    @field_validator("digits")
    @classmethod
    def _digits_listed(cls, digits: str) -> str:
        return ",".join(map(str, parse_digits(digits)))

    @model_validator(mode="after")
    def _training_images_left(self) -> ColoredDigitsSettings:
        if self.val_share + self.test_share >= 1:
            raise ValueError("val_share and test_share must leave some images for training")
        return self


class NegatedPairsSettings(Settings):
    """Number and shares of the generated pairs of sentences."""

    train: int = Field(2400, ge=20, le=100_000, description="training pairs")
    val: int = Field(600, ge=4, le=100_000, description="validation pairs")
    test: int = Field(1200, ge=4, le=100_000, description="test pairs")
    correlation: float = Field(
        0.95, ge=0, le=1, description="share of each label's training pairs whose negation matches the label"
    )
    seed: int = Field(0, ge=0, le=MAX_SEED, description="seed of everything random")


class CubPlacesSettings(Settings):
    """The folders of CUB and Places, and the shares of the images made from them."""

    cub: Path = Field(description="folder of CUB-200-2011 (images.txt, images/, ... and segmentations/)")
    places: Path = Field(
        description="folder with the Places categories bamboo_forest, forest/broadleaf, ocean, lake/natural"
    )
    correlation: float = Field(
        0.95, ge=0, le=1, description="share of each label's training images whose background matches the label"
    )
    val_share: float = Field(0.2, ge=0, lt=1, description="share of CUB's training images that go to val")
    labels: Literal["species", "published"] = Field(
        "species",
        description="species: waterbird names are matched as whole words; published: also as parts of words, as in the "
        "published data set (Eastern Towhee, Western Meadowlark and Western Wood Pewee count as 'tern')",
    )
    seed: int = Field(0, ge=0, le=MAX_SEED, description="seed of the split and of the choice of backgrounds")


def parse_digits(digits: str) -> list[int]:
    """Parse a list of digits, such as "3,5,8" or "0..9", into sorted numbers.

    Raises:
        ValueError: the text is not such a list, or has fewer than two digits.
    """
    named: set[int] = set()
    for part in digits.split(","):
        first, dots, last = part.strip().partition("..")
        if not (first.isdecimal() and (last.isdecimal() if dots else True)):
            raise ValueError("list digits as 3,5,8 or 0..9")
        if len(first.lstrip("0") or "0") > 1 or (dots and len(last.lstrip("0") or "0") > 1):
            raise ValueError("choose at least two digits among 0..9")
        named.update(range(int(first), int(last if dots else first) + 1))
    if len(named) < 2:
        raise ValueError("choose at least two digits among 0..9")
    return sorted(named)
