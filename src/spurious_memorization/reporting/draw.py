"""Single figures for a paper, and their tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from ..errors import UserError
from ..settings import Execution, Settings
from .figure import ENDINGS, Figure, FigureFormat
from .gallery import gallery
from .images import images
from .page import FIGURES
from .subjects import Subjects, subjects

FigureName = Literal[
    "accuracy", "accuracy_changes", "verdicts", "layers", "ablation", "images", "comparison", "counts", "all"
]

MISSING = {
    "ablation": "no ablation map is stored: `spurmem trace RUN --criterion ablation` measures one",
    "layers": "no finished study lists its units: `spurmem study RUN` makes one",
}


class FigureSettings(Settings):
    """What a figure shows of what there is, and how it is written."""

    study: str | None = Field(None, description="name of the study; the one begun last if not given")
    split: str | None = Field(None, description="train, val or test; the first that was measured if not given")
    edit: str | None = Field(None, description="the edit, as the report writes it; the first if not given")
    criterion: str | None = Field(None, description="by which the sets were selected; all if not given")
    size: str | None = Field(None, description="of the selected sets; all if not given")
    group: str | None = Field(None, description="name of the only group; all if not given")
    map: str | None = Field(None, description="the ablation map, as the report writes it; the first if not given")
    format: FigureFormat = Field("svg", description="svg, png, pdf; or its table as latex, markdown, csv")


def draw(
    name: FigureName,
    runs: Sequence[str | Path],
    out: str | Path = "figures",
    settings: FigureSettings | None = None,
    *,
    data_folder: Path | None = None,
    execution: Execution | None = None,
) -> list[Path]:
    """Write a figure of the report as a file of its own.

    Arguments:
        name: of the figure, as in the report's commands; "all" for all that there are.
        runs: directories of the runs.
        out: folder for the files, which are called by figure and format.
        settings: which study, split, edit, criterion, size and group; and the format.
        data_folder: where the runs' data are now, if they were moved.
        execution: of the pass over the training images, for `images`.

    Returns:
        The files.

    Raises:
        UserError: there is nothing to draw, or nothing of this choice.

    Example:
        ```python
        sm.draw("accuracy changes", ["runs/first"], "figures", sm.FigureSettings(split="test", format="pdf"))
        ```
    """
    settings, about = settings or FigureSettings(), subjects(runs)
    style = settings.format
    choice = settings.model_dump(exclude={"format"})

    def made(one: str) -> Figure:
        if one == "images":
            return _images(about, choice, data_folder, execution)
        figure = FIGURES[one](about)
        if figure is None:
            raise UserError(MISSING.get(one, "no finished study: `spurmem study RUN` makes one"))
        return figure.chosen(choice)

    files = []
    for one in [*FIGURES, "images"] if name == "all" else [name]:
        try:
            figure = made(one)
        except UserError:
            if name != "all":
                raise
            continue
        if name == "all" and figure.chart is None and style in ("svg", "png", "pdf"):
            continue
        files.append(Path(out) / f"{one}.{ENDINGS.get(style, style)}")
        figure.save(files[-1], style)
    return files


def _images(
    about: Subjects, choice: dict[str, str | None], data_folder: Path | None, execution: Execution | None
) -> Figure:
    found = gallery(about, data_folder, execution)
    if not found.items and found.reasons:
        raise UserError(next(iter(found.reasons.values())))
    return images(found.items, choice)
