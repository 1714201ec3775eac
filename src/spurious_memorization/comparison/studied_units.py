"""The units that a study selected in a run, and how they do in another network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..controls.norms import norms_of_units
from ..datasets.samples import Dataset
from ..edits.edit import zero
from ..engine.ablation import SingleEdits
from ..engine.evaluate import evaluate
from ..errors import UserError
from ..networks.forward import choose_device
from ..networks.names import LossName
from ..networks.selection import Selection
from ..networks.units import Units, parse_units, short_name
from ..runs.run import Run
from ..settings import Execution
from ..statistics.counts import count
from ..studies.network import studied_data
from ..studies.ranking_settings import RankingSettings
from ..studies.rules import rules_of
from ..studies.settings import StudySettings
from ..studies.study import Study

TOGETHER = "together"
"""Stands in place of a unit's name for all units of a set at once."""


@dataclass(frozen=True, eq=False, kw_only=True)
class TrackedSet:
    """The units of one ranking that are tracked.

    Arguments:
        criterion, traced_on: criterion and group by which the units were selected.
        called: "critical" if the study's verdicts say so, otherwise "selected".
        units: of the set.
    """

    criterion: str
    traced_on: str
    called: str
    units: Units


@dataclass(frozen=True, eq=False, kw_only=True)
class StudiedRun:
    """A run with its study.

    Arguments:
        run: whose network of this epoch was studied.
        epoch: of the network.
        settings, rankings, loss: of the study.
        sets: that are tracked.
        data: the data set, with the minority groups of the study.
    """

    run: Run
    epoch: int
    settings: StudySettings
    rankings: tuple[RankingSettings, ...]
    loss: LossName
    sets: tuple[TrackedSet, ...]
    data: Dataset


def studied_run(run: Run, name: str, data: Dataset) -> StudiedRun:
    """Read a run's study of this name.

    Raises:
        UserError: the study lists no units.
    """
    study = Study(run.path / "studies" / name)
    record = study.record
    settings = StudySettings.model_validate(record["settings"])
    return StudiedRun(
        run=run,
        epoch=record["epoch"],
        settings=settings,
        rankings=tuple(RankingSettings.model_validate(ranking) for ranking in record["rankings"]),
        loss=record["loss"],
        sets=tuple(_tracked_sets(run, study, settings, record["epoch"])),
        data=studied_data(data, settings),
    )


def effects_of_units(studied: StudiedRun, run: Run, epoch: int, execution: Execution) -> pd.DataFrame:
    """The tracked units in the network of one epoch of a run.

    Returns:
        One row per set, unit (and all units together) and minority group: criterion, traced_on, called, n_units, unit,
        norm (folded), group, group_name, n, accuracy, and accuracy_change when the unit is zeroed.
    """
    model = run.network(epoch)
    rows, edits = [], []
    for one in studied.sets:
        about = {"criterion": one.criterion, "traced_on": one.traced_on, "called": one.called}
        for (tensor, index), norm in zip(one.units, norms_of_units(model, one.units), strict=True):
            rows.append({**about, "n_units": len(one.units), "unit": f"{short_name(tensor)}:{index}", "norm": norm})
        rows.append({**about, "n_units": len(one.units), "unit": TOGETHER, "norm": np.nan})
        edits += [*SingleEdits(one.units), zero(one.units)]
    data = studied.data
    groups = data.minority or range(len(data.groups))
    samples = data.train.at(data.train.index[np.isin(data.train.g, list(groups))])
    outcomes = evaluate(
        model.to(choose_device(execution.device)),
        edits,
        samples,
        loss=studied.loss,
        precision=studied.settings.precision,
        execution=execution,
    )
    counted = count(outcomes.before, outcomes.after, samples)
    counted = counted[counted["n"] > 0]
    changes = pd.DataFrame(
        {
            "edit": counted["edit"],
            "group": counted["group"],
            "group_name": [data.groups.names[g] for g in counted["group"]],
            "n": counted["n"],
            "accuracy": counted["correct_before"] / counted["n"],
            "accuracy_change": (counted["correct_after"] - counted["correct_before"]) / counted["n"],
        }
    )
    return pd.DataFrame(rows).rename_axis("edit").reset_index().merge(changes, on="edit")


def _tracked_sets(run: Run, study: Study, settings: StudySettings, epoch: int) -> Iterator[TrackedSet]:
    """The largest critical set of every ranking, or its largest set if none is critical. Sets must list their units.

    Raises:
        UserError: no set lists its units.
    """
    effects = study.effects()
    listed = effects[effects["units"].notna()]
    if listed.empty:
        raise UserError(f"--study {study.name} of {run.path} lists no units, its sets are too large: choose another")
    model = run.network(epoch)
    with_bias = rules_of(settings, "weight_norm", model).select.with_bias
    keys = [listed["criterion"], listed["traced_on"].fillna("")]
    for (criterion, traced_on), rows in listed.groupby(keys, sort=False):
        critical = rows[rows["verdict"].isin(("critical", "memorizing"))]
        largest = (rows if critical.empty else critical).sort_values("n_units", kind="stable").iloc[-1]
        units = parse_units(model, largest["units"], Selection(unit=settings.unit, with_bias=with_bias))
        called = "selected" if critical.empty else "critical"
        yield TrackedSet(criterion=criterion, traced_on=traced_on, called=called, units=units)
