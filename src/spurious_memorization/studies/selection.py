"""Which units a study selects: the first of every ranking, for each size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from ..criteria.presets import TracingRules
from ..criteria.scores import Scores, by_threshold, count_of, random_dropout, top
from ..datasets.samples import Dataset
from ..errors import UserError
from ..networks.units import Selection, Units, parse_units
from ..seeds import derived_seed
from .rankings import RankingSettings, on_half
from .settings import StudySettings, parse_sizes


@dataclass(frozen=True, eq=False)
class Ranked:
    """The selected units of one ranking, for each size.

    Arguments:
        criterion, group: of the ranking.
        units: of each size.
        rule: how they were chosen, in words, for each size.
        half: of the samples that they were selected on; None for all, or where no samples were looked at.
        is_tested: they get controls and verdicts; otherwise they are only shown.
    """

    criterion: str
    group: str | None
    units: Mapping[int | float, Units]
    rule: Mapping[int | float, str]
    half: int | None = None
    is_tested: bool = True

    @property
    def measured_halves(self) -> frozenset[int]:
        """Halves of the samples on which these units are measured: those that they were not selected on."""
        return frozenset((0, 1)) if self.half is None else frozenset([1 - self.half])


def ranked_units(
    model: nn.Module,
    data: Dataset,
    settings: StudySettings,
    rankings: Sequence[RankingSettings],
    rules: TracingRules,
    scores_of: Callable[[RankingSettings], Scores],
) -> list[Ranked]:
    """The selected units of every ranking of a study; where verdicts are wanted of a criterion that looks at samples,
    also by each half of them.

    Arguments:
        scores_of: traces a ranking, or has it.

    Raises:
        UserError: the network lacks a stated unit, a size is larger than the network.
    """
    if settings.units:
        units = parse_units(model, settings.units, Selection(unit=settings.unit, with_bias=rules.select.with_bias))
        return [Ranked("given", None, {len(units): units}, {len(units): "given"})]
    sizes = parse_sizes(settings.size, settings.unit)
    return [
        select(
            model,
            scores_of(ranking),
            sizes,
            criterion=ranking.criterion,
            group=ranking.group,
            everywhere=rules.threshold_everywhere and ranking.criterion == "weight_norm",
            smallest=settings.smallest,
            dropout_p=settings.dropout_p,
            seed=settings.seed,
            half=ranking.half,
            is_tested=ranking.half is not None or not (settings.cross_fit and ranking.looks_at_samples),
        )
        for whole in rankings
        for ranking in _with_halves(whole, data, settings)
    ]


def _with_halves(ranking: RankingSettings, data: Dataset, settings: StudySettings) -> list[RankingSettings]:
    """A ranking and, for verdicts, the same by each half of the samples, where the group has samples in both."""
    if not (settings.cross_fit and settings.controls and ranking.looks_at_samples):
        return [ranking]
    samples = data.samples(ranking.split)
    there = samples if ranking.group is None else samples.of_group(ranking.group)
    return [ranking, *(on_half(ranking, half) for half in (0, 1))] if len(there) > 1 else [ranking]


def select(
    model: nn.Module,
    scores: Scores,
    sizes: Sequence[int | float],
    *,
    criterion: str,
    group: str | None,
    everywhere: bool,
    smallest: bool,
    dropout_p: float,
    seed: int,
    half: int | None = None,
    is_tested: bool = True,
) -> Ranked:
    """The selected units of every size of one ranking.

    Arguments:
        half, is_tested: as of `Ranked`.
        everywhere: select single weights by a threshold applied to every parameter.
        smallest: select the smallest scores.
        spare: probability with which a selected weight is spared.

    Raises:
        UserError: a size is larger than the network, or all of its units are spared.
    """
    units, rules = {}, {}
    for size in sizes:
        n = count_of(scores, size)
        chosen = (
            by_threshold(model, scores, n, largest=not smallest) if everywhere else top(scores, n, largest=not smallest)
        )
        units[size] = random_dropout(chosen, dropout_p, derived_seed(seed, "dropout_p", size)) if dropout_p else chosen
        if not len(units[size]):
            raise UserError(f"size {size}: all {n} selected units are spared: lower --spare, or select more")
        which = "smallest" if smallest else "largest"
        rules[size] = f"{which} {n} of {scores.n} by {criterion}" + (f" on {group}" if group else "")
    return Ranked(criterion, group, units, rules, half, is_tested)
