"""subsampling: which samples are kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_training import begun

import spurious_memorization as sm

Capture = pytest.CaptureFixture[str]


def test_subsampling_keeps_the_smallest_size(data: sm.Dataset, model: torch.nn.Module, trained: sm.Run) -> None:
    objective = begun("subsampling", data, model, trained)
    kept_ones = {epoch: np.unique(objective.samples(epoch).index) for epoch in (1, 2)}
    assert np.bincount(data.g[kept_ones[1]]).tolist() == [4, 4, 4, 4]
    assert kept_ones[1].tolist() == kept_ones[2].tolist()
    assert len(objective.samples(1)) == len(data.train)
    assert objective.samples(1).index.tolist() != objective.samples(2).index.tolist()


def test_a_sample_that_comes_up_again_is_augmented_anew(data: sm.Dataset) -> None:
    once = next(iter(data.train.at([0, 1]).augmented_batches(2, seed=0, epoch=1))).inputs
    thrice = list(data.train.at([0, 1, 0, 0]).augmented_batches(2, seed=0, epoch=1))
    torch.testing.assert_close(thrice[0].inputs, once)
    assert not torch.equal(thrice[1].inputs[0], once[0])
    assert not torch.equal(thrice[1].inputs[1], thrice[1].inputs[0])
