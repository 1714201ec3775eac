"""The random parts of the training samples on which networks are trained."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..datasets.samples import Dataset
from ..errors import UserError


def drawn_subset(data: Dataset, network: int, *, share: float, seed: int, resampled: NDArray[np.int64]) -> Dataset:
    """The data set without the training samples that a network is not trained on.

    Each group keeps the same number of samples in every part, so that groups stay as rare as they are.

    Arguments:
        data: the data set.
        network: number of the network, from 0.
        share: share of a group's training samples that are kept.
        seed: of the draws.
        resampled: indices of the groups from which samples are left out.

    Returns:
        The same samples in the same order. Those left out belong to no split.
    """
    left_out = []
    for group in resampled:
        members = np.flatnonzero((data.split == "train") & (data.g == group))
        rng = np.random.default_rng([seed, 0x3E3012, group])
        left_out.append(members[_left_out(len(members), network, share, rng)])
    return data.leaving_out(np.concatenate(left_out))


def _left_out(n: int, network: int, share: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Positions of the samples of a group of `n` that a network is not trained on.

    They are drawn at random among those that the networks before it have left out least often. So every sample is left
    out by about as many networks.
    """
    times = np.zeros(n, np.int64)
    for _ in range(network + 1):
        order = np.lexsort((rng.random(n), times))
        chosen = order[: n - n_kept(n, share)]
        times[chosen] += 1
    return chosen


def n_kept(n: int, share: float) -> int:
    """Number of samples of a group of `n` that a network is trained on: at least one, and one less than all."""
    return n if n < 2 else min(max(round(share * n), 1), n - 1)


def resampled_groups(data: Dataset, *, minority_only: bool) -> NDArray[np.int64]:
    """The groups from which samples are left out: all with training samples, or the minority groups.

    Raises:
        UserError: none has two training samples.
    """
    groups = data.minority if minority_only else range(len(data.groups))
    chosen = [group for group in groups if data.train_counts[group] > 1]
    if not chosen:
        whose = "no minority group" if minority_only else "no group"
        raise UserError(f"{whose} has two training samples, so that none can be left out: name it with --minority")
    return np.array(chosen)
