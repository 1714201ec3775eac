"""The smallest group that a verdict needs is the smallest one for which the tests can reach significance."""

from __future__ import annotations

import numpy as np
import pytest

from spurious_memorization.statistics.group_sizes import groups_too_small, smallest_testable_minority
from spurious_memorization.statistics.selectivity import matched_sets
from spurious_memorization.statistics.sequential import LEVEL


@pytest.mark.parametrize("n_majority", [1, 2, 3, 4, 5, 6, 8, 20, 60])
def test_it_is_where_the_rarest_permutation_falls_below_the_level(n_majority: int) -> None:
    """All minority samples drop and no majority sample does. So one choice of members gives the observed difference;
    its probability is that of choosing the minority sample in each matched set."""

    def is_enough(n: int) -> bool:
        member, margin, half = (
            np.concatenate(both)
            for both in (
                (np.ones(n, bool), np.zeros(n_majority, bool)),
                ((np.arange(n) + 0.5) / n, (np.arange(n_majority) + 0.5) / n_majority),
                (np.arange(n) % 2, np.arange(n_majority) % 2),
            )
        )
        sets = matched_sets(margin, member, half)
        return len(sets) >= n / 2 and 1 / np.prod((sets >= 0).sum(1)) <= LEVEL

    assert smallest_testable_minority(n_majority) == next((n for n in range(2, 60) if is_enough(n)), None)


def test_without_majority_samples_no_number_is_enough() -> None:
    assert smallest_testable_minority(0) is None
    assert smallest_testable_minority(1) is None


def test_minority_groups_with_too_few_samples() -> None:
    found = groups_too_small(
        ["cat on grass", "cat on snow", "dog on grass", "dog on snow"],
        n_classes=2,
        train=[5, 2, 1, 40],
        unseen=[9, 9, 0, 9],
        minority=["cat on snow", "dog on grass"],
        majority=["cat on grass", "dog on snow"],
    )
    assert [str(group) for group in found] == [
        "cat on snow: 2 in train, 'critical' needs at least 5",
        "dog on grass: 1 in train, 'critical' needs at least 3",
        "dog on grass: 0 in val and test, 'memorizing' needs at least 1",
    ]
    (found,) = groups_too_small(["a", "b"], n_classes=1, train=[2, 9], unseen=[9, 9], minority=["b"], majority=["a"])
    assert str(found) == "b: 2 majority samples of its label are too few for 'critical'"
    assert found.needed is None
