"""From tests to verdicts: is a selected set influential, is it critical, does it memorize?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from .intervals import Difference
from .permutation import TIE, Selectivity

Verdict = Literal["memorizing", "critical", "influential", "selective", "none", "no verdict"]

LEVEL = 0.05
MIN_DIFFERENCE = 0.05
"""A set is called selective only from this difference of drops on, in accuracy."""
MIN_OVERLAP = 0.5
"""At least this share of the minority must have majority samples of the same label and margin."""
MIN_CONTROLS = 19
"""With fewer controls no p-value can reach 0.05."""
NORM_RATIOS = (0.5, 2.0)
"""Controls match only if the ratio of their norm to the selected set's norm is in this range."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The answers about one selected set and one group. None means that the question can't be answered here.

    Arguments:
        influential: the group drops more than under matched controls.
        selective: the group also drops more than majority samples of the same label and margin; None if the group is
            no minority.
        memorizing: the margin of its training samples also drops more than that of unseen samples.
        reason: why an answer is None, in words.
    """

    influential: bool | None
    selective: bool | None
    memorizing: bool | None
    reason: str = ""

    @property
    def verdict(self) -> Verdict:
        """The strongest verdict that the answers allow."""
        if self.influential is None:
            return "no verdict"
        if self.influential and self.selective:
            return "memorizing" if self.memorizing else "critical"
        if self.influential:
            return "influential"
        return "selective" if self.selective else "none"


def answer_questions(
    accuracy_change: float,
    p_influential: float,
    *,
    n_controls: int,
    norm_ratio: float,
    selective: Selectivity | None,
    contrast: Difference | None,
    level: float = LEVEL,
) -> Answers:
    """Answer the three questions from the results of the tests.

    Arguments:
        accuracy_change: of the group, on the samples on which the controls were measured.
        p_influential: adjusted p-value of the first question.
        n_controls: number of matched controls.
        norm_ratio: ratio of the controls' norm to the selected set's norm; nan where it is not known.
        selective: result of the second question; None for a group that is no minority.
        contrast: margin drop of training samples minus that of unseen samples; None where the third question is not
            asked.
        level: of the tests.
    """
    reasons = []
    influential: bool | None = None
    if n_controls < MIN_CONTROLS:
        reasons.append(f"{n_controls} controls: at least {MIN_CONTROLS} are needed")
    elif norm_ratio < NORM_RATIOS[0] or norm_ratio > NORM_RATIOS[1]:
        reasons.append(f"no matched controls: their norm is {norm_ratio:.2g} times the norm of the selected set")
    elif math.isnan(p_influential):
        reasons.append("the controls were measured on no sample of this group")
    else:
        influential = p_influential <= level and accuracy_change < 0
    is_selective: bool | None = None
    if selective is not None:
        if selective.overlap < MIN_OVERLAP:
            reasons.append(f"only {selective.overlap:.0%} of the group have majority samples of their label and margin")
        else:
            is_selective = selective.p <= level and selective.difference >= MIN_DIFFERENCE - TIE
    is_memorizing: bool | None = None
    if contrast is not None and not math.isnan(contrast.low):
        is_memorizing = contrast.low > 0
    elif contrast is not None and selective is not None:
        reasons.append("no unseen samples of this group were measured: add --split val,test")
    return Answers(influential=influential, selective=is_selective, memorizing=is_memorizing, reason="; ".join(reasons))
