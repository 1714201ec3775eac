"""The contrast: do the margins of a group's training samples fall further than those of its unseen samples?

Question 3 ranks it among damage-matched sets. These don't hit the group as hard as a set that was selected for it, so
their contrasts vary less by the chance of which samples were drawn for training. This test covers that chance.
"""

from __future__ import annotations

import math

import numpy as np

from .max_statistic import TIE
from .sample_effects import SampleEffects

PERMUTATIONS = 9999

_CHUNK = 4_000_000
"""Numbers that are held at once."""


def contrast_p(train: SampleEffects, unseen: SampleEffects, *, seed: int, n_permutations: int = PERMUTATIONS) -> float:
    """One-sided p-value of the contrast, by permutations of training and unseen samples.

    If the edited units hold no training samples, it makes no difference which samples of the group were in training.
    So any of them are equally likely to be the training samples. Samples change places within their half, since each
    half has its own edit.

    Arguments:
        train: what the edit does to the training samples of a group.
        unseen: what it does to unseen samples of the group.
        seed: of the permutations.
        n_permutations: number of permutations.

    Returns:
        The p-value; nan if there are no training samples or no unseen ones.
    """
    if not len(train.index) or not len(unseen.index):
        return math.nan
    rng = np.random.default_rng([seed, 0xC0274A])
    drops = np.zeros(n_permutations)  # of all training samples together; the contrast grows with them
    for half in np.unique(train.half):
        own, others = (-of.margin_change[of.half == half] for of in (train, unseen))
        values = np.concatenate([own, others])
        step = max(1, _CHUNK // len(values))
        for first in range(0, n_permutations, step):
            rows = drops[first : first + step]
            rows += rng.permuted(np.tile(values, (len(rows), 1)), axis=1)[:, : len(own)].sum(1)
    observed = -float(train.margin_change.sum())
    return float((1 + (drops >= observed - TIE).sum()) / (1 + n_permutations))
