"""Pseudo-minorities: random subsets of the majority, of the minority's size. A verdict for such a group is false."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..errors import UserError
from .groups import Groups
from .samples import Dataset, checked_dataset


def with_pseudo_minority(data: Dataset, seed: int = 0) -> Dataset:
    """The same samples with random groups in the role of the minority.

    For each minority group, a random subset of the majority samples of its label becomes a new group. In each split,
    the subset has the size of the minority group, but at most half of the majority samples. The new groups are the
    minority of the returned data set. Their members are random, so any "selective" verdict for them is false.

    Arguments:
        data: a data set with minority and majority groups.
        seed: seed of the random subsets.

    Returns:
        The data set with one more attribute value, "a random draw (SEED)", and the new groups as minority.

    Raises:
        UserError: no minority group has a majority group with the same label.
    """
    data = checked_dataset(data)
    groups, rng = data.groups, np.random.default_rng([seed, 0x95E0D0])
    drawn_value = len(groups.attributes)
    a, named = data.a.copy(), []
    for minority in data.minority:
        label = groups.label_of(minority)
        majority = [g for g in data.majority if groups.label_of(g) == label]
        if not majority or label in named:
            continue
        named.append(label)
        for split in data.splits:
            here = data.split == split
            members = np.flatnonzero(here & np.isin(data.g, majority))
            wanted = min(int((here & (data.g == minority)).sum()), len(members) // 2)
            a[rng.permutation(members)[:wanted]] = drawn_value
    if not named:
        raise UserError("no minority group has a majority group with the same label: pseudo-minorities can't be drawn")
    extended = Groups(groups.classes, (*groups.attributes, f"a random draw ({seed})"), groups.template)
    minority_of = tuple(label * (drawn_value + 1) + drawn_value for label in named)
    return replace(data, groups=extended, a=a, named_minority=minority_of)
