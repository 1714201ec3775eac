"""Which units a study selects: the first of every ranking, for each size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from ..criteria.presets import TracingRules
from ..criteria.scores import Scores, by_threshold, count_of, random_dropout, top
from ..datasets.samples import Dataset
from ..errors import UserError
from ..networks.selection import Selection
from ..networks.units import Units, parse_units
from ..seeds import derived_seed
from .ranking_settings import RankingSettings
from .settings import StudySettings, parse_sizes


@dataclass(frozen=True, eq=False, kw_only=True)
class SelectedUnits:
    """The selected units of one ranking, for each size.

    Arguments:
        criterion, group: of the ranking.
        units: of each size.
        rule: in words, how they were selected, for each size.
        half: the half of the samples on which they were selected; None for all samples, or for a criterion that needs
            none.
        is_tested: whether they get controls and verdicts; otherwise they are only shown.
    """

    criterion: str
    group: str | None
    units: Mapping[int | float, Units]
    rule: Mapping[int | float, str]
    half: int | None = None
    is_tested: bool = True

    @property
    def measured_halves(self) -> frozenset[int]:
        """The halves of the samples on which these units are measured: those on which they were not selected."""
        return frozenset((0, 1)) if self.half is None else frozenset([1 - self.half])

    @property
    def largest(self) -> Units:
        """The units of the largest size."""
        return max(self.units.values(), key=len)


def select_units(
    model: nn.Module,
    data: Dataset,
    settings: StudySettings,
    rankings: Sequence[RankingSettings],
    rules: TracingRules,
    scores_of: Callable[[RankingSettings], Scores],
) -> list[SelectedUnits]:
    """The selected units of every ranking of a study.

    If a criterion needs samples and verdicts are wanted, units are also selected by each half of the samples.

    Arguments:
        scores_of: gives the scores of a ranking.

    Raises:
        UserError: the network lacks a given unit, or has fewer units than a size.
    """
    if settings.units:
        units = parse_units(model, settings.units, Selection(unit=settings.unit, with_bias=rules.select.with_bias))
        return [SelectedUnits(criterion="given", group=None, units={len(units): units}, rule={len(units): "given"})]
    sizes = parse_sizes(settings.size, settings.unit)
    return [
        _first_units(model, scores_of(ranking), sizes, ranking, settings, rules)
        for whole in rankings
        for ranking in _with_halves(whole, data, settings)
    ]


def _with_halves(ranking: RankingSettings, data: Dataset, settings: StudySettings) -> list[RankingSettings]:
    """A ranking and, for verdicts, the same ranking by each half of the samples, if the group has two samples."""
    if not (settings.cross_fit and settings.controls and ranking.needs_samples):
        return [ranking]
    samples = data.samples(ranking.split)
    samples = samples if ranking.group is None else samples.of_group(ranking.group)
    return [ranking, *(ranking.on_half(half) for half in (0, 1))] if len(samples) > 1 else [ranking]


def _first_units(
    model: nn.Module,
    scores: Scores,
    sizes: Sequence[int | float],
    ranking: RankingSettings,
    settings: StudySettings,
    rules: TracingRules,
) -> SelectedUnits:
    """The first units of a ranking, for each size.

    Raises:
        UserError: a size is larger than the network, or `dropout_p` leaves no unit.
    """
    largest = not settings.smallest
    by_global_threshold = rules.threshold_everywhere and ranking.criterion == "weight_norm"
    which = "largest" if largest else "smallest"
    units, rule = {}, {}
    for size in sizes:
        n = count_of(scores, size)
        first = (
            by_threshold(model, scores, n, largest=largest) if by_global_threshold else top(scores, n, largest=largest)
        )
        if settings.dropout_p:
            first = random_dropout(first, settings.dropout_p, derived_seed(settings.seed, "dropout", size))
        if not len(first):
            raise UserError(f"size {size}: --dropout-p leaves none of the {n} selected units: lower it, or select more")
        units[size] = first
        rule[size] = f"{which} {n} of {scores.n} by {ranking.criterion}" + (
            f" on {ranking.group}" if ranking.group else ""
        )
    return SelectedUnits(
        criterion=ranking.criterion,
        group=ranking.group,
        units=units,
        rule=rule,
        half=ranking.half,
        is_tested=ranking.half is not None or not (settings.cross_fit and ranking.needs_samples),
    )
