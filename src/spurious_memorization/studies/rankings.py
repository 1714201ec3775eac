"""Rankings: the scores of a network's units by one criterion, measured once and kept in a store."""

from __future__ import annotations

from pathlib import Path

from ..criteria.find import CRITERIA, checked_scores, find_criterion
from ..criteria.hardest import hardest_samples
from ..criteria.scores import Scores
from ..engine.ablation import ablation_scores
from ..runs.run import Run
from ..settings import Execution
from .ablation_map import stored_ablation_map
from .network import StudiedNetwork
from .ranking_settings import RankingSettings
from .store import FolderStore, Store


def ranking_scores(
    network: StudiedNetwork, ranking: RankingSettings, store: Store, execution: Execution | None = None
) -> Scores:
    """The scores of a ranking: those in the store, or else measured now and saved there.

    Arguments:
        network: whose units are scored.
        ranking: what is scored and how.
        store: of the network's rankings and ablation maps.
        execution: device, workers, batch size; changes no result.

    Raises:
        UserError: the criterion, the group or the units don't exist, or a user's criterion returns something else.
    """
    scores = store.scores(ranking.name)
    if scores is None:
        scores = _measured(network, ranking, store, execution or Execution())
        store.save_scores(ranking.name, scores)
    return scores


def _measured(network: StudiedNetwork, ranking: RankingSettings, store: Store, execution: Execution) -> Scores:
    model, data = network.model, network.data
    kind = ranking.select.unit, ranking.select.with_bias
    if ranking.criterion == "ablation":
        frame = stored_ablation_map(model, data, ranking, store, execution)
        return ablation_scores(model, ranking.select, frame, ranking.group)
    criterion = find_criterion(ranking.criterion)
    if ranking.criterion == "random":
        return Scores(criterion(model, select=ranking.select, seed=ranking.seed), *kind)
    if ranking.criterion == "weight_norm":
        return Scores(criterion(model, select=ranking.select), *kind)
    samples = data.samples(ranking.split).of_half(ranking.half, ranking.seed)
    hardest = hardest_samples(model, samples, ranking.group, ranking.n_hardest, order=ranking.order, loss=ranking.loss)
    if ranking.criterion in CRITERIA:
        return Scores(criterion(model, hardest, select=ranking.select, loss=ranking.loss), *kind)
    scores = checked_scores(ranking.criterion, criterion(model, hardest.batch()), model, ranking.select)
    return Scores(scores, *kind)


def ranking_file(run: Run, ranking: RankingSettings) -> Path:
    """Where a run keeps the scores of a ranking."""
    return FolderStore(run.path).scores_file(ranking.name)
