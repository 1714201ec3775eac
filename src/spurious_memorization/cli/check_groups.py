"""`spurmem check-groups`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import RenderableType

from ..errors import UserError
from ..reporting.settings import CheckFormat
from ..studies.settings import SplitName
from .app import Answer


def check_groups_command(
    *runs: Path,
    max_gap: float | None = None,
    min_worst: float | None = None,
    epoch: str = "best",
    split: SplitName = "test",
    confident: Annotated[bool, Parameter(negative="--strict")] = False,
    min_samples: int = 1,
    format: CheckFormat | None = None,
    out: Path | None = None,
) -> Answer:
    """Check the accuracy of every group, for continuous integration: the exit status is 1 if a group fails.

    Arguments:
        runs: one run, or several; a folder made by --seeds means all runs in it
        max_gap: largest allowed gap in points: average accuracy minus the accuracy of a group
        min_worst: least allowed accuracy of a group, in percent; give this limit, --max-gap, or both
        epoch: best, last or a number
        split: test, val or train
        confident: let groups pass whose failure is within noise; --strict, the default, lets no failure pass
        min_samples: groups with fewer samples are not checked, but named
        format: print markdown, such as for the summary of a job, or junit: XML that servers show as tests
        out: write the text of --format into this file, and print the tables
    """
    from ..atomic import write_text
    from ..comparison.group_check import check_groups
    from ..input_files import regular_file, shown
    from ..reporting.junit import junit_text
    from ..reporting.tables.check_tables import check_markdown, check_notes, check_tables

    if out is not None and format is None:
        raise UserError(f"--out {shown(out)} needs a format: add --format junit or --format markdown")
    if out is not None and out.exists():
        regular_file(out, what="--out")
    found = check_groups(
        *runs,
        max_gap=max_gap,
        min_worst=min_worst,
        epoch=epoch,
        split=split,
        confident=confident,
        min_samples=min_samples,
    )
    answer: list[RenderableType] = [*check_tables(found), *check_notes(found)]
    if format is not None:
        text = junit_text(found) if format == "junit" else check_markdown(found)
        if out is None:
            answer = [text]
        else:
            write_text(out, text + "\n")
            answer.append(f"{format} {out}")
    facts = {
        "passed": found.passed,
        "split": found.split,
        "max_gap": found.max_gap,
        "min_worst": found.min_worst,
        "confident": found.confident,
        "min_samples": found.min_samples,
        "level": found.level,
        "runs": found.runs.to_dict(orient="records"),
        "checks": found.checks.to_dict(orient="records"),
    }
    return Answer(answer, facts, exit_status=0 if found.passed else 1)
