"""Settings of the calibration."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from ..settings import MAX_SEED, Place, Settings
from ..studies.settings import Words


class CalibrateSettings(Settings):
    """The number of networks of each kind that the calibration trains, and the number of null sets."""

    memorizing: int = Field(44, ge=0, le=100_000, description="ordinary networks, asked about random units")
    never_trained: int = Field(94, ge=0, le=100_000, description="networks whose first layer was never trained")
    features: int = Field(110, ge=0, le=100_000, description="networks with channels that hold a feature")
    strong_plants: int = Field(
        70, ge=0, le=100_000, description="networks with memory plants of 30 points, and as many of 60 points"
    )
    weak_plants: int = Field(
        14, ge=0, le=100_000, description="networks with memory plants of 10 points, and as many of 20 points"
    )
    described: int = Field(
        4,
        ge=0,
        le=100_000,
        description="networks each: distributed memory, polysemantic channels, example-tied dropout",
    )
    controls: int = Field(99, ge=19, le=100_000, description="null sets per selected set, at most")
    criterion: Words = Field((), description="own criteria for the leaderboard, module:function")
    seed: int = Field(0, ge=0, le=MAX_SEED, description="seed of the first network; the others follow in steps of one")


class CalibrateExecution(BaseModel):
    """Where trials run, each on one thread. This does not change results."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    on: Place | None = Field(
        None, description="here, processes:N of this machine (by default one per core), ray, or ray://HEAD:10001"
    )
