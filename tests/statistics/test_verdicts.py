"""The three questions, compared with SciPy, statsmodels, exhaustive enumeration and simulated nulls."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from max_statistic import step_down
from numpy.typing import ArrayLike
from scipy import stats
from statsmodels.stats.weightstats import CompareMeans

from spurious_memorization.statistics import permutation
from spurious_memorization.statistics.intervals import Difference, difference_of_means
from spurious_memorization.statistics.permutation import Selectivity
from spurious_memorization.statistics.verdicts import MIN_CONTROLS, Answers, answer_questions

QUICK = settings(max_examples=40, deadline=None)
SEEDS = st.integers(0, 2**32)


# 1. influence


def influence(selected: ArrayLike, controls: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """The test, of drops."""
    return permutation.influence(-np.asarray(selected, float), -np.asarray(controls, float))


def selectivity(drop: ArrayLike, *arguments: object, **options: object) -> Selectivity:
    """The test, of drops."""
    return permutation.selectivity(-np.asarray(drop, float), *arguments, **options)  # type: ignore[arg-type]


def selective(difference: float, p: float, overlap: float, n_minority: int, n_majority: int) -> Selectivity:
    return Selectivity(difference=difference, p=p, overlap=overlap, n_minority=n_minority, n_majority=n_majority)


def contrasted(value: float, low: float, high: float, n_first: int, n_second: int) -> Difference:
    return Difference(value=value, low=low, high=high, n_first=n_first, n_second=n_second)


def drawn_drops(seed: int, n: int, questions: int, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """A selected set and its controls, with many ties: multiples of 1 / levels."""
    rng = np.random.default_rng(seed)
    return rng.integers(-1, levels, questions) / levels, rng.integers(-2, levels, (n, questions)) / levels


def in_a_loop(selected: np.ndarray, controls: np.ndarray) -> list[float]:
    """Adjusted p-values by the closure principle: the largest of the p-values of every family of questions to which
    one belongs, each by its largest studentized drop."""
    n, questions = controls.shape
    rows = [list(selected), *map(list, controls)]
    z = [[0.0] * questions for _ in rows]
    for q in range(questions):
        column = [row[q] for row in rows]
        middle = sum(column) / len(column)
        spread = math.sqrt(sum((value - middle) ** 2 for value in column) / len(column))
        for row, value in enumerate(column):
            z[row][q] = (value - middle) / spread if spread > 1e-9 else 0.0
    adjusted = [0.0] * questions
    for size in range(1, questions + 1):
        for family in itertools.combinations(range(questions), size):
            largest = [max(row[q] for q in family) for row in z]
            p = sum(value >= largest[0] - 1e-9 for value in largest) / (n + 1)
            for q in family:
                adjusted[q] = max(adjusted[q], p)
    return adjusted


@QUICK
@given(seed=SEEDS, n=st.integers(1, 6), levels=st.sampled_from([1, 2, 4, 8, 16]))
def test_p_of_one_question_is_scipys(seed, n, levels):
    """SciPy takes no sample of one, so that it permutes all values, the first of which stands for the selected set."""
    selected, controls = drawn_drops(seed, n, 1, levels)
    p, adjusted = influence(selected, controls)
    assert p[0] == pytest.approx(scipys_p(np.append(selected, controls)))
    assert adjusted[0] == p[0]


def scipys_p(values: np.ndarray) -> float:
    """Exact p of the first value against the others, by all permutations; difference of means."""
    found = stats.permutation_test(
        (values,),
        lambda x, axis: x[..., 0] - x[..., 1:].mean(axis),
        permutation_type="pairings",
        n_resamples=np.inf,
        alternative="greater",
        vectorized=True,
    )
    assert len(found.null_distribution) == math.factorial(len(values))
    return float(found.pvalue)


@QUICK
@given(seed=SEEDS, n=st.integers(1, 40), questions=st.integers(1, 5), levels=st.integers(1, 12))
def test_adjusted_p_is_that_of_every_family_of_questions(seed, n, questions, levels):
    selected, controls = drawn_drops(seed, n, questions, levels)
    p, adjusted = influence(selected, controls)
    np.testing.assert_allclose(adjusted, in_a_loop(selected, controls))
    np.testing.assert_allclose(adjusted, step_down(selected, controls))
    assert (adjusted >= p - 1e-12).all()
    assert ((adjusted > 0) & (adjusted <= 1)).all()
    np.testing.assert_allclose((adjusted * (n + 1)).round(), adjusted * (n + 1))


@QUICK
@given(seed=SEEDS, questions=st.integers(2, 6))
def test_the_first_step_is_scipys_test_of_the_maximum(seed, questions):
    rng = np.random.default_rng(seed)
    drops = rng.normal(size=(7, 1)) + rng.normal(size=(7, questions))
    _, adjusted = influence(drops[0], drops[1:])
    largest = ((drops - drops.mean(0)) / drops.std(0)).max(1)
    assert adjusted.min() == pytest.approx(scipys_p(np.round(largest * 2**30)))  # sums without rounding


@QUICK
@given(seed=SEEDS, n=st.integers(2, 30), where=st.sets(st.integers(0, 4), min_size=1, max_size=4), own=st.booleans())
def test_what_is_not_asked_changes_nothing_else(seed, n, where, own):
    selected, controls = drawn_drops(seed, n, 5, 10)
    here = sorted(where)
    kept = [q for q in range(5) if q not in where]
    if own:
        selected[here] = np.nan
    else:
        controls[seed % n, here] = np.nan
    for found, alone in zip(influence(selected, controls), influence(selected[kept], controls[:, kept]), strict=True):
        assert np.isnan(found[here]).all()
        assert found[kept].tolist() == alone.tolist()


def test_nothing_to_compare_with():
    for found in (*influence([0.5, 0.1], np.empty((0, 2))), *influence([np.nan], [[0.1], [0.2]])):
        assert np.isnan(found).all()
    assert [len(found) for found in influence([0.5, 0.1], np.empty((0, 2)))] == [2, 2]


def test_without_spread_nothing_is_shown():
    for drop in (0.0, 0.3):
        p, adjusted = influence([drop, 0.9], [[drop, x / 200] for x in range(99)])
        assert (p[0], adjusted[0]) == (1, 1)
        assert (p[1], adjusted[1]) == (0.01, 0.01)


def test_influence_by_hand():
    """Two questions and four controls, of which one reaches the first drop and another the second."""
    controls = [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]]
    p, adjusted = influence([1.0, 1.0], controls)
    assert p.tolist() == [0.4, 0.4]
    assert adjusted.tolist() == [0.6, 0.6]  # in either question
    p, adjusted = influence([-1.0, 1.0], controls)
    assert p.tolist() == [1.0, 0.4]
    # The first drop is 1.58 deviations below the mean, that of a control 1.58 above: more than the second one's 1.22.
    assert adjusted.tolist() == [1.0, 0.6]
    assert influence([3.0, 3.0], controls)[1].tolist() == [0.2, 0.2]


def family_wise(n: int, n_samples: int, times: int, heavy: bool) -> int:
    """How often any question is answered wrongly where the selected set is one of its controls' kind: 3 sizes x 4
    groups. A unit's own strength is in all its questions, and larger sets hold the smaller ones."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(times):
        unit = rng.exponential(size=(n + 1, 1, 1)) * rng.random((1, 1, 4))
        strength = (unit + rng.exponential(size=(n + 1, 3, 4)) / 2).cumsum(1).reshape(n + 1, 12)
        drops = np.floor(strength * n_samples / 12) / n_samples if heavy else strength
        _, adjusted = influence(drops[0], drops[1:])
        wrong += (adjusted <= 0.05).any()
    return int(wrong)


@pytest.mark.parametrize(("n", "n_samples"), [(99, 4), (99, 20), (19, 6)])
def test_false_answers_about_influence_in_a_family(n, n_samples):
    """Of 4000 families at most 0.05 may hold a false answer. The bound is the 0.9999 quantile of Binomial(4000, 0.05),
    a rate of 0.063: a true rate of 0.075 would be found with probability 0.998, of 0.07 with 0.95."""
    assert family_wise(n, n_samples, 4000, heavy=True) <= stats.binom.ppf(0.9999, 4000, 0.05)


def test_without_ties_the_level_is_met():
    """With 99 controls and no ties the most significant question is answered falsely in exactly 0.05 of all families:
    in 6000, a rate of 0.036 or 0.066 would be found with probability 0.97."""
    low, high = stats.binom.ppf([0.001, 0.999], 6000, 0.05)
    assert low <= family_wise(99, 1, 6000, heavy=False) <= high


# 2. selectivity


def levelled(rng: np.random.Generator, a_level: int, extra: int, thirds: bool) -> tuple[np.ndarray, ...]:
    """Samples at four levels of margin, the minority's quartiles, so that like is compared with like: drops, members,
    margins."""
    level = np.concatenate([np.repeat(range(4), a_level), rng.integers(0, 4, extra)])
    member = np.arange(len(level)) < 4 * a_level
    drop = rng.integers(-3, 4, len(level)) / 3 if thirds else rng.integers(-1, 2, len(level)).astype(float)
    order = rng.permutation(len(level))
    return drop[order], member[order], np.array([-1.5, 0.25, 1.0, 4.0])[level[order]]


def enumerated(
    drop: np.ndarray, member: np.ndarray, margin: np.ndarray, half: np.ndarray
) -> tuple[float, float, list[float]]:
    """Difference and exact p over every reassignment within strata (same margin, same half), by enumeration, and the
    share of the minority that has majority samples there."""
    weighted: list[list[float]] = []
    observed, n_used = 0.0, 0
    for stratum in sorted({*zip(half.tolist(), margin.tolist(), strict=True)}):
        inside = [i for i in range(len(drop)) if (half[i], margin[i]) == stratum]
        ours = tuple(i for i in inside if member[i])
        if not ours or len(ours) == len(inside):
            continue

        def difference(chosen: tuple[int, ...], inside: list[int] = inside) -> float:
            others = [drop[i] for i in inside if i not in chosen]
            return len(chosen) * (sum(drop[i] for i in chosen) / len(chosen) - sum(others) / len(others))

        observed += difference(ours)
        n_used += len(ours)
        weighted.append([difference(chosen) for chosen in itertools.combinations(inside, len(ours))])
    if not n_used:
        return math.nan, math.nan, [0.0]
    sums = np.zeros(1)
    for values in weighted:
        sums = np.add.outer(sums, values).ravel()
    return observed / n_used, float((sums >= observed - 1e-9).mean()), [n_used / member.sum()]


@settings(max_examples=40, deadline=None)
@given(
    seed=SEEDS,
    a_level=st.integers(2, 3),
    extra=st.integers(1, 7),
    thirds=st.booleans(),
    two_halves=st.booleans(),
)
def test_selectivity_is_that_of_all_reassignments(seed, a_level, extra, thirds, two_halves):
    """The p-value is drawn, 9999 times: it must lie within 5 standard errors of the exact one. Repeats of a random edit
    give fractions."""
    rng = np.random.default_rng(seed)
    drop, member, margin = levelled(rng, a_level, extra, thirds)
    half = np.zeros(len(drop), int)
    if two_halves:
        drop, member, margin = (
            np.concatenate(pair) for pair in zip((drop, member, margin), levelled(rng, 2, 2, thirds), strict=True)
        )
        half = np.append(half, np.ones(10, int))
    exact_difference, exact_p, exact_overlap = enumerated(drop, member, margin, half)
    found = selectivity(drop, member, margin, half if two_halves else None, seed=seed)
    assert found.overlap == pytest.approx(exact_overlap[0])
    assert found.difference == pytest.approx(exact_difference)
    assert abs(found.p - exact_p) <= 5 * math.sqrt(exact_p * (1 - exact_p) / 9999) + 2e-4
    assert found.p >= 1e-4


@QUICK
@given(seed=SEEDS, m=st.integers(2, 6), n=st.integers(2, 7))
def test_one_stratum_is_scipys_permutation_test(seed, m, n):
    rng = np.random.default_rng(seed)
    ours, others = rng.integers(0, 2, m).astype(float), rng.integers(-1, 2, n).astype(float)
    found = selectivity(np.append(ours, others), np.arange(m + n) < m, np.full(m + n, 2.5), seed=seed)
    theirs = stats.permutation_test(
        (ours, others),
        lambda a, b, axis: a.mean(axis) - b.mean(axis),
        n_resamples=np.inf,
        alternative="greater",
        vectorized=True,
    )
    assert found.difference == pytest.approx(theirs.statistic)
    assert abs(found.p - theirs.pvalue) <= 5 * math.sqrt(theirs.pvalue * (1 - theirs.pvalue) / 9999) + 2e-4
    assert (found.overlap, found.n_minority, found.n_majority) == (1, m, n)


def test_selectivity_by_hand():
    """Two members at each of four margins. Of the majority none is at the last one, and one is at a margin of its own
    half alone."""
    margin = np.array([0, 0, 1, 1, 2, 2, 3, 3, 0, 0, 1, 2, 2, 2])
    drop = np.array([1, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 0, 0, 1])
    member = np.arange(14) < 8
    found = selectivity(drop, member, margin)
    # (1/2 - 0) * 2 + (1 - 1) * 2 + (0 - 1/3) * 2, over 6 members
    assert found.difference == pytest.approx((1 + 0 - 2 / 3) / 6)
    assert (found.n_minority, found.n_majority, found.overlap) == (6, 6, 0.75)


def test_selectivity_without_a_majority_or_a_minority():
    for member in (np.ones(8, bool), np.zeros(8, bool)):
        found = selectivity(np.ones(8), member, np.arange(8.0))
        assert math.isnan(found.difference)
        assert math.isnan(found.p)
        assert (found.overlap, found.n_minority, found.n_majority) == (0, 0, 0)
    nothing = selectivity([], [], [])
    assert math.isnan(nothing.p)
    assert nothing.overlap == 0


def test_a_half_is_compared_with_itself_alone():
    """Units that were selected on one half drop every sample of the other, those of the second drop none: the minority
    is mostly in the first, and yet it is no more hurt than its majority."""
    half = np.repeat([0, 1], [60, 60])
    member = np.concatenate([np.arange(60) < 32, np.arange(60) < 8])
    margin = np.tile(np.arange(4.0), 30)
    drop = (half == 0).astype(float)
    together, apart = selectivity(drop, member, margin), selectivity(drop, member, margin, half)
    assert together.difference > 0.3
    assert together.p < 0.001
    assert (apart.difference, apart.p) == (0, 1)
    # Members of a half in which there is no majority are not compared with that of the other.
    alone = selectivity(drop, member, margin, np.where(member & (np.arange(120) >= 60), 2, half))
    assert (alone.n_minority, alone.overlap) == (32, 0.8)
    # The difference is the mean of both halves' by members, whatever the halves are called.
    rng = np.random.default_rng(0)
    drop = rng.integers(0, 2, 120).astype(float)
    parts = [selectivity(drop[half == h], member[half == h], margin[half == h]) for h in (0, 1)]
    whole = selectivity(drop, member, margin, half)
    by_members = sum(part.difference * part.n_minority for part in parts) / sum(part.n_minority for part in parts)
    assert whole.difference == pytest.approx(by_members)
    assert selectivity(drop, member, margin, 7 - 3 * half).difference == pytest.approx(whole.difference)


@QUICK
@given(seed=SEEDS, accuracy_change=st.integers(-5, 5), power=st.integers(-3, 3))
def test_the_scale_of_margins_does_not_matter(seed, accuracy_change, power):
    rng = np.random.default_rng(seed)
    margin = rng.integers(-1000, 1000, 60) / 64
    drop, member = rng.integers(-1, 2, 60), rng.random(60) < 0.3
    assume(member.any())
    one = selectivity(drop, member, margin, n_permutations=199)
    assert repr(selectivity(drop, member, (margin + accuracy_change) * 2.0**power, n_permutations=199)) == repr(one)


def test_a_margin_explains_a_drop():
    """What only depends on the margin before the edit is not selective, however much nearer the minority is to the
    border; what depends on the group is."""
    rng = np.random.default_rng(0)
    member = np.arange(1200) < 200
    margin = rng.normal(np.where(member, 1.0, 2.5), 1.0)
    of_margin = (rng.random(1200) < np.clip(1 - margin / 2, 0, 1)).astype(float)
    raw = of_margin[member].mean() - of_margin[~member].mean()
    assert raw > 0.25
    explained = selectivity(of_margin, member, margin)
    assert abs(explained.difference) < 0.4 * raw
    assert explained.overlap > 0.9
    of_group = np.where(member, rng.random(1200) < 0.5, of_margin)
    held = selectivity(np.where(member & (margin > 1), 1, of_group), member, margin)
    assert held.difference > 0.2
    assert held.p < 0.001


def test_draws_follow_from_the_seed():
    rng = np.random.default_rng(3)
    drop, member, margin = rng.integers(0, 2, 200), np.arange(200) < 40, rng.normal(size=200)
    one, two, other = (selectivity(drop, member, margin, seed=seed) for seed in (1, 1, 2))
    assert one == two
    assert one != other
    assert abs(one.p - other.p) < 0.05
    assert selectivity(drop, member, margin, n_permutations=19).p * 20 == pytest.approx(
        round(selectivity(drop, member, margin, n_permutations=19).p * 20)
    )


FLIPS = {
    "near the border": lambda margin, rng: margin <= rng.exponential(0.5, len(margin)),
    "all": lambda margin, rng: np.ones(len(margin), bool),
    "far from it": lambda margin, rng: rng.random(len(margin)) < margin / 2,
}


@pytest.mark.parametrize("flips", FLIPS)
@pytest.mark.parametrize(("m", "n"), [(5, 60), (10, 100), (20, 100)])
def test_false_answers_about_selectivity(flips, m, n):
    """Membership is drawn, half by half, and drops depend on the margin: at most 0.05 may be called selective. Of 800
    the 0.9999 quantile of Binomial(800, 0.05) is a rate of 0.081: a true rate of 0.11 would be found with probability
    0.995, of 0.1 with 0.96."""
    rng = np.random.default_rng([m, n])
    wrong = 0
    for number in range(800):
        margin = rng.normal(0.3, 1.0, m + n)
        half = np.arange(m + n) % 2
        before = margin > 0
        drop = before.astype(float) - (before & ~FLIPS[flips](margin, rng))
        member = np.zeros(m + n, bool)
        for h in (0, 1):
            member[rng.permutation(np.flatnonzero(half == h))[: (m + h) // 2]] = True
        wrong += selectivity(drop, member, margin, half, n_permutations=199, seed=number).p <= 0.05
    assert wrong <= stats.binom.ppf(0.9999, 800, 0.05)


@pytest.mark.parametrize("accuracy_change", [0.0, 1.0])
def test_within_strata_selectivity_meets_its_level(accuracy_change):
    """Membership is drawn within four levels of margin with shares that depend on the level, and drops depend on it
    too: 0.05 of 600 are called selective at most; without ties just as many. Found with probability 0.96: a rate of
    0.11; with 0.8, without ties, one of 0.015."""
    rng = np.random.default_rng(int(accuracy_change))
    wrong = 0
    for number in range(600):
        level = np.repeat(range(4), [60, 40, 25, 16])
        member = np.concatenate([rng.permutation(n) < 8 for n in (60, 40, 25, 16)])
        noise = rng.normal(size=len(level))
        drop = (noise < level / 3 - accuracy_change).astype(float) if accuracy_change else noise - level
        wrong += selectivity(drop, member, level.astype(float), n_permutations=199, seed=number).p <= 0.05
    assert wrong <= stats.binom.ppf(0.9999, 600, 0.05)
    assert wrong >= (0 if accuracy_change else stats.binom.ppf(0.0001, 600, 0.05))


# 3. memorization


@QUICK
@given(seed=SEEDS, n=st.integers(2, 40), m=st.integers(2, 40), level=st.sampled_from([0.9, 0.95, 0.99]))
def test_the_contrast_is_that_of_statsmodels(seed, n, m, level):
    rng = np.random.default_rng(seed)
    train, unseen = rng.normal(1, 3, n), rng.exponential(1, m)
    found = difference_of_means(train, unseen, level)
    low, high = CompareMeans.from_data(train, unseen).tconfint_diff(alpha=1 - level, usevar="unequal")
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-9), pytest.approx(high, abs=1e-9))
    assert found.value == pytest.approx(train.mean() - unseen.mean())
    assert (found.n_first, found.n_second) == (n, m)
    assert difference_of_means(train, unseen) == difference_of_means(train, unseen, 0.95)
    back = difference_of_means(unseen, train, level)
    assert (back.value, back.low, back.high) == pytest.approx((-found.value, -found.high, -found.low))


@pytest.mark.parametrize(("n", "m"), [(0, 0), (1, 5), (5, 1), (0, 9), (9, 0)])
def test_too_few_samples_have_no_contrast(n, m):
    found = difference_of_means(np.arange(n), np.arange(m))
    assert all(math.isnan(value) for value in (found.value, found.low, found.high))
    assert (found.n_first, found.n_second) == (n, m)


def test_contrasts_without_spread():
    assert difference_of_means([2, 2, 2], [0.5, 0.5]) == contrasted(1.5, 1.5, 1.5, 3, 2)
    assert difference_of_means([0, 0], [0, 0, 0]) == contrasted(0, 0, 0, 2, 3)
    one_sided = difference_of_means([0, 1, 2], [5, 5, 5, 5])
    low, high = CompareMeans.from_data([0, 1, 2], [5, 5, 5, 5]).tconfint_diff(usevar="unequal")
    assert (one_sided.low, one_sided.high) == pytest.approx((low, high))


def test_contrasts_cover():
    """Where both sides are alike the lower bound is above 0 in about 0.025 of 500, also where they are of unequal
    number and spread: a rate of 0.08 would be found with probability 0.98."""
    rng = np.random.default_rng(0)
    for n, m, spread in ((8, 100, 1.0), (100, 8, 3.0), (12, 12, 0.3)):
        wrong = sum(difference_of_means(rng.normal(size=n), rng.normal(0, spread, m)).low > 0 for _ in range(500))
        assert stats.binom.ppf(0.0001, 500, 0.025) <= wrong <= stats.binom.ppf(0.9999, 500, 0.025)


# the verdict

YES = selective(0.4, 0.001, 1.0, 20, 80)
CONTRAST = contrasted(1.0, 0.2, 1.8, 20, 20)


def changed(**changes: object) -> Answers:
    recorded = {
        "accuracy_change": -0.5,
        "p_influential": 0.01,
        "n_controls": 99,
        "norm_ratio": 1.0,
        "selective": YES,
        "contrast": CONTRAST,
        **changes,
    }
    return answer_questions(**recorded)  # type: ignore[arg-type]


CASES = [
    ({}, (True, True, True), "memorizing", ""),
    ({"contrast": contrasted(1, -0.1, 2, 9, 9)}, (True, True, False), "critical", ""),
    ({"contrast": contrasted(1, 0.0, 2, 9, 9)}, (True, True, False), "critical", ""),
    ({"contrast": None}, (True, True, None), "critical", ""),
    (
        {"contrast": difference_of_means([1, 2], [1])},
        (True, True, None),
        "critical",
        "no unseen samples of this group were measured",
    ),
    ({"contrast": difference_of_means([1, 2], []), "selective": None}, (True, None, None), "influential", ""),
    ({"selective": None}, (True, None, True), "influential", ""),
    ({"selective": selective(0.4, 0.06, 1.0, 20, 80)}, (True, False, True), "influential", ""),
    ({"selective": selective(0.4, 0.05, 1.0, 20, 80)}, (True, True, True), "memorizing", ""),
    ({"selective": selective(0.049, 0.001, 1.0, 20, 80)}, (True, False, True), "influential", ""),
    ({"selective": selective(0.05, 0.001, 1.0, 20, 80)}, (True, True, True), "memorizing", ""),
    ({"selective": selective(0.15 - 0.1, 0.001, 1.0, 20, 80)}, (True, True, True), "memorizing", ""),
    ({"selective": selective(0.4, 0.001, 0.5, 20, 80)}, (True, True, True), "memorizing", ""),
    (
        {"selective": selective(0.4, 0.001, 0.49, 20, 80)},
        (True, None, True),
        "influential",
        "only 49% of the group have majority samples of their label and margin",
    ),
    (
        {"selective": selective(math.nan, math.nan, 0.0, 0, 0)},
        (True, None, True),
        "influential",
        "only 0% of the group have majority samples",
    ),
    ({"p_influential": 0.05}, (True, True, True), "memorizing", ""),
    ({"p_influential": 0.0501}, (False, True, True), "selective", ""),
    ({"p_influential": 0.3, "selective": None}, (False, None, True), "none", ""),
    ({"p_influential": 0.3, "selective": selective(0, 1, 1, 9, 9)}, (False, False, True), "none", ""),
    ({"accuracy_change": -0.0}, (False, True, True), "selective", ""),  # controls that gain don't make it influential
    ({"accuracy_change": 0.2, "selective": None}, (False, None, True), "none", ""),
    (
        {"p_influential": math.nan},
        (None, True, True),
        "no verdict",
        "the controls were measured on no sample of this group",
    ),
    ({"n_controls": 18}, (None, True, True), "no verdict", "18 controls: at least 19 are needed"),
    ({"n_controls": 19, "p_influential": 0.05}, (True, True, True), "memorizing", ""),
    (
        {"n_controls": 0, "p_influential": math.nan},
        (None, True, True),
        "no verdict",
        "0 controls: at least 19 are needed",
    ),
    ({"norm_ratio": math.nan}, (True, True, True), "memorizing", ""),
    ({"norm_ratio": 0.5}, (True, True, True), "memorizing", ""),
    ({"norm_ratio": 2.0}, (True, True, True), "memorizing", ""),
    ({"norm_ratio": 0.49}, (None, True, True), "no verdict", "their norm is 0.49 times the norm of the selected set"),
    ({"norm_ratio": 2.1}, (None, True, True), "no verdict", "no matched controls: their norm is 2.1 times"),
]


@pytest.mark.parametrize(("changes", "expected", "verdict", "reason"), CASES)
def test_answers(changes, expected, verdict, reason):
    found = changed(**changes)
    assert (found.influential, found.selective, found.memorizing) == expected
    assert found.verdict == verdict
    assert reason in found.reason
    assert bool(found.reason) == bool(reason)
    for part in (found.influential, found.selective, found.memorizing):
        assert part is None or type(part) is bool


def test_several_reasons_are_all_given():
    found = changed(n_controls=3, selective=selective(0, 1, 0.1, 1, 1), contrast=difference_of_means([1], []))
    assert found.reason.count("; ") == 2
    assert found.verdict == "no verdict"


@pytest.mark.parametrize("influential", [True, False, None])
@pytest.mark.parametrize("selective", [True, False, None])
@pytest.mark.parametrize("memorizing", [True, False, None])
def test_the_verdict_is_the_strongest_word(influential, selective, memorizing):
    verdict = Answers(influential=influential, selective=selective, memorizing=memorizing).verdict
    assert (verdict == "no verdict") == (influential is None)
    assert (verdict in ("critical", "memorizing")) == bool(influential and selective)
    assert (verdict == "memorizing") == bool(influential and selective and memorizing)
    assert (verdict == "influential") == (influential is True and not selective)
    assert (verdict == "selective") == (influential is False and selective is True)
    assert (verdict == "none") == (influential is False and not selective)


def test_with_the_least_controls_a_verdict_is_possible_and_with_fewer_not():
    for n in (MIN_CONTROLS - 1, MIN_CONTROLS):
        p, _ = influence([1.0], np.zeros((n, 1)))
        assert (p[0] <= 0.05) == (n == MIN_CONTROLS)
