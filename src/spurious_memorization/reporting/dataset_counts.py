"""The data set of each run: how many samples of each group are in each split."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..datasets.groups import lift
from ..runs.run import Run
from .figure import Figure
from .subjects import Subjects


def counts(subjects: Subjects) -> Figure:
    """Samples of each group in each split, with its lift, a table."""
    table = subjects.by_run(_counts)
    first = ["run", "group", "role"]
    table = table[[*first, *(name for name in table if name not in first)]]
    return Figure(
        "counts",
        "The data set: samples of each group",
        "A table of the number of samples of each group in each split.",
        None,
        table[["run", "group"]],
        table,
        ("run", "group"),
        note="Lift: the training count over the count expected if label and attribute were independent. A group under "
        "0.5 is a minority, over 1 a majority, unless the data set names its own.",
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
