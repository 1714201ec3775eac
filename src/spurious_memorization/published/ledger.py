"""The ledger: accuracies that somebody measured with this tool on the data sets of published results.

The package's own `ledger.csv` holds only what was run here.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date as Date  # a field is named date
from pathlib import Path

from pydantic import Field, field_validator

from ..settings import MAX_COUNT, Settings
from ..training.find_objective import objective_names
from .lines import OptionalShare, Share, Words, read_lines
from .results import FOLDER, DataSetName, all_results


class LedgerLine(Settings):
    """A measured accuracy.

    Arguments:
        data_set: name of the data set, as in the published results.
        method: as in the published results, or an objective of this tool.
        worst_group: worst-group accuracy on test, mean over seeds.
        average: average accuracy on test; on Waterbirds weighted as in training, like the published ones.
        seeds: number of seeds.
        hardware, commit, date, command, by: on what, with which version, when, how and by whom it was measured.
    """

    data_set: DataSetName
    method: Words
    worst_group: Share
    average: OptionalShare
    seeds: int = Field(ge=1, le=MAX_COUNT)
    hardware: Words
    commit: Words
    date: Date
    command: Words
    by: Words

    @field_validator("method")
    @classmethod
    def _is_known(cls, method: str) -> str:
        known = dict.fromkeys([*(one.method for one in all_results()), *objective_names()])
        if method not in known:
            raise ValueError(f"must be one of {', '.join(known)}")
        return method


def read_ledger(files: Iterable[Path] = ()) -> tuple[LedgerLine, ...]:
    """The lines of the package's own ledger, and of others.

    Arguments:
        files: further ledgers: CSV files with the same header.

    Raises:
        UserError: a file can't be read, or a line is wrong; the message names line and column.
    """
    return tuple(line for file in (FOLDER / "ledger.csv", *files) for line in read_lines(file, LedgerLine))
