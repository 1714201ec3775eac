"""From tests to verdicts: is a selected set influential, is it critical, does it memorize?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from .damage import MIN_MATCHED, DamageMatched
from .max_statistic import TIE
from .selectivity import Selectivity
from .sequential import LEVEL

Verdict = Literal["memorizing", "critical", "influential", "selective", "none", "no verdict"]

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
"""From the strongest to the weakest."""

MIN_DIFFERENCE = 0.05
"""A set is called selective only from this difference of drops on, in accuracy."""
MIN_OVERLAP = 0.5
"""At least this share of the minority must have majority samples of the same label and margin."""
CONTRAST_LEVEL = 0.01
"""Level of the test of the contrast itself. A channel that holds a feature must not be called memory: this test alone
stands between the two, and its level is the rate of such errors. So it is stricter than the others."""
MIN_CONTROLS = 19
"""With fewer null sets no p-value can reach 0.05."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The answers about one selected set and one group. None: the question was not asked, or can't be answered here.

    Arguments:
        influential: the group drops more than under as many random units of the same layers.
        selective: the group also drops more than majority samples of the same label and margin; None if the group is
            no minority.
        localized: the group drops more than under random sets that disturb the network as much.
        memorizing: the margins of its training samples fall further than those of unseen samples, and this contrast is
            larger than under these sets.
        reason: why an answer is None, in words.
    """

    influential: bool | None
    selective: bool | None
    localized: bool | None
    memorizing: bool | None
    reason: str = ""

    @property
    def verdict(self) -> Verdict:
        """The strongest verdict that the answers allow.

        A critical set need not be influential. Random units of a sensitive layer cost every group accuracy, because
        they disturb everything. A set that disturbs the network less is compared with sets of its own damage.
        """
        if self.influential is None:
            return "no verdict"
        if self.selective and self.localized:
            return "memorizing" if self.memorizing else "critical"
        if self.influential:
            return "influential"
        return "selective" if self.selective else "none"


def answer_questions(
    accuracy_change: float,
    p_influential: float,
    *,
    n_controls: int,
    selective: Selectivity | None,
    damage: DamageMatched | None,
    p_contrast: float = math.nan,
    is_unchanged: bool = False,
) -> Answers:
    """Answer the questions from the results of the tests.

    Arguments:
        accuracy_change: of the group, on the samples on which the null sets were measured.
        p_influential: p-value of the first question, adjusted.
        n_controls: number of null sets.
        selective: result of the second question; None for a group that is no minority.
        damage: result of the third question; None where it is not asked.
        p_contrast: p-value of the contrast itself; nan where it is not asked.
        is_unchanged: training left the units as they were, so that they can't hold training samples.
    """
    reasons = []
    is_localized: bool | None = None
    is_memorizing: bool | None = None
    if damage is not None and damage.n < MIN_MATCHED:
        reasons.append(f"{damage.n} sets with the same damage: at least {MIN_MATCHED} are needed")
    elif damage is not None:
        is_localized = damage.p_localized <= LEVEL and accuracy_change < 0
        if not math.isnan(damage.p_memorizing) and not math.isnan(p_contrast):
            is_memorizing = damage.p_memorizing <= LEVEL and p_contrast <= CONTRAST_LEVEL and not is_unchanged
        if is_unchanged:
            reasons.append("training left these units as they were: they hold no samples")
    influential: bool | None = None
    if n_controls < MIN_CONTROLS:
        reasons.append(f"{n_controls} null sets: at least {MIN_CONTROLS} are needed")
    elif math.isnan(p_influential):
        reasons.append("the null sets were measured on no sample of this group")
    else:
        influential = p_influential <= LEVEL and accuracy_change < 0
    is_selective: bool | None = None
    if selective is not None:
        if selective.overlap < MIN_OVERLAP:
            reasons.append(f"only {selective.overlap:.0%} of the group have majority samples of their label and margin")
        else:
            is_selective = selective.p <= LEVEL and selective.difference >= MIN_DIFFERENCE - TIE
    return Answers(
        influential=influential,
        selective=is_selective,
        localized=is_localized,
        memorizing=is_memorizing,
        reason="; ".join(reasons),
    )
