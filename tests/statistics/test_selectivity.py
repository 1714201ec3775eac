"""Question 2: matched sets of near margins, compared with a slow search, all permutations and simulated nulls."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from max_statistic import step_down
from scipy import stats

from spurious_memorization.statistics.selectivity import GroupEffects, Selectivity, matched_sets, selectivity

QUICK = settings(max_examples=40, deadline=None)
SEEDS = st.integers(0, 2**32)


def effects_of(
    member: Sequence[bool] | np.ndarray, margin: np.ndarray, *drops: np.ndarray, half: np.ndarray | None = None
) -> GroupEffects:
    """Effects of edits that lower accuracy and margin by as much."""
    changes = -np.array(drops, float)
    return GroupEffects(
        is_minority=np.asarray(member, bool),
        half=np.zeros(len(margin), int) if half is None else half,
        margin_before=np.asarray(margin, float),
        accuracy_change=changes,
        margin_change=changes,
    )


def of_one(member: np.ndarray, margin: np.ndarray, drop: np.ndarray, **options: object) -> Selectivity:
    half = options.pop("half", None)
    ((found,),) = selectivity([effects_of(member, margin, drop, half=half)], **options)  # type: ignore[arg-type]
    return found


def slowly(margin: np.ndarray, member: np.ndarray, half: np.ndarray) -> dict[int, list[int]]:
    """The majority samples beside each minority sample: five turns, in each of which every minority sample takes the
    nearest one that is left of its half, from below first and then from above."""
    beside: dict[int, list[int]] = {i: [] for i in np.flatnonzero(member).tolist()}
    for h in set(half.tolist()):
        own = [i for i in beside if half[i] == h]
        free = [i for i in range(len(margin)) if half[i] == h and not member[i]]
        within = margin[[*own, *free]].std() / 4 if own else 0.0
        for turn in range(5):
            for i in sorted(own, key=lambda i: (margin[i], i), reverse=turn % 2 == 1):
                near = [j for j in free if abs(margin[j] - margin[i]) <= within]
                if near:
                    nearest = min(near, key=lambda j: (abs(margin[j] - margin[i]), margin[j]))
                    beside[i].append(nearest)
                    free.remove(nearest)
    return beside


@settings(max_examples=150, deadline=None)
@given(
    seed=SEEDS,
    n=st.integers(1, 60),
    share=st.sampled_from([0.1, 0.3, 0.7]),
    halves=st.integers(1, 2),
    ties=st.booleans(),
)
def test_matched_sets_are_those_of_a_slow_search(seed, n, share, halves, ties):
    rng = np.random.default_rng(seed)
    margin = rng.integers(-20, 20, n) / 8 if ties else rng.normal(size=n)
    member, half = rng.random(n) < share, rng.integers(0, halves, n)
    sets, expected = matched_sets(margin, member, half), slowly(margin, member, half)
    found = {int(row[0]): row[1:][row[1:] >= 0].tolist() for row in sets}
    assert set(found) == {i for i, beside in expected.items() if beside}
    for i, beside in found.items():
        assert [margin[j] for j in beside] == [margin[j] for j in expected[i]]  # equal ones stand for each other
        assert (half[beside] == half[i]).all()
    used = [j for beside in found.values() for j in beside]
    assert len(used) == len(set(used))
    assert not member[used].any()
    if not ties:
        assert found == {i: beside for i, beside in expected.items() if beside}


def every_permutation(effects: GroupEffects) -> np.ndarray:
    """Difference of each edit for every choice of one member of each set; the observed one first, [choices, edits]."""
    beside = slowly(effects.margin_before, effects.is_minority, effects.half)
    sets = [[i, *others] for i, others in beside.items() if others]
    rows = []
    for chosen in itertools.product(*sets):
        of_edits = []
        for change in effects.accuracy_change:
            each = [
                -change[one] + np.mean([change[other] for other in members if other != one])
                for one, members in zip(chosen, sets, strict=True)
            ]
            of_edits.append(np.mean(each))
        rows.append(of_edits)
    return np.array(rows)


def tiny_group(seed: int, edits: int, halves: int) -> GroupEffects:
    """Few samples, so that all permutations can be listed."""
    rng = np.random.default_rng(seed)
    member = np.arange(22) < 5
    half = np.arange(22) % halves
    drops = rng.integers(-1, 2, (edits, 22)) + member * rng.integers(0, 2, 22)
    return effects_of(member, rng.normal(size=22), *drops, half=half)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, halves=st.integers(1, 2))
def test_p_is_that_of_all_permutations(seed, halves):
    """The p-value is drawn, 9999 times: it must lie within 5 standard errors of the exact one."""
    effects = tiny_group(seed, 1, halves)
    every = every_permutation(effects)[:, 0] if slowly_matched(effects) else np.array([np.nan])
    ((found,),) = selectivity([effects], seed=seed)
    assert found.difference == pytest.approx(every[0], nan_ok=True)
    exact = (every >= every[0] - 1e-9).mean()
    assert math.isnan(found.p) == math.isnan(every[0])
    if not math.isnan(every[0]):
        assert abs(found.p - exact) <= 5 * math.sqrt(exact * (1 - exact) / 9999) + 2e-4
        assert found.p == found.p_margin  # the margins fall by as much here


def slowly_matched(effects: GroupEffects) -> bool:
    return any(slowly(effects.margin_before, effects.is_minority, effects.half).values())


@pytest.mark.parametrize("seed", range(4))
def test_several_edits_are_adjusted_over_the_same_permutations(seed):
    """Drops without ties, since the drawn standard deviations would break them."""
    rng = np.random.default_rng(seed)
    effects = effects_of(np.arange(22) < 5, rng.normal(size=22), *rng.normal(size=(3, 22)))
    every = every_permutation(effects)
    exact = step_down(every[0], every[1:])
    (found,) = selectivity([effects], seed=seed)
    assert [one.difference for one in found] == pytest.approx(every[0].tolist())
    assert [one.p for one in found] == pytest.approx(exact, abs=0.02)


def test_identical_edits_have_identical_p_values():
    """Were each edit permuted on its own, they would differ, and the adjusted ones would be larger."""
    effects = tiny_group(1, 1, 1)
    drop = -effects.accuracy_change[0]
    (alone,) = selectivity([effects])
    (found,) = selectivity([effects_of(effects.is_minority, effects.margin_before, drop, drop, drop)])
    assert found == alone * 3


def test_groups_form_one_family():
    rng = np.random.default_rng(0)
    member, margin = np.arange(60) < 10, rng.normal(size=60)
    groups = [effects_of(member, margin, rng.random(60) < 0.3 + 0.25 * member) for _ in range(4)]
    together = [found[0] for found in selectivity(groups)]
    alone = [selectivity([group])[0][0] for group in groups]
    assert [one.difference for one in together] == [one.difference for one in alone]
    assert sum(one.p for one in together) > sum(one.p for one in alone) + 0.1


def test_what_is_told_of_a_group():
    """Two minority samples at each of four margins far apart, and majority samples at three of them."""
    margin = np.append(np.repeat([0.0, 100.0, 200.0, 300.0], 2), [0, 0, 100, 200, 200, 200])
    member = np.arange(14) < 8
    drop = np.array([1, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 0, 1, 1])
    found = of_one(member, margin, drop)
    # At 0 each has one neighbor. At 100 the first to choose, the third sample, has the only one. At 200 the fifth takes
    # the first, the sixth the second, and then the sixth, from above, the third.
    assert (found.n_minority, found.n_majority, found.overlap) == (5, 6, 5 / 8)
    assert found.majority_change == pytest.approx(-(0 + 0 + 1 + 0 + 1) / 5)
    assert found.difference == pytest.approx((1 + 0 + 1 + 0 + 0) / 5 - 2 / 5)


def test_selectivity_without_a_majority_or_a_minority():
    for member in (np.ones(8, bool), np.zeros(8, bool)):
        found = of_one(member, np.arange(8.0), np.ones(8))
        assert math.isnan(found.difference)
        assert math.isnan(found.p)
        assert math.isnan(found.p_margin)
        assert math.isnan(found.majority_change)
        assert (found.overlap, found.n_minority, found.n_majority) == (0, 0, 0)
    nothing = of_one(np.zeros(0, bool), np.zeros(0), np.zeros(0))
    assert math.isnan(nothing.p)


def test_a_group_without_neighbors_changes_no_other():
    rng = np.random.default_rng(0)
    member, margin, drop = np.arange(60) < 10, rng.normal(size=60), rng.random(60) < 0.5
    group = effects_of(member, margin, drop)
    (far,) = selectivity([effects_of(member, margin + 100 * member, drop)])
    assert far[0].overlap == 0
    first, second = selectivity([group, effects_of(member, margin + 100 * member, drop)])
    assert first == selectivity([group])[0]
    assert repr(second) == repr(far)


def test_a_half_is_compared_with_itself_alone():
    """Units that were selected on one half drop every sample of the other, those of the second drop none: the minority
    is mostly in the first, and yet it is no more hurt than its majority."""
    half = np.repeat([0, 1], [60, 60])
    member = np.concatenate([np.arange(60) < 32, np.arange(60) < 8])
    margin = np.tile(np.arange(4.0), 30)
    drop = (half == 0).astype(float)
    together, apart = of_one(member, margin, drop), of_one(member, margin, drop, half=half)
    assert together.difference > 0.3
    assert together.p < 0.01
    assert (apart.difference, apart.p) == (0, 1)
    # Members of a half in which there is no majority are not compared with that of the other.
    alone = of_one(member, margin, drop, half=np.where(member & (np.arange(120) >= 60), 2, half))
    assert alone.n_minority <= 32
    assert alone.overlap == alone.n_minority / 40


@QUICK
@given(seed=SEEDS, shift=st.integers(-5, 5), power=st.integers(-3, 3))
def test_the_scale_of_margins_does_not_matter(seed, shift, power):
    rng = np.random.default_rng(seed)
    margin = rng.integers(-1000, 1000, 60) / 64
    drop, member = rng.integers(-1, 2, 60), np.arange(60) < 12
    one = of_one(member, margin, drop, n_permutations=199)
    assert repr(of_one(member, (margin + shift) * 2.0**power, drop, n_permutations=199)) == repr(one)


def test_draws_follow_from_the_seed():
    rng = np.random.default_rng(3)
    drop, member, margin = rng.integers(0, 2, 200), np.arange(200) < 40, rng.normal(size=200)
    one, two, other = (of_one(member, margin, drop, seed=seed) for seed in (1, 1, 2))
    assert one == two
    assert one != other
    assert abs(one.p - other.p) < 0.05
    few = of_one(member, margin, drop, n_permutations=19).p * 20
    assert few == pytest.approx(round(few))


FLIPS = {
    "near the border": lambda margin, rng: margin <= rng.exponential(0.5, len(margin)),
    "all": lambda margin, rng: np.ones(len(margin), bool),
    "far from it": lambda margin, rng: rng.random(len(margin)) < margin / 2,
}


@pytest.mark.parametrize("flips", FLIPS)
@pytest.mark.parametrize("shift", [0.0, -0.7])
def test_what_depends_on_the_margin_alone_is_not_selective(flips, shift):
    """Drops depend on the margin before the edit alone; the minority's margins may be lower. At most 0.05 may be called
    selective. Of 300 the 0.9999 quantile of Binomial(300, 0.05) is a rate of 0.103: a true rate of 0.15 would be found
    with probability 0.99."""
    rng = np.random.default_rng(abs(int(shift * 10)))
    member, half = np.arange(230) < 30, np.arange(230) % 2
    wrong, raw = 0, []
    for number in range(300):
        margin = rng.normal(1.2 + shift * member, 1.0)
        right = margin > 0
        drop = (right & FLIPS[flips](margin, rng)).astype(float)
        raw.append(drop[member].mean() - drop[~member].mean())
        found = of_one(member, margin, drop, half=half, n_permutations=199, seed=number)
        wrong += found.p <= 0.05
    assert wrong <= stats.binom.ppf(0.9999, 300, 0.05)
    if shift and flips == "near the border":
        assert np.mean(raw) > 0.03  # without matching it would look selective


def test_without_ties_the_level_is_met():
    """Membership has nothing to do with the drop: of 400 about 0.05 are called selective."""
    rng = np.random.default_rng(0)
    wrong = 0
    for number in range(400):
        margin, drop = rng.normal(size=(2, 120))
        wrong += of_one(np.arange(120) < 20, margin, drop, n_permutations=199, seed=number).p <= 0.05
    assert stats.binom.ppf(0.0001, 400, 0.05) <= wrong <= stats.binom.ppf(0.9999, 400, 0.05)


def test_what_depends_on_the_group_is_selective():
    """A minority of 20 of which half is lost, beside a majority of which a tenth is."""
    rng = np.random.default_rng(0)
    member, found = np.arange(400) < 20, 0
    for number in range(50):
        margin = rng.normal(np.where(member, 1.0, 2.5), 1.0)
        drop = rng.random(400) < np.where(member, 0.5, 0.1)
        one = of_one(member, margin, drop, n_permutations=199, seed=number)
        assert one.overlap > 0.6
        found += one.p <= 0.05
    assert found >= 45
