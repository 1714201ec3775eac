"""The data set of each run: the number of samples of each group in each split."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ...datasets.groups import lift
from ...runs.run import Run
from ..inputs import ReportInputs
from ..tables.columns import table_of
from ..tables.dataset_tables import LIFT_NOTE
from .figure import Figure


def counts(inputs: ReportInputs) -> Figure:
    """A table of the samples of each group in each split, with the lift of each group."""
    table = inputs.by_run(_counts)
    first = ["run", "group", "role"]
    table = table[[*first, *(name for name in table if name not in first)]]
    return Figure(
        name="counts",
        alt="A table of the number of samples of each group in each split.",
        chart=None,
        rows=table[["run", "group"]],
        table=table_of(table, "The data set: samples of each group", LIFT_NOTE),
        choosers=("run", "group"),
    )


def _counts(run: Run) -> pd.DataFrame:
    record, history = run.record.data, run.history()
    last = history[history["epoch"] == history["epoch"].max()]
    by_split = last.pivot_table(index="group", columns="split", values="n", aggfunc="sum")
    groups = record.groups
    table = pd.DataFrame({"group": groups.names})
    for split in ("train", "val", "test"):
        if split in by_split:
            table[f"n_{split}"] = by_split[split].reindex(range(len(groups))).fillna(0).astype(np.int64)
    if "n_train" in table:
        table["lift"] = lift(groups, table["n_train"].to_numpy(np.int64))
    table["role"] = ["minority" if name in record.minority else "" for name in groups.names]
    return table
