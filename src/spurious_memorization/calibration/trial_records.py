"""What the file of a trial must hold, by which a broken one is found."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, model_validator


class TrialRecord(BaseModel):
    """The record of one trial.

    Arguments:
        answers: every answer to a question whose truth is "no", by row of the table of false answers.
        accepted: of a planted network: whether the known answer holds in it; None for other networks.
        recall: of each criterion; None if nothing was planted or the network was not accepted.
        verdict: on the planted channels; None likewise.
    """

    model_config = ConfigDict(extra="allow")

    answers: dict[str, list[bool]] = {}
    accepted: bool | None = None
    recall: dict[str, float] | None = None
    verdict: str | None = None

    @model_validator(mode="after")
    def _is_complete(self) -> TrialRecord:
        if self.accepted and (self.verdict is None or not self.recall):
            raise ValueError("an accepted network needs a verdict and the recall of each criterion")
        if self.accepted is None and not self.answers:
            raise ValueError("a trial needs answers")
        return self
