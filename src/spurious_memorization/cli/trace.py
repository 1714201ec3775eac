"""`spurmem trace`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import RenderableType

from ..criteria.scores import top
from ..reporting.tables.run_tables import ablation_table, ranking_table
from ..runs.run import Run
from ..settings import Execution
from ..studies.ablation_map import map_frame_name, stored_ablation_map
from ..studies.network import network_of_run
from ..studies.rankings import ranking_file, ranking_scores
from ..studies.rules import rankings_of
from ..studies.settings import TraceSettings
from ..studies.store import FolderStore
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
    network = network_of_run(
        opened,
        opened.read_data(data),
        opened.choose_epoch(settings.epoch),
        pseudo_minority=settings.pseudo_minority,
        execution=execution,
    )
    store = FolderStore(opened.path)
    text: list[RenderableType] = []
    facts: list[dict[str, Any]] = []
    with opened.writing():
        for ranking in rankings_of(settings, network.model, network.data, network.epoch):
            scores = ranking_scores(network, ranking, store, execution)
            units = top(scores, min(show, scores.n_measured))
            first = [{"unit": name, "index": i, "score": float(scores[name].flatten()[i])} for name, i in units]
            file = str(ranking_file(opened, ranking))
            facts.append({"ranking": ranking.model_dump(mode="json"), "file": file, "first": first})
            if ranking.criterion == "ablation":
                frame = stored_ablation_map(network.model, network.data, ranking, store, execution)
                text.append(ablation_table(frame, units, ranking.label))
                facts[-1]["map"] = str(opened.path / f"{map_frame_name(ranking)}.parquet")
            else:
                text.append(ranking_table(scores, units, f"{ranking.label}, epoch {network.epoch}"))
    return Answer(text, {"rankings": facts})
