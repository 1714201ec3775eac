"""`spurmem study`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import RenderableType

from ..reporting.tables.findings import findings
from ..reporting.tables.study_tables import all_study_tables, summary_table
from ..runs.run import Run
from ..settings import Execution
from ..studies.pipeline import study
from ..studies.settings import StudySettings
from ..studies.study import Study
from .app import Answer


def study_command(
    run: Path,
    /,
    *,
    name: str | None = None,
    data: Path | None = None,
    verbose: Annotated[bool, Parameter(negative=())] = False,
    settings: Annotated[StudySettings | None, Parameter(name="*")] = None,
    execution: Annotated[Execution | None, Parameter(name="*")] = None,
) -> Answer:
    """Edit a run's network in many ways and compare each edit with matched controls, group by group.

    Arguments:
        run: whose network is studied
        name: of the study; made from the settings if not given
        data: where the run's data are now, if they were moved
        verbose: print every table, not only the finding; a finished study is not measured again
    """
    result = study(Run(run), settings, name=name, data_folder=data, execution=execution)
    effects = result.effects()
    more = all_study_tables(result) if verbose else []
    hint = [] if verbose else [f"more: the same command with --verbose prints every table; spurmem report {run}"]
    text: list[RenderableType] = [*findings(effects), summary_table(effects), *more, f"stored in {result.path}", *hint]
    return Answer(text, _facts(result))


def _facts(result: Study) -> dict[str, Any]:
    effects, agreement, epochs = result.effects(), result.agreement(), result.other_epochs()
    return {
        "study": str(result.path),
        "effects": effects.to_dict(orient="records"),
        "agreement": [] if agreement is None else agreement.to_dict(orient="records"),
        "other_epochs": [] if epochs is None else epochs.to_dict(orient="records"),
        "findings": findings(effects),
    }
