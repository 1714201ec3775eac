"""`spurmem study`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..reporting.tables import accuracy_change_table, agreement_table, findings, other_epochs_table, verdict_table
from ..runs.run import Run
from ..settings import Execution
from ..studies.pipeline import study
from ..studies.settings import StudySettings
from .app import Answer


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
    effects, agreement, epochs = result.effects(), result.agreement(), result.other_epochs()
    splits = list(dict.fromkeys(effects["split"]))
    tables = [accuracy_change_table(effects, split) for split in splits]
    with_controls = [split for split in splits if (effects.loc[effects["split"] == split, "n_controls"] > 0).any()]
    tables += [verdict_table(effects, split) for split in with_controls]
    if epochs is not None:
        tables += [other_epochs_table(epochs, effects, split) for split in splits]
    if agreement is not None and len(agreement):
        tables.append(agreement_table(agreement))
    found = findings(effects) if with_controls else []
    facts = {
        "study": str(result.path),
        "effects": effects.to_dict(orient="records"),
        "agreement": [] if agreement is None else agreement.to_dict(orient="records"),
        "other_epochs": [] if epochs is None else epochs.to_dict(orient="records"),
        "findings": found,
    }
    return Answer([*tables, *found, f"stored in {result.path}"], facts)
