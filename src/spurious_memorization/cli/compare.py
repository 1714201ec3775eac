"""`spurmem compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pandas as pd
from cyclopts import Parameter

from ..comparison.compare import compare
from ..comparison.unit_tracking import track_units
from ..reporting.comparison import comparison_tables
from ..reporting.formats import Format, formatted
from ..reporting.unit_tracking import unit_tracking_tables
from ..settings import Execution
from .app import Answer


def compare_command(
    *runs: Path,
    baseline: str | None = None,
    study: str | None = None,
    data: Path | None = None,
    format: Format | None = None,
    execution: Annotated[Execution | None, Parameter(name="*")] = None,
) -> Answer:
    """Show runs side by side: accuracies over seeds, differences to a baseline, gaps, costs, and the epochs chosen.

    Arguments:
        runs: the runs; a folder of --seeds stands for all in it, and runs equal but for their seed are one row
        baseline: method to take differences to, its name or objective; erm-continue if it is among them
        study: a study of the starting runs: what became of its units, and new traces of runs trained from scratch
        data: where the runs' data are now, if they were moved
        format: print tables as markdown or latex, or everything in one csv
    """
    found = compare(runs, baseline=baseline, data_folder=data)
    tracked = None if study is None else track_units(found, study, execution=execution)
    tables = [*comparison_tables(found), *([] if tracked is None else unit_tracking_tables(tracked))]
    notes = [*found.notes, *(() if tracked is None else tracked.notes)]
    facts = {
        "methods": list(found.methods),
        "baseline": found.baseline,
        **{name: getattr(found, name).to_dict(orient="records") for name in ("runs", "counts", "values", "summary")},
        "notes": notes,
    }
    if tracked is not None:
        facts |= {"study": tracked.study, "units": tracked.units.to_dict(orient="records")}
        facts |= {"traces": tracked.traces.to_dict(orient="records")}
    if format == "csv":
        frames = {"summary": found.summary}
        if tracked is None:
            return Answer([formatted(found.summary, "csv")], facts)
        frames |= {"units": tracked.units, "traces": tracked.traces}
        parts = [frame.assign(table=name) for name, frame in frames.items() if len(frame)]
        whole = pd.concat(parts, ignore_index=True)
        return Answer([formatted(whole[["table", *whole.columns.drop("table")]], "csv")], facts)
    if format is not None:
        return Answer(["\n\n".join(formatted(one.frame, format, one.title) for one in tables)], facts)
    return Answer([*tables, *notes], facts)
