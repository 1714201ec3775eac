"""Adjusted p-values for a family of tests, by the step-down maximum statistic."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

TIE = 1e-9
"""Values that differ by less than this count as equal."""


def ranks_and_adjusted(values: ArrayLike) -> tuple[Array, Array]:
    """One-sided p-values of several tests, plain and adjusted for their number.

    A plain p-value is (1 + null values at least as large) / (1 + null values). The adjusted ones follow the step-down
    maximum statistic of Westfall and Young (1993, algorithm 2.8). There each test is studentized by the mean and the
    standard deviation over all rows, the observed one included. So all rows are exchangeable under the null hypothesis.

    Arguments:
        values: of each test, [1 + null values, tests]. The first row is observed. A row is one draw of the null
            distribution for all tests. nan where there is nothing to test.

    Returns:
        p and adjusted p, each [tests]; nan where there is nothing to test.
    """
    values = np.atleast_2d(np.asarray(values, float))
    n, is_tested = len(values) - 1, ~np.isnan(values).any(0)
    p, adjusted = np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    if not n or not is_tested.any():
        return p, adjusted
    known = values[:, is_tested]
    p[is_tested] = (known >= known[0] - TIE).sum(0) / (n + 1)
    spread = known.std(0)
    z = np.divide(known - known.mean(0), spread, out=np.zeros_like(known), where=spread > TIE)
    order = np.argsort(-z[0], kind="stable")
    largest = np.maximum.accumulate(z[:, order[::-1]], axis=1)[:, ::-1]  # over a test and all less significant ones
    stepwise = (largest >= z[0, order] - TIE).sum(0) / (n + 1)
    result = np.empty(len(order))
    result[order] = np.maximum.accumulate(stepwise)
    adjusted[is_tested] = result
    return p, adjusted
