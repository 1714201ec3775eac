"""`spurmem discover`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..discovery.settings import DiscoverSettings
from ..reporting.settings import TableFormat
from ..training.settings import TrainingsExecution
from .app import Answer


def discover_command(
    data: Path,
    /,
    *,
    out: Path,
    compare_with: str | None = None,
    settings: Annotated[DiscoverSettings | None, Parameter(name="*")] = None,
    execution: Annotated[TrainingsExecution | None, Parameter(name="*")] = None,
    format: TableFormat | None = None,
) -> Answer:
    """Find candidate groups in data that have labels only: samples that are unlike the others of their class.

    Arguments:
        data: the data folder; an attribute column is not used
        out: the table of candidate groups, such as groups.csv; the networks are kept in groups_networks beside it, and
            the same command continues a call that was stopped
        compare_with: an attribute column that is known after all, only to judge the methods by
        format: print the tables as markdown or latex, or the scores by every method as csv
    """
    from ..discovery.discover import discover
    from ..reporting.tables.discovery_tables import candidate_groups, discovery_methods, words_table
    from ..reporting.tables.table import csv_text

    found = discover(data, out, settings, compare_with=compare_with, execution=execution)
    facts = {
        "method": found.method,
        "methods": found.methods.to_dict(orient="records"),
        "groups": candidate_groups(found).rows.to_dict(orient="records"),
        "words": [] if found.words is None else found.words.to_dict(orient="records"),
        "table": str(out),
        "notes": list(found.notes),
    }
    if format == "csv":
        return Answer([csv_text(found.scores)], facts)
    tables = [discovery_methods(found), candidate_groups(found)]
    if found.words is not None:
        tables.append(words_table(found.words))
    if format is not None:
        return Answer(["\n\n".join(table.formatted(format) for table in tables), *found.notes], facts)
    command = ["spurmem", "train", str(data), "--attribute", str(out), "--out", "runs/first"]
    return Answer([*tables, *found.notes, f"groups in {out}", f"next: {shlex.join(command)}"], facts)
