"""How many null values are drawn: more where the answer is not clear yet.

Null values are drawn in rounds. After each round a test is looked at. It is decided when its p-value is clearly on one
side of the level: when the exact binomial interval of Clopper and Pearson (1934) around the share of null values that
are at least as large leaves the level out. Besag and Clifford (1991) introduced such sequential Monte Carlo tests.

A family of tests stops when all of its tests are decided. Each look uses the p-values that are adjusted by the maximum
statistic, on all null values drawn so far. An early "yes" is given only where it would almost surely stay "yes" with
all null values, and an early "no" costs no validity. So the level of the family stays what it is without stopping, up
to `DOUBT` per look.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

LEVEL = 0.05
"""Level of all tests."""

LOOKS = (19, 49, 99, 199, 499, 999)
"""Numbers of null values after which a test is looked at."""

DOUBT = 0.001
"""A test is decided if a p-value on the other side of the level gives such a count with at most this probability."""


def looks(most: int) -> tuple[int, ...]:
    """The numbers of null values after which tests are looked at; the last one is `most`."""
    return (*(n for n in LOOKS if n < most), most)


def is_decided(p: ArrayLike, n: int) -> NDArray[np.bool_]:
    """Whether a p-value from `n` null values is clearly at most, or clearly above, the level.

    Arguments:
        p: (1 + null values at least as large) / (1 + n), [tests]. nan, where there is nothing to test, is decided.
        n: number of null values.
    """
    p = np.asarray(p, float)
    as_large = np.round(np.nan_to_num(p, nan=1.0) * (n + 1)) - 1
    clearly_above = stats.binom.sf(as_large - 1, n, LEVEL) <= DOUBT
    clearly_below = stats.binom.cdf(as_large, n, LEVEL) <= DOUBT
    decided: NDArray[np.bool_] = clearly_above | clearly_below | np.isnan(p)
    return decided
