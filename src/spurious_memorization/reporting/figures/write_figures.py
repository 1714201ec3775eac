"""Single figures and their tables, as files for a paper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...errors import UserError
from ...settings import Execution
from ..gallery.changed_predictions import make_gallery
from ..inputs import ReportInputs, read_inputs
from ..settings import FigureName, FigureSettings
from .all_figures import FIGURES
from .figure import ENDINGS, Figure
from .gallery_figure import gallery_figure

GALLERIES = ("images", "texts")
"""Of images and of texts: samples whose prediction changes, and top-activating ones."""

MISSING = {
    "memorization": "no memorization scores are named: make them with `spurmem memorization`, then give --memorization",
    "groups": "no finished study measured training samples: `spurmem study RUN --split train,test` makes one",
    "ablation": "no ablation map is stored: `spurmem trace RUN --criterion ablation` measures one",
    "layers": "no finished study lists its units: `spurmem study RUN` makes one",
}


def draw_figures(
    name: FigureName,
    runs: Sequence[str | Path],
    out: str | Path = "figures",
    settings: FigureSettings | None = None,
    *,
    data_folder: Path | None = None,
    memorization: str | Path | None = None,
    execution: Execution | None = None,
) -> list[Path]:
    """Write a figure of the report as a file of its own.

    Arguments:
        name: of the figure, as in the report's commands; "all" for every figure.
        runs: directories of the runs.
        out: folder for the files. Each file is named by its figure and format.
        settings: study, split, edit, criterion, size and group of the figure; and the file format.
        data_folder: where the runs' data are now, if they were moved.
        memorization: folder with memorization scores, for `memorization`.
        execution: of the pass over the training samples, for `images` and `texts`.

    Returns:
        The files.

    Raises:
        UserError: there is nothing to draw, or nothing that fits the settings.

    Example:
        ```python
        sm.draw_figures("accuracy_changes", ["runs/first"], "figures", sm.FigureSettings(split="test", format="pdf"))
        ```
    """
    settings, inputs = settings or FigureSettings(), read_inputs(runs, memorization=memorization)
    style = settings.format
    choice = settings.model_dump(exclude={"format"})

    def make(one: str) -> Figure:
        if one in GALLERIES:
            return _gallery_figure(one, inputs, choice, data_folder, execution)
        figure = FIGURES[one](inputs)
        if figure is None:
            if one == "verdicts" and inputs.studies:
                raise UserError("there are verdicts on minority groups only, and no minority group was measured")
            raise UserError(MISSING.get(one, "no finished study: `spurmem study RUN` makes one"))
        return figure.chosen(choice)

    files = []
    for one in [*FIGURES, *GALLERIES] if name == "all" else [name]:
        try:
            figure = make(one)
        except UserError:
            if name != "all":
                raise
            continue
        if name == "all" and figure.chart is None and style in ("svg", "png", "pdf"):
            continue
        files.append(Path(out) / f"{one}.{ENDINGS.get(style, style)}")
        figure.save(files[-1], style)
    return files


def _gallery_figure(
    name: str,
    inputs: ReportInputs,
    choice: dict[str, str | None],
    data_folder: Path | None,
    execution: Execution | None,
) -> Figure:
    """The figure `images`, or `texts`.

    Raises:
        UserError: the runs are of the other kind; their data are gone; no study lists its units.
    """
    there = {f"{run.record.data.noun}s" for run in inputs.runs}
    if name not in there:
        other = next(iter(there))
        raise UserError(f"the data are {other}, so there are no {name}: `spurmem figure {other}` shows them")
    gallery = make_gallery(inputs, data_folder, execution)
    found = [item for item in gallery.items if f"{item.data.noun}s" == name]
    if not found and gallery.reasons:
        raise UserError(next(iter(gallery.reasons.values())))
    if not found:
        raise UserError(f"no finished study lists its units, so there are no {name}: `spurmem study RUN` makes one")
    return gallery_figure(found, choice)
