"""Tracing: the ranking of a network's units by a criterion, stored in its run."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Literal

from torch import nn

from ..criteria.find import CRITERIA, NEEDS_SAMPLES, find_criterion
from ..criteria.hardest import Order, hardest_samples
from ..criteria.scores import Scores, read_scores, save_scores
from ..datasets.samples import Dataset
from ..errors import UserError
from ..networks.losses import LossName
from ..networks.units import Selection
from ..runs.run import Run
from ..settings import Execution, Settings
from .ablation import ablation_scores
from .ablation_map import AblationSettings, stored_ablation


class RankingSettings(Settings):
    """One ranking: what was scored, by which criterion, on which samples.

    Arguments:
        criterion: name, or `module:function`.
        select: the units.
        epoch: of the network.
        group: name of the group whose hardest samples are taken; None for all groups together, and for criteria that
            need no samples.
        split: where the samples come from.
        n_hardest: at most so many of them.
        order: which are the worst.
        loss: by which, and whose gradient is taken.
        half: of the samples, `Dataset.halves`; None for all.
        seed: of the criterion `random`, and of the halves.
        ablation: of the criterion `ablation`: the map that the scores are read from.
        pseudo_minority: seed of the random subsets of the majority that the data's groups have; None for none.
    """

    criterion: str
    select: Selection
    epoch: int
    group: str | None = None
    split: Literal["train", "val", "test"] = "train"
    n_hardest: int = 200
    order: Order = "highest_loss"
    loss: LossName = "cross_entropy"
    half: int | None = None
    seed: int = 0
    ablation: AblationSettings | None = None
    pseudo_minority: int | None = None

    @property
    def looks_at_samples(self) -> bool:
        """Its units are selected by what the network does on samples."""
        return needs_group(self.criterion)

    @property
    def label(self) -> str:
        """For tables: "gradient (waterbird on land)"."""
        return f"{self.criterion} ({self.group})" if self.group else self.criterion


def trace(model: nn.Module, data: Dataset, settings: RankingSettings) -> Scores:
    """Scores of every unit by one criterion.

    Arguments:
        model: the network, which stays as it is.
        data: where the criterion's samples come from.
        settings: what is scored and how.

    Raises:
        UserError: criterion, group or selection don't exist, or a user's criterion returns something else.
    """
    criterion = find_criterion(settings.criterion)
    if settings.criterion == "random":
        return Scores(criterion(model, select=settings.select, seed=settings.seed), *_kind(settings))
    if settings.criterion == "weight_norm":
        return Scores(criterion(model, select=settings.select), *_kind(settings))
    samples = data.samples(settings.split).of_half(settings.half, settings.seed)
    chosen = hardest_samples(
        model, samples, settings.group, settings.n_hardest, order=settings.order, loss=settings.loss
    )
    if settings.criterion in CRITERIA:
        return Scores(criterion(model, chosen, select=settings.select, loss=settings.loss), *_kind(settings))
    values = criterion(model, chosen.batch())
    if not isinstance(values, dict) or not values:
        raise UserError(f"criterion {settings.criterion} must return {{tensor name: scores}}")
    return Scores(values, *_kind(settings))


def stored_ranking(
    run: Run, model: nn.Module, data: Dataset, settings: RankingSettings, execution: Execution | None = None
) -> Scores:
    """The scores from the run, traced and stored there first where they are not yet."""
    file = ranking_file(run, settings)
    if file.is_file():
        return read_scores(file)
    if settings.ablation is None:
        scores = trace(model, data, settings)
    else:
        frame = stored_ablation(run, model, data, settings.ablation, execution)
        scores = ablation_scores(model, settings.select, frame, settings.group)
    save_scores(file, scores)
    return scores


def ranking_file(run: Run, settings: RankingSettings) -> Path:
    """Where a ranking is stored: named by criterion, kind of unit, epoch and group, and a digest of all settings."""
    words = (settings.criterion, settings.select.unit, f"epoch_{settings.epoch:03d}", settings.group or "")
    name = "_".join(re.sub(r"[^\w.-]+", "-", word) for word in words if word)
    digest = hashlib.sha256(settings.model_dump_json().encode()).hexdigest()[:8]
    return run.path / "rankings" / f"{name}_{digest}.safetensors"


def on_half(ranking: RankingSettings, half: int) -> RankingSettings:
    """The same ranking by one half of the samples."""
    ablation = ranking.ablation and ranking.ablation.model_copy(update={"half": half})
    return ranking.model_copy(update={"half": half, "ablation": ablation})


def needs_group(criterion: str) -> bool:
    """A criterion that looks at samples: it is traced once a group."""
    return criterion in NEEDS_SAMPLES or criterion not in CRITERIA


def _kind(settings: RankingSettings) -> tuple[Literal["channel", "head", "weight"], bool]:
    return settings.select.unit, settings.select.with_bias
