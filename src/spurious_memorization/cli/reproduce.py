"""`spurmem reproduce`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import RenderableType

from ..errors import UserError
from ..paper.settings import ReproduceSettings
from ..training.settings import TrainExecution
from .app import Answer

if TYPE_CHECKING:
    from ..paper.reproduce import Reproduction


def reproduce_command(
    name: str | None = None,
    /,
    *,
    list_: Annotated[bool, Parameter(name="--list", negative=())] = False,
    data: Path | None = None,
    out: Path | None = None,
    settings: Annotated[ReproduceSettings | None, Parameter(name="*")] = None,
    execution: Annotated[TrainExecution | None, Parameter(name="*")] = None,
) -> Answer:
    """Reproduce a study of You et al. (2025): train what is missing, run its grid, average the repeats, subtract.

    Arguments:
        name: of the study, such as waterbirds-resnet50-largest-channel
        list_: show the names of all studies, what they need and how many edited networks they measure
        data: folder of the data set; drawn at a smaller scale if not given
        out: folder of runs and result files; experiments/ or experiments/SCALE/ if not given
    """
    from ..paper.grids import grid_names, read_grid
    from ..paper.reproduce import reproduce
    from ..reporting.tables.paper_tables import grids_table

    if list_:
        grids = {name: read_grid(name) for name in grid_names()}
        facts = {name: {"dataset": grid.dataset, "edited_networks": grid.n_edited} for name, grid in grids.items()}
        return Answer([grids_table(grids)], {"studies": facts})
    if name is None:
        raise UserError("which study? Name one of those that `spurmem reproduce --list` shows")
    made = reproduce(name, data, out, settings, execution=execution)
    return Answer(_text(made), _facts(made))


def _text(made: Reproduction) -> list[RenderableType]:
    from ..reporting.tables.paper_tables import drops_tables, mixed_table
    from ..reporting.tables.run_tables import accuracy_table
    from ..reporting.tables.study_tables import groups_table, verdict_table

    record, history = made.run.record.data, made.run.history()
    text: list[RenderableType] = [made.grid.about, accuracy_table(history, made.epoch, record.groups, record.minority)]
    if len(made.rows):
        text += drops_tables(made.rows)
    for study in made.studies:
        effects, groups = study.effects(), study.groups()
        splits = effects.loc[effects["n_controls"] > 0, "split"].unique()
        if len(splits) and len(groups):
            text.append(groups_table(groups))
        text += [verdict_table(effects, split) for split in splits]
    if made.mixed is not None:
        text.append(mixed_table(made.mixed))
    if made.fine_tuned is not None:
        last = made.fine_tuned.choose_epoch("last")
        text += [
            f"fine-tuned from epoch {made.epoch} for {last} epochs, in {made.fine_tuned.path}:",
            accuracy_table(made.fine_tuned.history(), last, record.groups, record.minority),
        ]
    folders = sorted({str(Path(file).parent) for file in made.rows["file"]}) if len(made.rows) else []
    return [*text, f"run {made.run.path}", *(f"result files in {folder}" for folder in folders)]


def _facts(made: Reproduction) -> dict[str, Any]:
    tuned = made.fine_tuned
    return {
        "run": str(made.run.path),
        "epoch": made.epoch,
        "rows": made.rows.to_dict(orient="records"),
        "mixed": [] if made.mixed is None else made.mixed.to_dict(orient="records"),
        "studies": [str(study.path) for study in made.studies],
        "fine_tuned": None if tuned is None else str(tuned.path),
        "fine_tuned_accuracy": [] if tuned is None else tuned.history().to_dict(orient="records"),
    }
