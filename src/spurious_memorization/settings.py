"""The base of every block of settings: at once command-line flags, a YAML file's entries and what a run stores."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """Settings change results: they are stored with them and compared."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Execution(BaseModel):
    """How work is carried out; none of it changes results."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str = Field("auto", description="auto, cpu, cuda or mps")
    workers: int | None = Field(
        None, ge=0, description="further processes that read images; some in training on an accelerator if not given"
    )
    eval_batch_size: int = Field(200, ge=1, description="at most so many samples a forward pass in evaluation")
    compile: bool | None = Field(
        None, description="compile edited networks by torch.compile; where it pays if not given"
    )
