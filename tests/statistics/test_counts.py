"""Counts per group, compared with fairlearn's."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from outcome_cases import block, by_group, cases

import spurious_memorization as sm
from spurious_memorization.statistics.counts import count

QUICK = settings(max_examples=25, deadline=None)


@QUICK
@given(case=cases())
def test_counts_are_those_of_fairlearn(case):
    samples, before, after = case
    table = count(before, after, samples)
    assert len(table) == len(after.edits) * 6
    for row, edit in enumerate(after.edits):
        here = table[(table["edit"] == edit) & (table["n"] > 0)].set_index("group")
        first, second = by_group(samples, before.predicted[0]), by_group(samples, after.predicted[row])
        assert sorted(here.index) == sorted(first.index)
        np.testing.assert_allclose((here["correct_before"] / here["n"])[first.index], first)
        np.testing.assert_allclose((here["correct_after"] / here["n"])[second.index], second)


@QUICK
@given(case=cases())
def test_counts_add_up(case):
    samples, before, after = case
    table = count(before, after, samples)
    gain = table["correct_after"] - table["correct_before"]
    assert (table["became_right"] - table["became_wrong"] == gain).all()
    assert (table[["n", "became_right", "became_wrong", "correct_before", "correct_after"]] >= 0).all(axis=None)
    assert (table["became_wrong"] <= table["correct_before"]).all()
    assert (table["became_right"] <= table["n"] - table["correct_before"]).all()
    whole = table.groupby("edit").sum()
    assert (whole["n"] == len(samples)).all()
    assert whole["correct_after"].tolist() == (after.predicted == samples.y).sum(1).tolist()
    np.testing.assert_allclose(whole["loss_after"], after.loss.sum(1, dtype=float), rtol=1e-6)
    np.testing.assert_allclose(whole["margin_after"], after.margin.sum(1, dtype=float), rtol=1e-5, atol=1e-5)
    squares = (after.margin.astype(float) - before.margin.astype(float)) ** 2
    np.testing.assert_allclose(whole["margin_change_squares"], squares.sum(1))
    np.testing.assert_allclose(
        table["margin_change_squares"].to_numpy().reshape(-1, 6),
        np.transpose([squares[:, samples.g == g].sum(1) for g in range(6)]),
    )
    np.testing.assert_allclose(whole["loss_before"], before.loss.sum(dtype=float), rtol=1e-6)
    halves = [samples.at(samples.index[::2]), samples.at(samples.index[1::2])]
    parts = sum(count(before, after, half).drop(columns=["edit", "group"]) for half in halves)
    pd.testing.assert_frame_equal(parts, table.drop(columns=["edit", "group"]))


def test_samples_without_outcomes_are_errors():
    data = sm.from_tensors(torch.zeros(4, 1), [0, 1, 0, 1], [0, 0, 1, 1], ["train", "train", "test", "test"])
    rng = np.random.default_rng(0)
    before, after = (block(rng, edits, data.train.y) for edits in (range(-1, 0), range(1)))
    with pytest.raises(sm.UserError, match=r"\(test\) have no outcomes"):
        count(before, after, data.test)
