"""A long study says by how much fewer samples of its null sets would shorten it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..console import duration, log
from ..datasets.groups import group_counts
from ..datasets.samples import Dataset
from ..engine.protocol import Engine
from .blocks import LONG, Part, planned_work
from .settings import StudySettings
from .time_to_go import TimeToGo

MIN_PER_GROUP = 100
"""Fewer samples of a group are not suggested. With 100 samples, a measured accuracy has a standard error of at most
5 points."""

WORTHWHILE = 0.5
"""A setting is suggested if the study takes at most this share of the time with it."""


def suggest_subset(
    engine: Engine,
    planned: Callable[[StudySettings], Mapping[str, Part]],
    data: Dataset,
    settings: StudySettings,
    time_to_go: TimeToGo,
) -> None:
    """Log how long a study takes if its null sets leave out samples of the large groups.

    The suggested number per group keeps all samples of the minority groups, in the split that is traced. Nothing is
    logged of a short study, or where it saves little.

    Arguments:
        engine: of the study.
        planned: gives the parts that are measured in any case, for some settings.
        data: the data set.
        settings: of the study.
        time_to_go: of the study with these settings.
    """
    seconds = time_to_go.seconds or 0.0
    if seconds < LONG or settings.per_group is not None or not settings.controls or not data.minority:
        return
    sizes = group_counts(data.groups, data.samples(settings.traced_on).g)
    n = max(MIN_PER_GROUP, int(sizes[list(data.minority)].max()))
    fewer = planned_work(engine, planned(settings.model_copy(update={"per_group": n})))
    shorter = time_to_go.seconds_for(fewer) or 0.0
    if shorter <= WORTHWHILE * seconds:
        log(
            f"--per-group {n} would take about {duration(shorter)}: it measures null sets on at most {n} "
            f"{data.noun}s per group, and these are all of each minority group in {settings.traced_on}"
        )
