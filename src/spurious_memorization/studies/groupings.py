"""What a study says of candidate groups if they are drawn otherwise: by each seed of the discovery alone."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from ..datasets.samples import Dataset
from ..statistics.effects import tested_split
from ..statistics.verdicts import VERDICTS
from .settings import StudySettings
from .study import Study

ALL_SEEDS = "all seeds"
"""The grouping of the main study: by the mean score of all seeds."""


MAX_CONTROLS = 99
"""Null sets per ranking in each repeated study: enough for the level of 0.05."""


def settings_of_grouping(settings: StudySettings, data: Dataset) -> StudySettings | None:
    """The settings of the same study with other groups: those of its groups that have training samples.

    It draws at most `MAX_CONTROLS` null sets.

    Returns:
        The settings; None if no group is left to study.
    """
    wanted = [data.groups.index(group) for group in settings.group] or list(data.minority)
    names = tuple(data.groups.names[group] for group in wanted if data.train_counts[group])
    if not names:
        return None
    return settings.model_copy(update={"group": names, "controls": min(settings.controls, MAX_CONTROLS)})


def verdicts_by_grouping(data: Mapping[str, Dataset], studies: Mapping[str, Study | None]) -> pd.DataFrame:
    """The strongest verdict on each minority group, grouping by grouping.

    Arguments:
        data: the data with each grouping, by its name.
        studies: the study of each grouping; None if it leaves no minority group in training.

    Returns:
        One row per grouping and minority group: grouping, group, group_name, n_train, memorized (None if unknown),
        verdict (the strongest of all selected sets, in the tested split; "no verdict" for a group without training
        samples) and units (of the set with this verdict and the largest difference; None without a set).
    """
    rows = []
    for name, of in data.items():
        found = studies[name]
        effects = None if found is None else found.effects()
        memorized = {} if found is None else dict(found.groups()[["group", "memorized"]].itertuples(index=False))
        for group in of.minority:
            first = None if effects is None else strongest_test(effects, group)
            rows.append(
                {
                    "grouping": name,
                    "group": group,
                    "group_name": of.groups.names[group],
                    "n_train": int(of.train_counts[group]),
                    "memorized": memorized.get(group),
                    "verdict": "no verdict" if first is None else first["verdict"],
                    "units": None if first is None else first["units"],
                }
            )
    return pd.DataFrame(rows).astype({"memorized": object, "units": object})


def strongest_test(effects: pd.DataFrame, group: int) -> pd.Series | None:
    """The test on a group with the strongest verdict, in the tested split; of several, that with the largest
    difference; None without a test.

    Arguments:
        effects: of a study.
        group: its index.
    """
    tests = effects[(effects["split"] == tested_split(effects)) & (effects["group"] == group)]
    if tests.empty:
        return None
    ranks = [VERDICTS.index(verdict) for verdict in tests["verdict"]]
    return tests.assign(rank=ranks).sort_values(["rank", "difference"], ascending=[True, False], kind="stable").iloc[0]
