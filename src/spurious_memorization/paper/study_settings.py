"""Study settings from the flags of the paper's study scripts."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from ..studies.settings import StudySettings
from .arguments import ChannelStudy, ThresholdStudy

REPEATS = {"weight_norm": 10, "gradient": 3}
"""Number of repeats of a random edit, by the criterion that selects the units."""


def channel_study(arguments: ChannelStudy, criterion: str, epoch: int) -> StudySettings:
    """Settings of a channel study.

    Arguments:
        arguments: flags of the script.
        criterion: "weight_norm" or "gradient".
        epoch: epoch of the run that is studied.
    """
    return StudySettings(
        **_paper_study(criterion, arguments.seed),
        epoch=str(epoch),
        size=(str(arguments.top_k),),
        edit=(arguments.edit,),
        traced_on=arguments.experiment_split,
        split=(arguments.experiment_split,),
    )


def threshold_study(arguments: ThresholdStudy, epoch: int) -> StudySettings:
    """Settings of the study of single weights; arguments as for `channel_study`."""
    return StudySettings(
        **_paper_study("weight_norm", arguments.seed),
        unit="weight",
        epoch=str(epoch),
        size=(percent(arguments.modification_percentage),),
        smallest=arguments.if_smallest_magnitude,
        dropout_p=arguments.dropout_p,
        edit=(arguments.edit,),
        split=("train",),
    )


def percent(fraction: float) -> str:
    """A fraction in the form of the flag `--size`, without binary rounding: 0.075 is "7.5%"."""
    return f"{Decimal(str(fraction)) * 100:f}%"


def _paper_study(criterion: str, seed: int) -> dict[str, Any]:
    return {
        "preset": "paper",
        "criterion": (criterion,),
        "repeats": REPEATS[criterion],
        "controls": 0,
        "cross_fit": False,
        "seed": seed,
    }
