"""`spurmem study`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import RenderableType

from ..settings import WorkerExecution
from ..studies.settings import StudySettings
from .app import Answer

if TYPE_CHECKING:
    from ..studies.study import Study


def study_command(
    run: Path,
    /,
    *,
    name: str | None = None,
    data: Path | None = None,
    verbose: Annotated[bool, Parameter(negative=())] = False,
    settings: Annotated[StudySettings | None, Parameter(name="*")] = None,
    execution: Annotated[WorkerExecution | None, Parameter(name="*")] = None,
) -> Answer:
    """Edit a run's network in many ways and compare each edit with random units, group by group.

    Arguments:
        run: the run whose network is studied
        name: name of the study; by default made from the settings
        data: the run's data folder, if it was moved
        verbose: print every table, not only the finding; a finished study is not measured again
    """
    from ..reporting.tables.findings import findings
    from ..reporting.tables.study_tables import all_study_tables, summary_table
    from ..runs.run import Run
    from ..studies.pipeline import study

    opened = Run(run)
    result = study(opened, settings, name=name, data_folder=data, execution=execution)
    effects = result.effects()
    record = opened.record.data
    found = findings(effects, result.groups(), record.candidate_table, result.groupings(), record.noun)
    more = all_study_tables(result) if verbose else []
    place = f"{opened.place}/studies/{result.name}"
    report = shlex.join(["spurmem", "report", opened.place])
    hint = [] if verbose else [f"more: the same command with --verbose prints every table; {report}"]
    text: list[RenderableType] = [*found, summary_table(effects), *more, f"stored in {place}", *hint]
    return Answer(text, {"study": place, **_facts(result, found)})


def _facts(result: Study, found: list[str]) -> dict[str, Any]:
    effects, agreement, epochs = result.effects(), result.agreement(), result.other_epochs()
    groupings = result.groupings()
    return {
        "groups": result.groups().to_dict(orient="records"),
        "effects": effects.to_dict(orient="records"),
        "agreement": [] if agreement is None else agreement.to_dict(orient="records"),
        "groupings": [] if groupings is None else groupings.to_dict(orient="records"),
        "other_epochs": [] if epochs is None else epochs.to_dict(orient="records"),
        "findings": found,
    }
