"""The smallest group that a verdict needs is the smallest one for which the tests can reach significance."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from spurious_memorization.statistics.group_sizes import groups_too_small, smallest_testable_minority
from spurious_memorization.statistics.intervals import difference_of_means
from spurious_memorization.statistics.verdicts import LEVEL


@pytest.mark.parametrize("n_majority", [3, 4, 5, 6, 8, 20, 500])
def test_it_is_where_the_rarest_permutation_falls_below_the_level(n_majority: int) -> None:
    def least_p(n: int) -> float:
        """All minority samples drop and no majority sample does: one choice of members in each half, without strata."""
        halves = [((n + 1) // 2, (n_majority + 1) // 2), (n // 2, n_majority // 2)]
        return 1 / np.prod([comb(mine + others, mine) for mine, others in halves])

    needed = smallest_testable_minority(n_majority)
    assert needed == next(n for n in range(2, 8) if least_p(n) <= LEVEL)


@pytest.mark.parametrize("n_majority", [0, 1, 2])
def test_beside_too_few_majority_samples_no_number_is_enough(n_majority: int) -> None:
    assert smallest_testable_minority(n_majority) is None


def test_unseen_samples_are_needed_for_an_interval() -> None:
    assert np.isnan(difference_of_means([1.0, 2.0, 3.0], [0.5]).low)
    assert not np.isnan(difference_of_means([1.0, 2.0, 3.0], [0.5, 0.7]).low)


def test_minority_groups_with_too_few_samples() -> None:
    found = groups_too_small(
        ["cat on grass", "cat on snow", "dog on grass", "dog on snow"],
        n_classes=2,
        train=[5, 2, 1, 40],
        unseen=[9, 9, 1, 9],
        minority=["cat on snow", "dog on grass"],
        majority=["cat on grass", "dog on snow"],
    )
    assert [str(group) for group in found] == [
        "cat on snow: 2 in train, 'critical' needs at least 3",
        "dog on grass: 1 in train, 'critical' needs at least 2",
        "dog on grass: 1 in val and test, 'memorizing' needs at least 2",
    ]
    (found,) = groups_too_small(["a", "b"], n_classes=1, train=[2, 9], unseen=[9, 9], minority=["b"], majority=["a"])
    assert str(found) == "b: 2 majority samples of its label are too few for 'critical'"
    assert found.needed is None
