"""Memorization scores from the answers of networks that were trained on random parts of the samples.

Feldman (2020), "Does learning require memorization?", section 1: the score of a sample is the probability that a
network answers it correctly if the sample was in its training, minus the probability if it was not. Feldman and Zhang
(2020), "What neural networks memorize and why", estimate both over networks trained on random parts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MEMORIZED = 0.25
"""Feldman and Zhang (2020) call a sample memorized from this score on."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Estimates:
    """Scores of samples.

    Arguments:
        score: accuracy with the sample in training minus accuracy without it, [samples]; nan where a sample was always
            or never in training.
        standard_error: of the score over networks, [samples]; nan as for `score`.
        accuracy_in, accuracy_out: share of the networks that are correct, among those trained with the sample and
            without it, [samples].
        n_in, n_out: number of these networks, [samples].
    """

    score: Array
    standard_error: Array
    accuracy_in: Array
    accuracy_out: Array
    n_in: NDArray[np.int64]
    n_out: NDArray[np.int64]


def estimated_scores(is_in: NDArray[np.bool_], correct: NDArray[np.bool_]) -> Estimates:
    """The memorization score of each sample.

    The standard error is that of a difference of two proportions. Each is taken with one correct and one wrong network
    more (Agresti and Caffo 2000), so that it is not zero where all networks agree.

    Arguments:
        is_in: whether a network was trained on a sample, [networks, samples].
        correct: whether it answers the sample correctly, [networks, samples].
    """
    counts, accuracies, variance = [], [], np.zeros(is_in.shape[1])
    for chosen in (is_in, ~is_in):
        n, right = chosen.sum(0), (chosen & correct).sum(0)
        counts.append(n)
        accuracies.append(np.divide(right, n, out=np.full(len(n), np.nan), where=n > 0))
        share = (right + 1) / (n + 2)
        variance += share * (1 - share) / (n + 2)
    score = accuracies[0] - accuracies[1]
    return Estimates(
        score=score,
        standard_error=np.where(np.isnan(score), np.nan, np.sqrt(variance)),
        accuracy_in=accuracies[0],
        accuracy_out=accuracies[1],
        n_in=counts[0],
        n_out=counts[1],
    )
