"""The tests behind the questions, on what a study has measured so far."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..datasets.samples import Dataset
from ..statistics.damage import SetEffects
from ..statistics.effects import contrast_of_group, selectivity_of_sets, set_effects
from ..statistics.influence import Influence, influence
from ..statistics.sample_effects import NO_EFFECTS, joined
from ..statistics.selectivity import Selectivity
from .measure import EffectsOfSplits
from .selected_sets import EffectsOfSets, SelectedSet, families


@dataclass(frozen=True, eq=False, kw_only=True)
class InfluenceOfFamily:
    """The first question for sets that differ only in their size.

    Arguments:
        tables: accuracy changes of each set, compared with its null sets, one row per group.
        answers: for each set, the p-values of the rows of its table.
        n: number of null sets.
    """

    tables: Sequence[pd.DataFrame]
    answers: Sequence[Influence]
    n: int

    @property
    def p_decisive(self) -> NDArray[np.float64]:
        """Of all tests, [tests]."""
        return np.concatenate([answer.p_decisive for answer in self.answers])


def influence_of_family(family: Sequence[SelectedSet], split: str) -> InfluenceOfFamily:
    """Rank each set among its null sets, on one split.

    Arguments:
        family: sets that differ only in their size.
        split: of the samples.
    """
    tables = [one.tested_changes(split) for one in family]
    changes, norms = [], []
    for one, table in zip(family, tables, strict=True):
        of_controls = one.null_sets.changes(split).reindex(columns=table["group"])
        changes.append(np.vstack([table["accuracy_change"], of_controls.to_numpy(float)]))
        of_norms = np.array([one.log_norm, *one.null_sets.log_norms().reindex(of_controls.index)])
        norms.append(np.repeat(of_norms[:, None], len(table), axis=1))
    n = min(map(len, changes))
    found = influence(np.hstack([of[:n] for of in changes]), np.hstack([of[:n] for of in norms]))
    ends = np.cumsum([len(table) for table in tables])[:-1]
    parts = [np.split(values, ends) for values in (found.p, found.p_adjusted, found.p_beyond_norm)]
    answers = [Influence(p=p, p_adjusted=a, p_beyond_norm=b) for p, a, b in zip(*parts, strict=True)]
    return InfluenceOfFamily(tables=tables, answers=answers, n=n - 1)


def selectivity_of_family(
    family: Sequence[SelectedSet], data: Dataset, measured: EffectsOfSets, *, seed: int
) -> list[dict[int, Selectivity]]:
    """Compare minority and majority samples of the same margin.

    Arguments:
        family: sets that differ only in their size.
        data: labels and groups.
        measured: effect of every selected set on each sample of one split.
        seed: of the permutations.

    Returns:
        For each set, the answer for each minority group.
    """
    by_group = selectivity_of_sets(data, [one.sample_effects(measured) for one in family], seed=seed)
    return [{group: answers[place] for group, answers in by_group.items()} for place in range(len(family))]


@dataclass(frozen=True, eq=False, kw_only=True)
class FamilyTests:
    """The first two questions for sets that differ only in their size, on one split.

    Arguments:
        split: of the samples.
        family: the sets.
        influence: answers to the first question.
        selectivity: answers to the second one: for each set, one per minority group.
    """

    split: str
    family: Sequence[SelectedSet]
    influence: InfluenceOfFamily
    selectivity: Sequence[Mapping[int, Selectivity]]


def tests_of_families(
    data: Dataset, sets: Sequence[SelectedSet], measured: EffectsOfSplits, *, seed: int
) -> list[FamilyTests]:
    """The first two questions for all selected sets, on every split.

    Arguments:
        data: labels and groups.
        sets: the selected sets; their null sets must have been measured.
        measured: for each split, the effect of every selected set on each sample.
        seed: of the permutations.
    """
    return [
        FamilyTests(
            split=split,
            family=family,
            influence=influence_of_family(family, split),
            selectivity=selectivity_of_family(family, data, of_samples, seed=seed),
        )
        for split, of_samples in measured.items()
        for family in families(sets)
    ]


def effects_beside_random(one: SelectedSet, data: Dataset, group: int, split: str) -> tuple[SetEffects, SetEffects]:
    """What a set does, and what the random sets of any size beside it do, on the same samples.

    Arguments:
        one: the set.
        data: labels and groups.
        group: whose drop and contrast are wanted.
        split: of the drop.
    """
    own = [one.tested_counts(of).assign(edit=0, split=of) for of in one.splits]
    random = [one.of_any_size.counted(of).assign(split=of) for of in one.splits]
    return (
        set_effects(pd.concat(own), data, group, split),
        set_effects(pd.concat(random), data, group, split),
    )


def p_of_contrasts(
    one: SelectedSet, data: Dataset, measured: EffectsOfSplits, groups: Iterable[int], *, seed: int
) -> dict[int, float]:
    """The p-value of each group's contrast itself, on all samples of the study.

    Arguments:
        one: the set.
        data: labels and groups.
        measured: for each split, the effect of every selected set on each sample.
        groups: in question.
        seed: of the permutations.

    Returns:
        {group: p}; nan if there are no training samples or no unseen ones.
    """
    of_splits = {split: one.sample_effects(of) for split, of in measured.items()}
    train = of_splits.pop("train", NO_EFFECTS)
    unseen = joined([NO_EFFECTS, *of_splits.values()])
    return {group: contrast_of_group(data, train, unseen, group, seed=seed) for group in groups}
