"""`spurmem trace`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import RenderableType

from ..settings import MAX_COUNT, WorkerExecution
from ..studies.settings import TraceSettings
from .app import Answer


def trace_command(
    run: Path,
    /,
    *,
    show: Annotated[int, Parameter(validator=Number(gte=1, lte=MAX_COUNT))] = 10,
    data: Path | None = None,
    settings: Annotated[TraceSettings | None, Parameter(name="*")] = None,
    execution: Annotated[WorkerExecution | None, Parameter(name="*")] = None,
) -> Answer:
    """Score every unit of a run's network by a criterion, and store the ranking in the run.

    Arguments:
        run: the run whose network is traced
        show: number of units that are shown
        data: the run's data folder, if it was moved
    """
    from ..criteria.scores import top
    from ..reporting.tables.run_tables import ablation_table, ranking_table
    from ..runs.run import Run
    from ..studies.tracing import trace

    text: list[RenderableType] = []
    facts: list[dict[str, Any]] = []
    for ranking in trace(Run(run), settings, data_folder=data, execution=execution):
        scores, label = ranking.scores, ranking.settings.label
        units = top(scores, min(show, scores.n_measured))
        if ranking.ablation_map is None:
            text.append(ranking_table(scores, units, f"{label}, epoch {ranking.settings.epoch}"))
        else:
            text.append(ablation_table(ranking.ablation_map, units, label))
        first = [{"unit": name, "index": i, "score": float(scores[name].flatten()[i])} for name, i in units]
        facts.append({"ranking": ranking.settings.model_dump(mode="json"), "file": str(ranking.file), "first": first})
        if ranking.map_file is not None:
            facts[-1]["map"] = str(ranking.map_file)
    return Answer(text, {"rankings": facts})
