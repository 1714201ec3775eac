"""Settings of memorization scores: the flags of `spurmem memorization`.

This module imports no torch, so that the command line can show its help quickly.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ..networks.names import Precision
from ..settings import MAX_SEED
from ..training.settings import NetworkTraining


class MemorizationSettings(NetworkTraining):
    """Everything that changes memorization scores."""

    freeze: Literal["none"] = Field("none", description="none: all layers are trained")
    precision: Precision = Field("float32", description="float32 or bf16")
    networks: int = Field(24, ge=2, le=100_000, description="networks, each trained on a random part of the samples")
    share: float = Field(0.7, gt=0, lt=1, description="share of each group's training samples in that part")
    start: str | None = Field(
        None, alias="from", description="start all networks from RUN@EPOCH, and leave out minority samples only"
    )
    seed: int = Field(0, ge=0, le=MAX_SEED, description="seed of the parts, the starting weights and the trainings")
