"""The base class of all settings. One model defines the command-line flags, the YAML entries and the stored record."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from .errors import UserError

MAX_SEED = 2**32 - 1
"""The largest seed: that of NumPy and scikit-learn."""

MAX_COUNT = 10_000_000
"""The largest number of samples, units or repeats that an option takes. What memory holds is checked apart."""

MAX_EPOCHS = 1_000_000

MAX_IMAGE_SIZE = 4096

MAX_WORKERS = 256
"""The largest number of further processes."""


def whole_number(digits: str, most: int, what: str) -> int:
    """The number that digits stand for.

    Arguments:
        digits: the text.
        most: the largest number that is allowed.
        what: what the number is, for the error message.

    Raises:
        UserError: the number is larger.
    """
    if len(digits.lstrip("0")) > len(str(most)) or int(digits) > most:
        raise UserError(f"{what} {digits} is too large: the largest is {most}")
    return int(digits)


class Settings(BaseModel):
    """Settings change results. They are stored with the results and compared when a command continues."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)


def _checked_place(text: str) -> str:
    processes = re.fullmatch(r"processes:(\d{1,3})", text, re.ASCII)
    if processes and 1 <= int(processes[1]) <= MAX_WORKERS:
        return text
    if text in ("here", "ray") or re.fullmatch(r"ray://[^\s/]+:\d+", text, re.ASCII):
        return text
    raise ValueError(f"{text!r} is none of here, processes:N with N from 1 to {MAX_WORKERS}, ray, ray://HEAD:10001")


Place = Annotated[str, AfterValidator(_checked_place)]
"""Where pieces of work run; `schedulers` has the places."""


class Execution(BaseModel):
    """How work is carried out. This does not change results."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str = Field("auto", description="auto, cpu, cuda or mps")
    workers: int | None = Field(
        None,
        ge=0,
        le=MAX_WORKERS,
        description="extra processes that read samples; by default some if an accelerator trains, otherwise none",
    )
    eval_batch_size: int | None = Field(
        None,
        ge=1,
        le=MAX_COUNT,
        description="largest number of samples per forward pass in evaluation; by default 200, and for edited networks "
        "as many as a small part of the memory holds",
    )
    compile: bool | None = Field(
        None, description="compile edited networks with torch.compile; by default only if that saves time"
    )

    @property
    def samples_per_pass(self) -> int:
        """Samples per forward pass in evaluation."""
        return self.eval_batch_size or 200


class WorkerExecution(Execution):
    """How work is carried out whose pieces don't depend on each other."""

    on: Place = Field(
        "here",
        description="where independent pieces of the work run: here, processes:N of this machine, ray, or "
        "ray://HEAD:10001",
    )


def place_of(execution: Execution) -> Place:
    """Where pieces of work run: in this process, if the execution names no place."""
    return execution.on if isinstance(execution, WorkerExecution) else "here"
