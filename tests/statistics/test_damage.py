"""Question 3: damage-matched sets and the ranks among them, by plain loops."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import spurious_memorization as sm
from spurious_memorization.engine.outcomes import Block
from spurious_memorization.statistics.counts import count
from spurious_memorization.statistics.damage import SetEffects, damage_matched, matching
from spurious_memorization.statistics.effects import set_effects

QUICK = settings(max_examples=60, deadline=None)
SEEDS = st.integers(0, 2**32)


def matched_by_hand(damage: float, others: Sequence[float]) -> set[int]:
    inside = [i for i, other in enumerate(others) if damage / 1.25 <= other <= damage * 1.25]
    if len(inside) < 19:
        above = sorted((other, i) for i, other in enumerate(others) if other > damage * 1.25)
        inside += [i for _, i in above[: 49 - len(inside)]]
    return set(inside)


@QUICK
@given(seed=SEEDS, n=st.integers(0, 150), damage=st.sampled_from([0.05, 0.3, 1.0, 3.0, 20.0]))
def test_sets_match_within_a_factor_or_from_above(seed, n, damage):
    others = np.random.default_rng(seed).lognormal(size=n)
    chosen = matching(damage, others)
    assert set(np.flatnonzero(chosen).tolist()) == matched_by_hand(damage, others.tolist())


def test_matching_by_hand():
    assert matching(1.0, [0.79, 0.8, 1.0, 1.25, *[1.1] * 19, 1.26]).tolist() == [False, *[True] * 22, False]
    assert matching(1.0, [0.79, 0.8, 1.0, 1.25, 1.26]).tolist() == [False, True, True, True, True]
    # gentler than all: the 49 gentlest
    assert np.flatnonzero(matching(1.0, np.arange(2.0, 102.0)[::-1])).tolist() == list(range(51, 100))
    # with some of the same damage, 49 in all
    assert matching(1.0, np.append(np.ones(18), np.arange(2.0, 102.0))).sum() == 49
    assert matching(1.0, np.append(np.ones(19), np.arange(2.0, 102.0))).sum() == 19
    # harsher than all: nothing from below
    assert matching(1000.0, np.arange(2.0, 102.0)).sum() == 0
    assert matching(1.0, []).tolist() == []


def some_effects(rng: np.random.Generator, n: int) -> SetEffects:
    return SetEffects(damage=rng.lognormal(size=n), drop=rng.integers(-2, 8, n) / 8, contrast=rng.normal(size=n))


@QUICK
@given(seed=SEEDS, n=st.integers(0, 120), unseen=st.booleans())
def test_ranks_among_damage_matched_sets(seed, n, unseen):
    rng = np.random.default_rng(seed)
    own, random = some_effects(rng, 1), some_effects(rng, n)
    if not unseen:
        own.contrast[:], random.contrast[:] = np.nan, np.nan
    found = damage_matched(own, random)
    inside = sorted(matched_by_hand(own.damage[0], random.damage.tolist()))
    assert (found.n, found.damage) == (len(inside), own.damage[0])
    assert found.contrast == pytest.approx(own.contrast[0], nan_ok=True)
    if not inside:
        assert all(math.isnan(v) for v in (found.p_localized, found.p_memorizing, found.drop, found.damage_ratio))
        return
    drops = [random.drop[i] for i in inside]
    assert found.p_localized == (1 + sum(d >= own.drop[0] - 1e-9 for d in drops)) / (1 + len(inside))
    assert found.drop == np.median(drops)
    assert found.damage_ratio == pytest.approx(np.median([random.damage[i] for i in inside]) / own.damage[0])
    if unseen:
        contrasts = [random.contrast[i] for i in inside]
        assert found.p_memorizing == (1 + sum(c >= own.contrast[0] for c in contrasts)) / (1 + len(inside))
        assert found.contrast_matched == np.median(contrasts)
    else:
        assert math.isnan(found.p_memorizing)
        assert math.isnan(found.contrast_matched)


def test_a_contrast_that_follows_from_damage_is_not_memorizing():
    """The more an edit disturbs the network, the larger the contrast and the drop of every set. A selected set that is
    a random one gives a false answer in at most 0.05 of 400; a larger contrast is found."""
    rng = np.random.default_rng(0)
    localized = memorizing = found = 0
    for _ in range(400):
        damage = rng.lognormal(sigma=0.5, size=300)
        drop, contrast = damage / 10 + rng.normal(size=300) / 20, damage + rng.normal(size=300) / 4
        own, random = (
            SetEffects(damage=damage[s], drop=drop[s], contrast=contrast[s]) for s in (slice(1), slice(1, None))
        )
        result = damage_matched(own, random)
        if result.n >= 19:
            localized += result.p_localized <= 0.05
            memorizing += result.p_memorizing <= 0.05
        held = SetEffects(damage=own.damage, drop=own.drop, contrast=own.contrast + 3)
        found += damage_matched(held, random).p_memorizing <= 0.05
    bound = stats.binom.ppf(0.9999, 400, 0.06)  # within the factor of 1.25, harsher sets have larger contrasts
    assert localized <= bound
    assert memorizing <= bound
    assert found >= 300


def planted_outcomes(seed: int, repeats: int) -> tuple[sm.Dataset, dict[str, tuple[Block, Block]]]:
    """Samples of all splits, and outcomes of 3 sets with repeats."""
    rng = np.random.default_rng(seed)
    n = 48
    y, a = rng.integers(0, 2, (2, n))
    a = np.where(rng.random(n) < 0.6, y, a)
    split = np.array(["train", "val", "test"])[rng.integers(0, 3, n)]
    data = sm.from_tensors(torch.zeros(n, 1), y, a, split)
    found = {}
    for name in data.splits:
        samples = data.samples(name)
        margins = [rng.normal(1, 1, (rows, len(samples))).astype(np.float32) for rows in (1, 3 * repeats)]
        before, after = (
            Block(
                edits=np.arange(len(m)) - (1 if len(m) == 1 and not i else 0),
                index=samples.index,
                predicted=np.where(m > 0, samples.y, 1 - samples.y).astype(np.int16),
                loss=np.abs(m),
                margin=m,
            )
            for i, m in enumerate(margins)
        )
        found[name] = (before, after)
    return data, found


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(seed=SEEDS, repeats=st.integers(1, 2), in_parts=st.booleans())
def test_set_effects_are_those_of_a_plain_loop(seed, repeats, in_parts):
    data, found = planted_outcomes(seed, repeats)
    frames = []
    for split, (before, after) in found.items():
        samples = data.samples(split)
        parts = [samples.of_half(h, 0) for h in (0, 1)] if in_parts else [samples]
        frames += [count(before, after, part).assign(split=split) for part in parts if len(part)]
    counted = pd.concat(frames, ignore_index=True)
    counted["repeat"], counted["edit"] = counted["edit"] % repeats, counted["edit"] // repeats
    for group in range(4):
        for split in data.splits:
            result = set_effects(counted, data, group, split)
            for number in range(3):
                squares, n_squares, drops = 0.0, 0, []
                losses: dict[bool, list[float]] = {True: [], False: []}
                for name, (before, after) in found.items():
                    for k, i in enumerate(before.index):
                        fell = [
                            float(before.margin[0, k]) - float(after.margin[number * repeats + r, k])
                            for r in range(repeats)
                        ]
                        if name != "train" or data.g[i] in data.majority:
                            squares += np.mean([f**2 for f in fell])
                            n_squares += 1
                        if data.g[i] == group:
                            losses[name == "train"].append(np.mean(fell))
                            if name == split:
                                right = [after.predicted[number * repeats + r, k] == data.y[i] for r in range(repeats)]
                                drops.append((before.predicted[0, k] == data.y[i]) - np.mean(right))
                assert result.damage[number] == pytest.approx(math.sqrt(squares / n_squares))
                assert result.drop[number] == pytest.approx(np.mean(drops) if drops else np.nan, nan_ok=True)
                both = losses[True] and losses[False]
                contrast = np.mean(losses[True]) - np.mean(losses[False]) if both else np.nan
                assert result.contrast[number] == pytest.approx(contrast, nan_ok=True, abs=1e-6)
