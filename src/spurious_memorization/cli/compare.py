"""`spurmem compare`."""

from __future__ import annotations

from pathlib import Path

from ..comparison.compare import compare
from ..report.comparison import comparison_tables, terminal_table
from ..report.formats import Format, formatted
from .app import Answer


def compare_command(
    *runs: Path,
    baseline: str | None = None,
    data: Path | None = None,
    format: Format | None = None,
) -> Answer:
    """Show runs side by side: accuracies over seeds, differences to a baseline, gaps, costs, and the epochs chosen.

    Arguments:
        runs: the runs; a folder of --seeds stands for all in it, and runs equal but for their seed are one row
        baseline: method to take differences to, its name or objective; erm-continue if it is among them
        data: where the runs' data are now, if they were moved
        format: print tables as markdown or latex, or everything in one csv
    """
    found = compare(runs, baseline=baseline, data_folder=data)
    tables = comparison_tables(found)
    facts = {
        "methods": list(found.methods),
        "baseline": found.baseline,
        **{name: getattr(found, name).to_dict(orient="records") for name in ("runs", "counts", "values", "summary")},
        "notes": list(found.notes),
    }
    if format == "csv":
        return Answer([formatted(found.summary, "csv")], facts)
    if format is not None:
        return Answer(["\n\n".join(formatted(one.frame, format, one.title) for one in tables)], facts)
    return Answer([*map(terminal_table, tables), *found.notes], facts)
