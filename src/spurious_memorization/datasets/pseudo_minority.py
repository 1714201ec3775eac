"""Pseudo-minorities: random subsets of the majority, as large as the minority, about which there is nothing to find."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..errors import UserError
from .groups import Groups
from .samples import Dataset


def with_pseudo_minority(data: Dataset, seed: int = 0) -> Dataset:
    """The same samples, where for each minority group a random subset of the majority of its label becomes a group of
    its own, and these groups are named the minority.

    A subset has as many samples in each split as the minority group it stands for, at most half of the majority's.
    What a study finds selective for such a group is a false verdict, since its members were drawn.

    Arguments:
        data: with minority and majority groups.
        seed: of the draws.

    Raises:
        UserError: no minority group has a majority group of its label.
    """
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
        raise UserError(
            "no minority group has a majority of its label: there is nothing to draw pseudo-minorities from"
        )
    extended = Groups(groups.classes, (*groups.attributes, f"a random draw ({seed})"), groups.template)
    minority_of = tuple(label * (drawn_value + 1) + drawn_value for label in named)
    return replace(data, groups=extended, a=a, named_minority=minority_of)
