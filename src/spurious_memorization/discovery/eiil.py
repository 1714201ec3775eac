"""EIIL: the partition of the samples along which a network's risk differs most."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def environment_scores(
    probabilities: Floats, y: NDArray[np.int64], *, steps: int = 10_000, lr: float = 1e-3, seed: int = 0
) -> Floats:
    """How surely each sample belongs to the environment in which the network is worse, [samples], from 0 to 1.

    Environment inference: Creager et al. (2021), Environment Inference for Invariant Learning, equation 5. Every sample
    has a soft assignment q to one of two environments. Adam maximizes the penalty of IRMv1 (Arjovsky et al. 2019): the
    squared gradient of the risk of each environment with respect to a factor of the logits, at 1.

    Arguments:
        probabilities: class probabilities of a network of an early epoch, [samples, classes].
        y: labels, [samples].
        steps: of Adam.
        lr: of Adam.
        seed: of the first assignments.
    """
    log_p = np.log(probabilities.clip(1e-12))
    slopes = (probabilities * log_p).sum(1) - log_p[np.arange(len(y)), y]  # of the loss, for a factor of the logits
    slope = torch.from_numpy(slopes)
    weight = torch.randn(len(y), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    optimizer = torch.optim.Adam([weight], lr=lr)
    for _ in range(steps):
        q = weight.sigmoid()
        of_one, of_other = (q * slope).mean(), ((1 - q) * slope).mean()
        weight.grad = -2 * (of_one - of_other) * slope * q * (1 - q) / len(y)  # of the negative penalty
        optimizer.step()
    assigned: Floats = weight.sigmoid().numpy()
    wrong = 1 - probabilities[np.arange(len(y)), y]
    is_worse = (assigned @ wrong) / assigned.sum() >= ((1 - assigned) @ wrong) / (1 - assigned).sum()
    return assigned if is_worse else 1 - assigned
