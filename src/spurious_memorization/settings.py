"""The base class of all settings. One model defines the command-line flags, the YAML entries and the stored record."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """Settings change results. They are stored with the results and compared when a command continues."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Execution(BaseModel):
    """How work is carried out. This does not change results."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str = Field("auto", description="auto, cpu, cuda or mps")
    workers: int | None = Field(
        None,
        ge=0,
        description="extra processes that read images; by default some if an accelerator trains, otherwise none",
    )
    eval_batch_size: int = Field(200, ge=1, description="largest number of samples per forward pass in evaluation")
    compile: bool | None = Field(
        None, description="compile edited networks with torch.compile; by default only if that saves time"
    )
