"""`spurmem mitigate`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..reporting.settings import TableFormat
from ..training.settings import MitigateSettings, TrainingsExecution
from .app import Answer


def mitigate_command(
    data: Path,
    /,
    *,
    out: Path,
    settings: Annotated[MitigateSettings | None, Parameter(name="*")] = None,
    execution: Annotated[TrainingsExecution | None, Parameter(name="*")] = None,
    format: TableFormat | None = None,
) -> Answer:
    """Train by ERM and by every mitigation objective with the same budget, and compare the results.

    The same command continues a call that was stopped.

    Arguments:
        data: the data folder
        out: folder for the runs: OUT/OBJECTIVE/seed_0 and so on
        format: print the tables as markdown or latex, or all numbers as one csv
    """
    from ..comparison.compare import compare
    from ..comparison.refitted_heads import refitted_heads
    from ..reporting.tables.comparison_tables import method_costs, method_overview
    from ..reporting.tables.head_tables import head_or_features
    from ..reporting.tables.measure_tables import beyond_accuracy
    from ..reporting.tables.selection_tables import epoch_choices_overall
    from ..reporting.tables.table import csv_text
    from ..training.mitigate import mitigate

    made = mitigate(data, out, settings, execution=execution)
    found = compare([run for runs in made.runs.values() for run in runs])
    heads = refitted_heads(found, execution=execution)
    notes = [*made.notes, *found.notes, *heads.notes]
    facts = {
        "runs": {name: [run.place for run in runs] for name, runs in made.runs.items()},
        "summary": found.summary.to_dict(orient="records"),
        "costs": found.runs.to_dict(orient="records"),
        "selections": found.selections.to_dict(orient="records"),
        "refitted_heads": {name: getattr(heads, name).to_dict(orient="records") for name in ("values", "summary")},
        "notes": notes,
    }
    if format == "csv":
        return Answer([csv_text(found.summary)], facts)
    of_heads = [head_or_features(heads)] if len(heads.values) else []
    tables = [method_overview(found), *of_heads, beyond_accuracy(found), epoch_choices_overall(found)]
    tables.append(method_costs(found))
    if format is not None:
        return Answer(["\n\n".join(table.formatted(format) for table in tables), *made.notes], facts)
    folders = dict.fromkeys(str(runs[0].path.parent) for runs in made.runs.values())
    every_group = f"every group and split: {shlex.join(['spurmem', 'compare', *folders])}"
    return Answer([*tables, *notes, every_group], facts)
