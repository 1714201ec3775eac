"""Random sets are drawn in rounds, until the answer is clear."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from torch import nn

from ..console import log
from ..controls.null_sets import SetsOfManySizes
from ..networks.names import Reach
from ..statistics.damage import MIN_MATCHED, damage_matched
from ..statistics.sequential import is_decided, looks
from ..statistics.verdicts import answer_questions
from .measure import Measured
from .plan import Edits, Pool, Variant, damage_variants, matched_to, null_variants
from .question_tests import FamilyTests, effects_beside_random, influence_of_family
from .selected_sets import SelectedSet, families

PER_ROUND = 40
"""Random sets of any size per round. Those of the first round show which sizes give which damage."""
NEAREST = 15
"""The sizes of these sets, those nearest in damage, bound the sizes that are drawn afterwards."""
ENOUGH_MATCHED = 59
MAX_OF_ANY_SIZE = 320
MAX_FROM_ABOVE = 200
"""Draws for a set which too few random sets match, so that those with a larger damage take part."""
MAX_UNANSWERED = 80
"""Draws from one place in which there aren't enough sets with at least the damage of the selected set."""
REACHES: tuple[Reach, ...] = ("layer", "network")
"""Where they are drawn from: further away only if there are too few."""


class Asked(NamedTuple):
    """Where the third question is asked: of a set that is selective for a group."""

    group: int
    split: str


def first_null_sets(
    pools: Sequence[Pool], selected: Sequence[Variant], edits: Edits, controls: int
) -> Sequence[Variant]:
    """The null sets of the first round: those that are drawn in any case."""
    if not pools:
        return []
    wanted = looks(controls)[0]
    return null_variants([(pool, range(_available(pool, wanted))) for pool in pools], edits, matched_to(selected), 0)


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
        draws = [(pool, range(drawn, _available(pool, wanted))) for pool in undecided]
        variants = null_variants(draws, edits, digests, number)
        if variants:
            measured.add(variants)
        drawn = wanted
        undecided = [
            pool for pool in undecided if _available(pool, wanted) == wanted and not _all_decided(pool, measured)
        ]
        if not undecided or wanted == measured.settings.controls:
            break
        log(f"{wanted} null sets per ranking: {_rankings(len(undecided), len(pools))} not clear yet")


def _rankings(n: int, of: int) -> str:
    return f"{n} of {of} {'ranking' if of == 1 else 'rankings'} {'is' if n == 1 else 'are'}"


def _available(pool: Pool, wanted: int) -> int:
    return wanted if pool.n is None else min(wanted, pool.n)


def _all_decided(pool: Pool, measured: Measured) -> bool:
    """Whether every test of a pool's sets is decided."""
    sets = [one for one in measured.sets.selected_sets() if one.pool == pool.number]
    for split in measured.splits:
        for family in families(sets):
            found = influence_of_family(family, split)
            if found.n and not is_decided(found.p_decisive, found.n).all():
                return False
    return True


def draw_damage_matched_sets(
    measured: Measured, model: nn.Module, selected: Sequence[Variant], edits: Edits, tests: Sequence[FamilyTests]
) -> None:
    """Measure random sets of many sizes, for each selected set that is selective for a group.

    They come from the same layers. If no sets of these can match the damage of the selected set, which may be most of
    what its layers do, they come from the whole network.

    Arguments:
        measured: where they are added.
        model: the network.
        selected: the selected variants.
        edits: of the study.
        tests: the first two questions.
    """
    for one, asked in _questions_left(tests, measured):
        own = [v for v in selected if v.selected_set == one and v.pool >= 0]
        drawn = 0
        for reach in REACHES:
            sets = SetsOfManySizes(model, [v.edit.units for v in own], reach=reach, seed=measured.settings.seed)
            if not sets.most:
                continue
            drawn = _draw_sets(measured, own, sets, edits, asked, first=drawn)
            if _is_answered(measured.sets.selected_set(one), measured, asked):
                break


def _draw_sets(
    measured: Measured, own: Sequence[Variant], sets: SetsOfManySizes, edits: Edits, asked: Sequence[Asked], first: int
) -> int:
    """Measure random sets beside one selected set.

    First, sets of all sizes show which sizes give about its damage. Then sets of these sizes are drawn, until enough of
    them match the damage and the answer is clear.

    Arguments:
        measured: where they are added.
        own: the variants of the selected set.
        sets: draws them.
        edits: of the study.
        asked: where the third question is asked.
        first: number of random sets that stand beside it already.

    Returns:
        The number of random sets beside it.
    """
    drawn, sizes = first, None
    while True:
        controls = range(drawn, drawn + PER_ROUND)
        measured.add(damage_variants(own, sets, edits, controls, sizes, drawn // PER_ROUND))
        drawn = controls.stop
        current = measured.sets.selected_set(own[0].selected_set)
        if drawn - first >= MAX_OF_ANY_SIZE or _is_clear(current, measured, asked, drawn - first):
            return drawn
        if drawn - first >= MAX_UNANSWERED and not _is_answered(current, measured, asked):
            return drawn
        sizes = _sizes_of_same_damage(current, measured, asked[0], first)


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
                is_traced = pd.isna(one.about["group"]) or one.about["group"] == names[group]
                is_asked = measured.settings.every_question and group in selective and is_traced
                if one.pool >= 0 and (is_asked or (answers.selective and answers.influential is not None)):
                    asked.setdefault(one.number, []).append(Asked(group, of.split))
    return sorted(asked.items())


def _is_clear(one: SelectedSet, measured: Measured, asked: Sequence[Asked], drawn: int) -> bool:
    """Whether enough sets match the damage, and the answers would not change with more of them.

    Arguments:
        one: the selected set, with the random sets beside it.
        measured: what was measured.
        asked: where the third question is asked.
        drawn: number of random sets that were drawn from this place.
    """
    for group, split in asked:
        found = damage_matched(*effects_beside_random(one, measured.data, group, split))
        if found.n_near < MIN_MATCHED:
            if found.n < MIN_MATCHED or drawn < MAX_FROM_ABOVE:
                return False
        elif found.n < ENOUGH_MATCHED and not is_decided([found.p_localized, found.p_memorizing], found.n).all():
            return False
    return True


def _is_answered(one: SelectedSet, measured: Measured, asked: Sequence[Asked]) -> bool:
    """Whether enough sets match the damage for an answer. The damage is the same for every group and split."""
    group, split = asked[0]
    return damage_matched(*effects_beside_random(one, measured.data, group, split)).n >= MIN_MATCHED


def _sizes_of_same_damage(one: SelectedSet, measured: Measured, asked: Asked, first: int) -> tuple[float, float]:
    """Smallest and largest size of the random sets that are nearest in damage to the selected set.

    Arguments:
        one: the selected set, with the random sets beside it.
        measured: what was measured.
        asked: one group and split; the damage is the same for all.
        first: number of the first random set that counts.
    """
    own, random = effects_beside_random(one, measured.data, asked.group, asked.split)
    sizes = one.of_any_size.n_units[first:].astype(float)
    distance = np.abs(np.log(np.maximum(random.damage[first:], 1e-12) / max(float(own.damage[0]), 1e-12)))
    nearest = sizes[np.argsort(distance, kind="stable")[:NEAREST]]
    return float(nearest.min()), float(nearest.max())
