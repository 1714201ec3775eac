"""Counts and draws that balance classes or groups."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..datasets.samples import Dataset, Samples
from ..errors import UserError
from .names import Balance


def membership(data: Dataset, by: Balance) -> NDArray[np.int64]:
    """The class ("class") or the group ("group") of each sample of a data set, [samples]."""
    return data.y if by == "class" else data.g


def training_counts(data: Dataset, by: Balance, objective: str) -> NDArray[np.int64]:
    """Number of training samples of each class or group, [classes or groups].

    Arguments:
        data: the data set.
        by: "class" or "group".
        objective: name of the objective, for the error.

    Raises:
        UserError: a class or group that occurs in the data set has no training sample.
    """
    member = membership(data, by)
    names = data.groups.classes if by == "class" else data.groups.names
    counts = np.bincount(member[data.split == "train"], minlength=len(names))
    missing = [names[k] for k in np.unique(member) if not counts[k]]
    if missing:
        raise UserError(
            f"{by} {missing[0]!r} has no training sample, which {objective} needs: "
            "add some, or choose an objective without groups, such as erm or jtt"
        )
    return counts.astype(np.int64)


def balanced_draw(data: Dataset, by: Balance, seed: int, epoch: int) -> Samples:
    """Draw with replacement, so that every class or group is equally likely.

    Returns:
        As many training samples as the training split has.
    """
    train, member = data.train, membership(data, by)[data.train.index]
    counts = np.bincount(member)
    likely = 1 / ((counts > 0).sum() * counts[member])
    rng = np.random.default_rng([seed, epoch, 0xBA1A])
    return train.at(rng.choice(train.index, len(train), p=likely))
