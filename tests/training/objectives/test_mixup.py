"""mixup against the cross-entropy with mixed labels."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from tiny_training import batches, begun

import spurious_memorization as sm


def test_mixup_against_mixed_labels(data: sm.Dataset, model: torch.nn.Module, trained: sm.Run) -> None:
    objective = begun("mixup:alpha=0.7", data, model, trained, seed=5)
    objective.begin_epoch(2)
    rng = np.random.default_rng([5, 2, 0x313C])
    shares = []
    for batch in batches(data, 10):
        share, order = rng.beta(0.7, 0.7), rng.permutation(10)
        shares.append(share)
        inputs = share * batch.inputs + (1 - share) * batch.inputs[order]
        labels = F.one_hot(batch.y, 2).float()
        expected = F.cross_entropy(model(inputs), share * labels + (1 - share) * labels[order])
        found = objective.loss(batch.inputs, batch.y, batch.index)
        torch.testing.assert_close(found, expected)
    assert len(set(shares)) == len(shares)
