"""`spurmem words`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..discovery.settings import WordSettings
from ..reporting.settings import TableFormat
from ..settings import Execution
from .app import Answer


def words_command(
    data: Path,
    groups: Path,
    /,
    *,
    settings: Annotated[WordSettings | None, Parameter(name="*")] = None,
    execution: Annotated[Execution | None, Parameter(name="*")] = None,
    format: TableFormat | None = None,
) -> Answer:
    """Find words that fit the images of each candidate group better than the others of its class, by CLIP.

    Arguments:
        data: the data folder
        groups: the table of candidate groups; the words are stored beside it, and the report shows them
        format: print the table as markdown or latex, or all words as csv
    """
    from ..datasets.candidate_groups import words_file
    from ..discovery.group_words import group_words
    from ..reporting.tables.discovery_tables import fitting_words
    from ..reporting.tables.table import csv_text

    found = group_words(data, groups, settings, execution=execution)
    facts = {"words": found.to_dict(orient="records"), "table": str(words_file(groups))}
    if format == "csv":
        return Answer([csv_text(found)], facts)
    table = fitting_words(found)
    if format is not None:
        return Answer([table.formatted(format)], facts)
    return Answer([table, f"words in {words_file(groups)}"], facts)
