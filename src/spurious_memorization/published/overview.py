"""Published accuracies beside the commands that would reproduce them, and beside what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pandas as pd

from ..errors import UserError
from ..settings import Settings
from .commands import TrainingCommand, all_commands
from .ledger import LedgerLine, read_ledger
from .results import DATA_SETS, PublishedResult, all_results

KEYS = ["data_set", "method"]

L = TypeVar("L", bound=Settings)


@dataclass(frozen=True, eq=False, kw_only=True)
class PublishedResults:
    """Published accuracies, commands and measurements, one data frame each. Accuracies are shares.

    Arguments:
        results: one row per data set, method and paper: data_set, method, worst_group, worst_group_std, average,
            average_std, groups_in_training, groups_in_validation, source, collected_by.
        commands: one row per command of this tool: data_set, method, command, settings_from. A method with two stages
            has two rows, in their order.
        measured: one row per line of the ledgers: data_set, method, worst_group, average, seeds, hardware, commit,
            date, command, by.
    """

    results: pd.DataFrame
    commands: pd.DataFrame
    measured: pd.DataFrame

    def joined(self) -> pd.DataFrame:
        """All in one frame: the rows of `results`, each with its command, and with each of its measurements.

        The commands of both stages are joined by "&&". The columns of measurements start with "measured_".
        """
        stages = self.commands.groupby(KEYS, sort=False)
        commands = stages.agg({"command": " && ".join, "settings_from": "first"}).reset_index()
        measured = self.measured.rename(columns={name: f"measured_{name}" for name in self.measured.columns.drop(KEYS)})
        rows = self.results.merge(measured, how="outer", on=KEYS, sort=False)
        rows["order"] = rows["data_set"].map(DATA_SETS.index)
        rows = rows.sort_values("order", kind="stable", ignore_index=True).drop(columns="order")
        return rows.merge(commands, how="left", on=KEYS, sort=False)


def published_results(
    ledger: str | Path | Iterable[str | Path] = (), *, data_set: str | None = None
) -> PublishedResults:
    """Published accuracies of methods on Waterbirds, CelebA, MultiNLI and CivilComments.

    Arguments:
        ledger: CSV files with accuracies that you measured, in addition to the ledger of this package.
        data_set: only this one: waterbirds, celeba, multinli or civilcomments.

    Raises:
        UserError: there is no such data set, or a ledger has a wrong line.

    Example:
        ```python
        known = sm.published_results(data_set="waterbirds")
        known.results[["method", "worst_group", "source"]]
        ```
    """
    if data_set is not None and data_set not in DATA_SETS:
        raise UserError(f"no published results for data set {data_set!r}: choose among {', '.join(DATA_SETS)}")
    files = [Path(ledger)] if isinstance(ledger, str | Path) else [Path(file) for file in ledger]
    wanted = DATA_SETS if data_set is None else (data_set,)
    return PublishedResults(
        results=_frame(all_results(), PublishedResult, wanted),
        commands=_frame(all_commands(), TrainingCommand, wanted),
        measured=_frame(read_ledger(files), LedgerLine, wanted),
    )


def _frame(lines: Sequence[L], kind: type[L], data_sets: Iterable[str]) -> pd.DataFrame:
    rows = pd.DataFrame([line.model_dump(mode="json") for line in lines], columns=list(kind.model_fields))
    return rows[rows["data_set"].isin(list(data_sets))].reset_index(drop=True)
