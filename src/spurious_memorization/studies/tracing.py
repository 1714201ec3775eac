"""Tracing: score every unit of a run's network, and store the rankings in the run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ..criteria.scores import Scores
from ..runs.run import Run
from ..settings import Execution
from .ablation_map import map_frame_name, stored_ablation_map
from .network import network_to_trace, on_units
from .ranking_settings import RankingSettings
from .rankings import ranking_file, ranking_scores
from .rules import rankings_of
from .settings import TraceSettings
from .store import FolderStore


@dataclass(frozen=True, eq=False, kw_only=True)
class Ranking:
    """A ranking that is stored in a run.

    Arguments:
        settings: what was scored and how.
        scores: of every unit.
        file: where they are stored.
        ablation_map: for the criterion `ablation`, the effect of zeroing each unit alone; None for others.
        map_file: where the ablation map is stored; None for others.
    """

    settings: RankingSettings
    scores: Scores
    file: Path
    ablation_map: pd.DataFrame | None = None
    map_file: Path | None = None


def trace(
    run: Run,
    settings: TraceSettings | None = None,
    *,
    data_folder: Path | None = None,
    execution: Execution | None = None,
) -> list[Ranking]:
    """Score every unit of a run's network by one or several criteria. What is stored in the run is only read.

    Arguments:
        run: whose network is traced.
        settings: criteria, groups, units, epoch.
        data_folder: where the run's data are now, if they were moved.
        execution: device, workers, batch size; changes no result.

    Returns:
        One ranking per criterion, and per group if the criterion needs samples.

    Raises:
        UserError: a setting does not fit the network or the data, or another command is writing the run.

    Example:
        ```python
        first, *_ = sm.trace(run, sm.TraceSettings(criterion=("gradient",)))
        units = sm.top(first.scores, 3)
        ```
    """
    settings, execution = settings or TraceSettings(), execution or Execution()
    store, rankings = FolderStore(run.path), []
    _ = run.record  # raises an error if this is no run
    with run.writing():
        network = network_to_trace(run, settings, data_folder=data_folder, execution=execution)
        network = on_units(network, settings.unit, execution)
        for ranking in rankings_of(settings, network.model, network.data, network.epoch):
            scores, file = ranking_scores(network, ranking, store, execution), ranking_file(run, ranking)
            if ranking.criterion == "ablation":
                frame = stored_ablation_map(network.model, network.data, ranking, store, execution)
                map_file = run.path / f"{map_frame_name(ranking)}.parquet"
                rankings.append(
                    Ranking(settings=ranking, scores=scores, file=file, ablation_map=frame, map_file=map_file)
                )
            else:
                rankings.append(Ranking(settings=ranking, scores=scores, file=file))
    return rankings
