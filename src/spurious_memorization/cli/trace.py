"""`spurmem trace`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import RenderableType

from ..criteria.scores import top
from ..datasets.pseudo_minority import with_pseudo_minority
from ..networks.forward import choose_device
from ..reporting.tables import ablation_table, ranking_table
from ..runs.run import Run
from ..settings import Execution
from ..studies.ablation_map import ablation_folder, stored_ablation
from ..studies.rankings import ranking_file, stored_ranking
from ..studies.settings import TraceSettings, rankings_of
from .app import Answer


def trace_command(
    run: Path,
    /,
    *,
    show: int = 10,
    data: Path | None = None,
    settings: Annotated[TraceSettings | None, Parameter(name="*")] = None,
    execution: Annotated[Execution | None, Parameter(name="*")] = None,
) -> Answer:
    """Score every unit of a run's network by a criterion, and store the ranking in the run.

    Arguments:
        run: whose network is traced
        show: how many of the first units are shown
        data: where the run's data are now, if they were moved
    """
    settings, execution, opened = settings or TraceSettings(), execution or Execution(), Run(run)
    samples = opened.read_data(data)
    if settings.pseudo_minority is not None:
        samples = with_pseudo_minority(samples, settings.pseudo_minority)
    epoch = opened.choose_epoch(settings.epoch)
    model = opened.network(epoch).to(choose_device(execution.device))
    text: list[RenderableType] = []
    facts: list[dict[str, Any]] = []
    with opened.writing():
        for ranking in rankings_of(settings, model, samples, epoch):
            scores = stored_ranking(opened, model, samples, ranking, execution)
            units = top(scores, min(show, scores.n_measured))
            text.append(ranking_table(scores, units, f"{ranking.label}, epoch {epoch}"))
            if ranking.ablation is not None:
                text[-1] = ablation_table(
                    stored_ablation(opened, model, samples, ranking.ablation), units, ranking.label
                )
            first = [{"unit": name, "index": i, "score": float(scores[name].flatten()[i])} for name, i in units]
            file = str(ranking_file(opened, ranking))
            facts.append({"ranking": ranking.model_dump(mode="json"), "file": file, "first": first})
            if ranking.ablation is not None:
                facts[-1]["map"] = str(ablation_folder(opened, ranking.ablation) / "map.parquet")
    return Answer(text, {"rankings": facts})
