"""Settings of how a data folder is read. This module imports no torch and no pandas: command-line settings use it."""

from __future__ import annotations

from pydantic import Field

from ..settings import Settings


class DataSettings(Settings):
    """How a data folder is read. These are flags of every command that takes a data folder."""

    attribute: str | None = Field(None, description="attribute column; by default 'a'")
    minority: tuple[str, ...] = Field(
        (), description="names of the minority groups; by default those with a lift below 0.5"
    )
    image_size: int | None = Field(None, ge=1, description="side of the square input, in pixels")
    split_seed: int = Field(0, description="seed of the split, if the table has no split")
