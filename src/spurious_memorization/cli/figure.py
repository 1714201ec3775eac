"""`spurmem figure`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..reporting.settings import FigureName, FigureSettings
from ..settings import Execution
from .app import Answer


def figure_command(
    name: FigureName,
    /,
    *runs: Path,
    out: Path = Path("figures"),
    data: Path | None = None,
    memorization: Path | None = None,
    settings: Annotated[FigureSettings | None, Parameter(name="*")] = None,
    execution: Annotated[Execution | None, Parameter(name="*")] = None,
) -> Answer:
    """Write a figure of the report for a paper, or its numbers as a table.

    Arguments:
        name: of the figure; all for every figure
        runs: one run, or several to compare
        out: folder for the files
        data: the runs' data folder, if it was moved
        memorization: folder with memorization scores, for the figure of this name
    """
    from ..reporting.figures.write_figures import draw_figures

    files = draw_figures(name, runs, out, settings, data_folder=data, memorization=memorization, execution=execution)
    return Answer([f"figure {file}" for file in files], {"files": [str(file) for file in files]})
