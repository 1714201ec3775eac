"""`spurmem compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..reporting.settings import TableFormat
from ..settings import WorkerExecution
from .app import Answer


def compare_command(
    *runs: Path,
    baseline: str | None = None,
    study: str | None = None,
    refit_heads: bool = False,
    data: Path | None = None,
    format: TableFormat | None = None,
    execution: Annotated[WorkerExecution | None, Parameter(name="*")] = None,
) -> Answer:
    """Compare runs: accuracies over seeds, differences from a baseline, gaps, costs, and the epochs chosen.

    Arguments:
        runs: the runs; a folder made by --seeds means all runs in it; runs that differ only in their seed share one row
        baseline: method that the others are compared with, by name or objective; erm-continue by default if it is there
        study: a study of the starting runs: its units are tracked, and runs trained from scratch are ranked anew
        refit_heads: fit a new head on the features of every network, to tell what is due to the head; needs the images
        data: the runs' data folder, if it was moved
        format: print the tables as markdown or latex, or all numbers as one csv
    """
    import pandas as pd

    from ..comparison.compare import compare
    from ..comparison.refitted_heads import refitted_heads
    from ..comparison.unit_tracking import track_units
    from ..reporting.tables.comparison_tables import comparison_tables
    from ..reporting.tables.head_tables import head_or_features
    from ..reporting.tables.table import csv_text
    from ..reporting.tables.unit_tracking_tables import unit_tracking_tables

    found = compare(runs, baseline=baseline, data_folder=data)
    tables, notes, frames = comparison_tables(found), [*found.notes], {"summary": found.summary}
    facts = {
        "methods": list(found.methods),
        "baseline": found.baseline,
        **{
            name: getattr(found, name).to_dict(orient="records")
            for name in ("runs", "counts", "values", "summary", "selections")
        },
    }
    if refit_heads:
        heads = refitted_heads(found, execution=execution)
        tables += [head_or_features(heads)] if len(heads.values) else []
        notes += heads.notes
        frames |= {"selections": found.selections, "refitted_heads": heads.summary}
        facts["refitted_heads"] = {
            name: getattr(heads, name).to_dict(orient="records") for name in ("values", "summary")
        }
    if study is not None:
        tracked = track_units(found, study, execution=execution)
        tables += unit_tracking_tables(tracked)
        notes += tracked.notes
        frames |= {"selections": found.selections, "units": tracked.units, "traces": tracked.traces}
        facts |= {"study": tracked.study, "units": tracked.units.to_dict(orient="records")}
        facts |= {"traces": tracked.traces.to_dict(orient="records")}
    facts["notes"] = notes
    if format == "csv":
        if len(frames) == 1:
            return Answer([csv_text(found.summary)], facts)
        parts = [frame.assign(table=name) for name, frame in frames.items() if len(frame)]
        whole = pd.concat(parts, ignore_index=True)
        return Answer([csv_text(whole[["table", *whole.columns.drop("table")]])], facts)
    if format is not None:
        return Answer(["\n\n".join(table.formatted(format) for table in tables)], facts)
    return Answer([*tables, *notes], facts)
