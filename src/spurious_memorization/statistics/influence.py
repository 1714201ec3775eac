"""Question 1: does a selected set lower the accuracy more than random units of its layers do?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .max_statistic import TIE, ranks_and_adjusted

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class Influence:
    """The p-values of the first question.

    Arguments:
        p: rank of the drop among those of the null sets, [tests].
        p_adjusted: the same, adjusted over all tests, [tests].
        p_beyond_norm: adjusted rank of what is left of the drop after regression on the norm, [tests].
    """

    p: Array
    p_adjusted: Array
    p_beyond_norm: Array

    @property
    def p_decisive(self) -> Array:
        """The larger of both adjusted p-values: both must be at most the level, [tests]."""
        return np.maximum(self.p_adjusted, self.p_beyond_norm)


def influence(changes: ArrayLike, log_norms: ArrayLike | None = None) -> Influence:
    """Rank a selected set among its null sets.

    One family of tests covers several sizes and groups; see `ranks_and_adjusted`.

    A set of large weights lowers the accuracy more than one of small weights, whatever it holds. So the drop is ranked
    a second time, after its regression on the logarithm of the norm. The regression is fitted on all rows, the selected
    set's included, so that these stay exchangeable.

    Arguments:
        changes: accuracy change of the selected set (first row) and of each null set in each test, [1 + sets, tests].
        log_norms: logarithm of each set's relative folded norm, of the same shape; if not given, all norms are alike.
    """
    drops = -np.atleast_2d(np.asarray(changes, float))
    p, adjusted = ranks_and_adjusted(drops)
    if log_norms is None:
        return Influence(p=p, p_adjusted=adjusted, p_beyond_norm=adjusted)
    _, beyond = ranks_and_adjusted(residuals(drops, np.asarray(log_norms, float)))
    return Influence(p=p, p_adjusted=adjusted, p_beyond_norm=beyond)


def residuals(values: Array, explained_by: Array) -> Array:
    """What is left of values after a least-squares fit of a straight line in each column.

    Arguments:
        values: [rows, columns].
        explained_by: of the same shape. A constant column explains nothing.
    """
    x = explained_by - explained_by.mean(0)
    y = values - values.mean(0)
    spread = np.square(x).sum(0)
    slope = np.divide((x * y).sum(0), spread, out=np.zeros_like(spread), where=spread > TIE)
    left: Array = y - slope * x
    return left
