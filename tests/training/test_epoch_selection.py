"""The halves of val, and the epoch that one of them selects."""

from __future__ import annotations

import numpy as np
import pytest

import spurious_memorization as sm

Capture = pytest.CaptureFixture[str]


def test_the_halves_of_val(data: sm.Dataset) -> None:
    fitting, selecting = sm.val_halves(data)
    assert sorted([*fitting.index, *selecting.index]) == data.val.index.tolist()
    assert np.bincount(fitting.g).tolist() == [1, 1, 1, 1]  # of three a group
    assert np.bincount(selecting.g).tolist() == [2, 2, 2, 2]
    assert sm.val_halves(data)[0].index.tolist() == fitting.index.tolist()


def test_the_selected_epoch_is_the_best_on_these_samples(trained: sm.Run, data: sm.Dataset) -> None:
    _, selecting = sm.val_halves(data)
    worst, average = {}, {}
    for epoch in trained.epochs():
        right = trained.predictions(epoch, "val").loc[selecting.index].to_numpy().argmax(1) == selecting.y
        worst[epoch] = min(right[selecting.g == group].mean() for group in range(4))
        average[epoch] = right.mean()
    assert sm.selected_epoch(trained, selecting, "worst_group_accuracy") == max(worst, key=lambda e: worst[e])
    assert sm.selected_epoch(trained, selecting, "average") == max(average, key=lambda e: average[e])
    with pytest.raises(sm.UserError, match="other samples"):
        sm.selected_epoch(trained, data.val.at([10_000]), "average")
