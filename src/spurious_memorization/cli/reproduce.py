"""`spurmem reproduce`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import RenderableType

from ..errors import UserError
from ..paper.settings import ReproduceSettings
from ..reporting.settings import TableFormat
from ..training.settings import TrainingsExecution
from .app import Answer

if TYPE_CHECKING:
    from ..paper.reproduce import Reproduction
    from ..reporting.tables.table import Table


def reproduce_command(
    name: str | None = None,
    /,
    *,
    list_: Annotated[bool, Parameter(name="--list", negative=())] = False,
    published: Annotated[bool, Parameter(negative=())] = False,
    data_set: str | None = None,
    ledger: tuple[Path, ...] = (),
    format: TableFormat | None = None,
    data: Path | None = None,
    out: Path | None = None,
    settings: Annotated[ReproduceSettings | None, Parameter(name="*")] = None,
    execution: Annotated[TrainingsExecution | None, Parameter(name="*")] = None,
) -> Answer:
    """Reproduce a study of You et al. (2025): train what is missing, run its grid, average the repeats, subtract.

    Arguments:
        name: of the study, such as waterbirds-resnet50-largest-channel
        list_: show the names of all studies, what they need and how many edited networks they measure
        published: show published accuracies of other methods, the commands that would reproduce them, and measurements
        data_set: with --published: only waterbirds, celeba, multinli or civilcomments
        ledger: with --published: CSV file with accuracies that you measured
        format: with --list or --published: print the tables as markdown or latex, or all numbers as one csv
        data: folder of the data set; drawn at a smaller scale if not given
        out: folder of runs and result files; experiments/ or experiments/SCALE/ if not given
    """
    from ..paper.reproduce import reproduce

    if not published and (data_set is not None or ledger):
        raise UserError("--data-set and --ledger belong to published accuracies: add --published")
    if published:
        return _published(data_set, ledger, format)
    if list_:
        return _studies(format)
    if name is None:
        raise UserError("which study? Name one of those that `spurmem reproduce --list` shows")
    if format is not None:
        raise UserError("--format belongs to lists: add --list or --published, or leave it out")
    made = reproduce(name, data, out, settings, execution=execution)
    return Answer(_text(made), _facts(made))


def _studies(format: TableFormat | None) -> Answer:
    from ..paper.grids import grid_names, read_grid
    from ..reporting.tables.paper_tables import grids_table

    grids = {name: read_grid(name) for name in grid_names()}
    facts = {name: {"dataset": grid.dataset, "edited_networks": grid.n_edited} for name, grid in grids.items()}
    return Answer(_shown([grids_table(grids)], format), {"studies": facts})


def _published(data_set: str | None, ledger: tuple[Path, ...], format: TableFormat | None) -> Answer:
    from ..published.overview import published_results
    from ..reporting.tables.published_tables import command_lines, commands_table, measured_table, results_tables
    from ..reporting.tables.table import csv_text

    known = published_results(ledger, data_set=data_set)
    facts = {name: getattr(known, name).to_dict(orient="records") for name in ("results", "commands", "measured")}
    if format == "csv":
        return Answer([csv_text(known.joined())], facts)
    results, measured = results_tables(known), [measured_table(known)] if len(known.measured) else []
    if format is None:
        return Answer([*results, *command_lines(known), *measured], facts)
    return Answer(_shown([*results, commands_table(known), *measured], format), facts)


def _shown(tables: Sequence[Table], format: TableFormat | None) -> Sequence[RenderableType]:
    return tables if format is None else ["\n\n".join(table.formatted(format) for table in tables)]


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
