"""Random sets are drawn in rounds, until the answer is clear."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from torch import nn

from ..console import log
from ..controls.null_sets import SetsOfManySizes
from ..datasets.samples import Dataset
from ..statistics.damage import MIN_MATCHED, damage_matched
from ..statistics.sequential import is_decided, looks
from ..statistics.verdicts import answer_questions
from .measure import Measured
from .plan import Edits, Pool, Variant, damage_variants, matched_to, null_variants
from .question_tests import FamilyTests, effects_beside_random, influence_of_family
from .selected_sets import SelectedSet, families, selected_sets

FIRST_OF_ANY_SIZE = 40
"""Number of random sets of any size that are drawn first, to learn which sizes give which damage."""
NEAREST = 15
"""The sizes of these sets, those nearest in damage, bound the sizes that are drawn afterwards."""
PER_ROUND = 40
ENOUGH_MATCHED = 59
MAX_OF_ANY_SIZE = 320
MAX_FROM_ABOVE = 120
"""Draws for a set which too few random sets match, so that those with a larger damage take part."""


class Asked(NamedTuple):
    """Where the third question is asked: of a set that is selective for a group."""

    group: int
    split: str


def first_null_sets(pools: Sequence[Pool], selected: Sequence[Variant], edits: Edits, controls: int) -> list[Variant]:
    """The null sets of the first round: those that are drawn in any case."""
    if not pools:
        return []
    wanted = looks(controls)[0]
    digests = matched_to(selected)
    return [v for pool in pools for v in null_variants(pool, edits, range(_available(pool, wanted)), digests, 0)]


def draw_null_sets(measured: Measured, pools: Sequence[Pool], selected: Sequence[Variant], edits: Edits) -> None:
    """Measure null sets of each pool, until each of its tests is decided or all wanted null sets are drawn.

    Arguments:
        measured: where they are added.
        pools: of null sets.
        selected: the selected variants.
        edits: of the study.
    """
    if not pools:
        return
    digests = matched_to(selected)
    undecided, drawn = list(pools), 0
    for number, wanted in enumerate(looks(measured.settings.controls)):
        variants = [
            variant
            for pool in undecided
            for variant in null_variants(pool, edits, range(drawn, _available(pool, wanted)), digests, number)
        ]
        if variants:
            measured.add(variants)
        drawn = wanted
        results = measured.results
        undecided = [
            pool
            for pool in undecided
            if _available(pool, wanted) == wanted and not _all_decided(pool, measured, results)
        ]
        if not undecided or wanted == measured.settings.controls:
            break
        log(f"{wanted} null sets per ranking: {_rankings(len(undecided), len(pools))} not clear yet")


def _rankings(n: int, of: int) -> str:
    return f"{n} of {of} {'ranking' if of == 1 else 'rankings'} {'is' if n == 1 else 'are'}"


def _available(pool: Pool, wanted: int) -> int:
    return wanted if pool.n is None else min(wanted, pool.n)


def _all_decided(pool: Pool, measured: Measured, results: pd.DataFrame) -> bool:
    """Whether every test of a pool's sets is decided."""
    sets = [one for one in selected_sets(measured.variants) if one.pool == pool.number]
    for split in measured.splits:
        for family in families(sets):
            found = influence_of_family(family, results, split)
            if found.n and not is_decided(found.p_decisive, found.n).all():
                return False
    return True


def draw_damage_matched_sets(
    measured: Measured, model: nn.Module, selected: Sequence[Variant], edits: Edits, tests: Sequence[FamilyTests]
) -> None:
    """Measure random sets of many sizes, for each selected set that is selective for a group.

    First, sets of all sizes show which sizes give about the damage of the selected set. Then sets of these sizes are
    drawn, until enough of them match its damage and the answer is clear.

    Arguments:
        measured: where they are added.
        model: the network.
        selected: the selected variants.
        edits: of the study.
        tests: the first two questions.
    """
    for one, asked in _questions_left(tests, measured):
        own = [v for v in selected if v.selected_set == one and v.pool >= 0]
        sets = SetsOfManySizes(model, [v.edit.units for v in own], seed=measured.settings.seed)
        if not sets.most:
            continue
        drawn, number, sizes = 0, 0, None
        while True:
            controls = range(drawn, drawn + (PER_ROUND if drawn else FIRST_OF_ANY_SIZE))
            measured.add(damage_variants(own, sets, edits, controls, sizes, number))
            drawn, number = controls.stop, number + 1
            current, results = SelectedSet(number=one, variants=measured.variants), measured.results
            if drawn >= MAX_OF_ANY_SIZE or _is_clear(current, measured.data, results, asked, drawn):
                break
            sizes = _sizes_of_same_damage(current, measured.data, results, *asked[0])


def _questions_left(tests: Sequence[FamilyTests], measured: Measured) -> list[tuple[int, list[Asked]]]:
    """The numbers of the sets of which the third question is asked, with the groups and splits: those that are
    selective for a group, or every tested set about its own group where the settings ask for it."""
    asked: dict[int, list[Asked]] = {}
    names = measured.data.groups.names
    for of in tests:
        for one, table, first, selective in zip(
            of.family, of.influence.tables, of.influence.answers, of.selectivity, strict=True
        ):
            for group, change, p in zip(table["group"], table["accuracy_change"], first.p_decisive, strict=True):
                answers = answer_questions(
                    change, float(p), n_controls=of.influence.n, selective=selective.get(group), damage=None
                )
                is_traced = one.about["group"] in (None, names[group])
                is_asked = measured.settings.every_question and group in selective and is_traced
                if one.pool >= 0 and (is_asked or (answers.selective and answers.influential is not None)):
                    asked.setdefault(one.number, []).append(Asked(group, of.split))
    return sorted(asked.items())


def _is_clear(one: SelectedSet, data: Dataset, results: pd.DataFrame, asked: Sequence[Asked], drawn: int) -> bool:
    for group, split in asked:
        found = damage_matched(*effects_beside_random(one, data, results, group, split))
        if found.n_near < MIN_MATCHED:
            if found.n < MIN_MATCHED or drawn < MAX_FROM_ABOVE:
                return False
        elif found.n < ENOUGH_MATCHED and not is_decided([found.p_localized, found.p_memorizing], found.n).all():
            return False
    return True


def _sizes_of_same_damage(
    one: SelectedSet, data: Dataset, results: pd.DataFrame, group: int, split: str
) -> tuple[float, float]:
    """Smallest and largest size of the random sets that are nearest in damage to the selected set.

    The damage is the same for every group and split.
    """
    own, random = effects_beside_random(one, data, results, group, split)
    sizes = one.of_any_size.groupby("control")["n_units"].first().sort_index().to_numpy(float)
    distance = np.abs(np.log(np.maximum(random.damage, 1e-12) / max(float(own.damage[0]), 1e-12)))
    nearest = sizes[np.argsort(distance, kind="stable")[:NEAREST]]
    return float(nearest.min()), float(nearest.max())
