"""Controls: as many units of the same tensors, at random."""

from __future__ import annotations

import warnings
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import spurious_memorization as sm
from spurious_memorization.study.controls import random_rankings

MODEL = nn.Sequential(
    nn.Conv2d(3, 12, 3), nn.Conv2d(12, 6, 3), nn.Conv2d(6, 4, 1), nn.Linear(500, 300), nn.Linear(300, 2)
)
EVERY = [("0.weight", i) for i in range(12)] + [("1.weight", i) for i in range(6)] + [("2.weight", i) for i in range(4)]
TEXT = "1:0,0:3,0:7,1:5"


def tensors(units: sm.Units) -> list[str]:
    return [name for name, _ in units]


@settings(max_examples=25, deadline=None)
@given(
    chosen=st.lists(st.sampled_from(EVERY), unique=True, min_size=1, max_size=8),
    seed=st.integers(0, 2**32),
)
def test_controls_match_their_set(chosen, seed):
    units = sm.parse_units(MODEL, [f"{name}:{i}" for name, i in chosen])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of fewer than 8 sets
        drawn = random_rankings(MODEL, units, 8, seed=seed)
    numbers = Counter(tensors(units))
    sizes = {"0.weight": 12, "1.weight": 6, "2.weight": 4}
    for control in drawn:
        assert (control.kind, control.with_bias) == (units.kind, units.with_bias)
        assert tensors(control) == tensors(units)  # position by position, so the first k match the first k
        assert len(set(control)) == len(units)
        assert all(0 <= index < sizes[name] for name, index in control)
        for name, index in control:
            if 2 * numbers[name] <= sizes[name]:
                assert (name, index) not in set(units)
    sets = [frozenset(control) for control in drawn]
    assert len(set(sets)) == len(sets)
    assert frozenset(units) not in sets


def test_controls_are_the_same_edit_matched_to_theirs():
    units = sm.parse_units(MODEL, TEXT, sm.Selection(with_bias=False))
    edit = sm.random_noise(units, 0.02, noise="uniform", seed=5)
    controls = sm.random_controls(MODEL, edit, n=20)
    assert len(controls) == 20
    assert {control.matched_to for control in controls} == {edit.digest()}
    assert edit.matched_to is None
    assert {(c.kind, str(c), c.units.with_bias) for c in controls} == {("random_noise", str(edit), False)}
    assert len({control.seed for control in controls} | {edit.seed}) == 21
    older = MODEL.state_dict()
    assert all(c.tensors is older for c in sm.random_controls(MODEL, sm.rewind(units, older), n=3))


def test_controls_follow_from_their_seed():
    edit = sm.zero(sm.parse_units(MODEL, TEXT))
    one, two, other = (sm.random_controls(MODEL, edit, n=9, seed=seed) for seed in (1, 1, 2))
    assert [c.digest() for c in one] == [c.digest() for c in two]
    assert {c.units.digest() for c in one} != {c.units.digest() for c in other}
    few = sm.random_controls(MODEL, edit, n=4, seed=1)
    assert [list(c.units) for c in few] == [list(c.units) for c in one[:4]]


def test_controls_are_drawn_evenly():
    units = sm.parse_units(MODEL, "0:3,0:7")
    drawn = Counter(index for control in random_rankings(MODEL, units, 45) for _, index in control)
    assert drawn == dict.fromkeys(set(range(12)) - {3, 7}, 9)  # all 45 pairs of the 10 others


def test_controls_of_prefixes_are_prefixes():
    units = sm.parse_units(MODEL, TEXT)
    for control in random_rankings(MODEL, units, 9):
        for k in range(1, len(units) + 1):
            assert tensors(control.first(k)) == tensors(units.first(k))
            assert set(control.first(k)) < set(control) or k == len(units)


@pytest.mark.parametrize(("text", "n"), [("2:0", 3), ("1:0,1:1,1:2,1:3", 14), ("2:0,2:1,2:2,2:3", 0)])
def test_too_few_sets_are_warned_of(text, n):
    with pytest.warns(UserWarning, match=f"only {n} of 99 controls") as caught:
        controls = sm.random_controls(MODEL, sm.zero(sm.parse_units(MODEL, text)))
    assert len(controls) == n
    assert len({c.units.digest() for c in controls}) == n
    assert len(caught) == 1


def test_weights_of_a_large_tensor():
    index = torch.randperm(150_000, generator=torch.Generator().manual_seed(0))[:4000].numpy()
    place = np.zeros(4001, np.int64)
    place[-1] = 1
    units = sm.Units("weight", ("3.weight", "0.weight"), place, np.append(index, 17))
    controls = random_rankings(MODEL, units, 5)
    assert len({control.digest() for control in controls}) == 5
    for control in controls:
        drawn = control.by_name()
        assert {name: len(values) for name, values in drawn.items()} == {"3.weight": 4000, "0.weight": 1}
        assert len(np.unique(drawn["3.weight"])) == 4000
        assert not np.isin(drawn["3.weight"], index).any()
        assert drawn["3.weight"].max() < 150_000
        assert abs(drawn["3.weight"].mean() - 75_000) < 5000


def test_weights_of_any_parameter_and_heads():
    bias = sm.Units("weight", ("0.bias",), np.array([0]), np.array([4]))
    assert {control.by_name()["0.bias"][0] for control in random_rankings(MODEL, bias, 11)} == set(range(12)) - {4}
    model = nn.ModuleDict({"attention": nn.MultiheadAttention(12, 6), "head": nn.Linear(12, 2)})
    heads = sm.parse_units(model, "attention:2", sm.Selection(unit="head"))
    assert {next(iter(c)) for c in random_rankings(model, heads, 5)} == {("attention", i) for i in (0, 1, 3, 4, 5)}


def test_units_that_the_network_lacks_are_refused():
    for name, number in (("9.weight", 0), ("4.weight", 0), ("2.weight", 4)):
        units = sm.Units("channel", (name,), np.array([0]), np.array([number]))
        with pytest.raises(sm.UserError, match="the network has no channel"):
            sm.random_controls(MODEL, sm.zero(units))
