"""Settings of the calibration."""

from __future__ import annotations

from pydantic import Field

from ..settings import MAX_SEED, Settings


class CalibrateSettings(Settings):
    """The number of networks that the calibration trains, and the number of controls."""

    networks: int = Field(50, ge=2, le=100_000, description="independently trained networks for the exact nulls")
    plants: int = Field(16, ge=0, le=100_000, description="networks with planted channels")
    described: int = Field(
        6, ge=0, le=100_000, description="networks per further null: no correlation, permuted labels, untrained weights"
    )
    controls: int = Field(99, ge=19, le=100_000, description="matched controls per selected set")
    seed: int = Field(0, ge=0, le=MAX_SEED, description="seed of the first network; the others follow in steps of one")
