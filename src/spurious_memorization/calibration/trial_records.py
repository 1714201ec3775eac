"""What the file of a trial must hold, by which a broken one is found."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, model_validator

from .rates import CRITERIA


class AnswersRecord(BaseModel):
    """The record of a trial that asked the three questions: every answer to each of them."""

    model_config = ConfigDict(extra="allow")

    influential: list[bool]
    selective: list[bool]
    memorizing: list[bool]


class PlantedRecord(BaseModel):
    """The record of a trial with planted channels.

    Arguments:
        accepted: whether the known answer holds in the network.
        recall: of each criterion; None if the network was not accepted.
        verdict: on the planted set; None if the network was not accepted.
    """

    model_config = ConfigDict(extra="allow")

    accepted: bool
    recall: dict[str, float] | None = None
    verdict: str | None = None

    @model_validator(mode="after")
    def _is_complete(self) -> PlantedRecord:
        if self.accepted and (self.verdict is None or not set(CRITERIA) <= (self.recall or {}).keys()):
            raise ValueError("an accepted network needs a verdict and the recall of each criterion")
        return self
