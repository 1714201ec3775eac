"""`spurmem report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..settings import Execution
from .app import Answer


def report_command(
    *runs: Path,
    out: Path | None = None,
    study: str | None = None,
    data: Path | None = None,
    memorization: Path | None = None,
    controls: Path | None = None,
    execution: Annotated[Execution | None, Parameter(name="*")] = None,
) -> Answer:
    """Write the report: one page with figures, verdicts, images or texts, and settings, which opens without a network.

    Arguments:
        runs: one run, or several to compare
        out: the file; report.html in the first run if not given
        study: name of the only study to show; all finished ones if not given
        data: the runs' data folder, if it was moved
        memorization: folder with memorization scores of the same data, which are shown, too
        controls: file with the answers on a positive and a negative control, which are shown, too
    """
    from ..reporting.page.write_page import report

    file = report(
        runs, out, study=study, data_folder=data, memorization=memorization, controls=controls, execution=execution
    )
    return Answer([f"report {file}"], {"report": str(file)})
