"""`spurmem study`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..report.tables import findings, shift_table, verdict_table
from ..run import Run
from ..settings import Execution
from ..study.settings import StudySettings
from ..study.study import study
from .app import Answer, app


@app.command(name="study")
def study_command(
    run: Path,
    /,
    *,
    name: str | None = None,
    data: Path | None = None,
    settings: Annotated[StudySettings | None, Parameter(name="*")] = None,
    execution: Annotated[Execution | None, Parameter(name="*")] = None,
) -> Answer:
    """Edit a run's network in many ways, each beside matched controls, and say what becomes of every group.

    Arguments:
        run: whose network is studied
        name: of the study; made from the settings if not given
        data: where the run's data are now, if they were moved
    """
    result = study(Run(run), settings, name=name, data_folder=data, execution=execution)
    effects = result.effects()
    splits = dict.fromkeys(effects["split"])
    tables = [shift_table(effects, split) for split in splits]
    tables += [
        verdict_table(effects, split) for split in splits if (effects.query("split == @split")["n_controls"] > 0).any()
    ]
    facts = {"study": str(result.path), "effects": effects.to_dict(orient="records")}
    return Answer([*tables, *findings(effects), f"stored in {result.path}"], facts)
