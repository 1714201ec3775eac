"""What the tables of comparisons share: columns of means over seeds, and the rules that choose epochs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pandas as pd

from ...comparison.epochs import CHOSEN_BY
from .number_formats import Kind, interval
from .table import Column, Row

METHOD = Column(name="method", heading="method", is_narrow=True)

METHOD_BLOCK = ("method", "seeds")
METHOD_BLOCK_COLUMNS = (METHOD, Column(name="seeds", heading="seeds", kind="count"))

RULE_NAMES = {"worst_group_accuracy": "worst group", "average": "average"}


def rules_shown(epochs: Mapping[str, list[int]]) -> Mapping[str, str]:
    """{rule: its name} for the rules that have a row of their own: one for both if they chose the same epochs.

    Arguments:
        epochs: {rule: the epoch of each run of a method}.
    """
    first, second = CHOSEN_BY
    return {first: "both"} if epochs[first] == epochs[second] else RULE_NAMES


def mean_column(name: str, heading: str) -> Column:
    """Means in percent with their standard deviation over seeds, from the columns `name mean` and `name std`."""
    return Column(name=f"{name} mean", heading=heading, kind="percent_number", detail=spread(f"{name} std", 100))


def spread(std: str, scale: float = 1.0, digits: int = 1) -> Callable[[Row], str]:
    """The detail "±1.3" from a column of standard deviations; none for a single seed."""
    return lambda row: "" if pd.isna(row[std]) else f"±{scale * row[std]:.{digits}f}"


def difference_column(name: str, heading: str) -> Column:
    """Differences in points with their interval, from the columns `name difference`, `name low` and `name high`."""
    return Column(
        name=f"{name} difference",
        heading=heading,
        kind="points",
        detail=between(f"{name} low", f"{name} high", "points"),
        is_detail_below=True,
    )


def between(low: str, high: str, kind: Kind) -> Callable[[Row], str]:
    """The detail "(a to b)" from two columns of bounds; none if they are missing."""
    return lambda row: interval(row[low], row[high], kind)
