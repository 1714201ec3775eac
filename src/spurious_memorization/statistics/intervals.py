"""Confidence intervals. They describe the sampling error of accuracies, accuracy changes and margin changes."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.special import ndtri

Array = NDArray[np.float64]

_CONSTANT = 1e-9
"""Samples with a smaller standard deviation count as constant."""


def wilson_interval(correct: ArrayLike, n: ArrayLike, level: float = 0.95) -> tuple[Array, Array]:
    """Wilson's score interval of an accuracy (Wilson 1927), elementwise.

    Arguments:
        correct: numbers of correct answers.
        n: numbers of samples, of the same shape.
        level: of confidence.

    Returns:
        Lower and upper bound, of the same shape; nan where `n` is 0.
    """
    k, n = np.asarray(correct, float), np.asarray(n, float)
    z = ndtri((1 + level) / 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = k / n
        middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return np.where(n > 0, np.maximum(middle - half, 0.0), np.nan), np.where(
        n > 0, np.minimum(middle + half, 1.0), np.nan
    )


def paired_interval(
    became_right: ArrayLike, became_wrong: ArrayLike, n: ArrayLike, level: float = 0.95
) -> tuple[Array, Array]:
    """Interval of an accuracy change on the same samples: the adjusted Wald interval of Bonett and Price (2012).

    One sample is added to each kind of change before the usual interval is taken. So the interval has a width even
    where nothing changed.

    Arguments:
        became_right: samples that only the second network answers correctly.
        became_wrong: samples that only the first network answers correctly.
        n: numbers of samples; all three arrays have the same shape.
        level: of confidence.

    Returns:
        Lower and upper bound of (became_right - became_wrong) / n, of the same shape; nan where `n` is 0.
    """
    right, wrong, n = (np.asarray(values, float) for values in (became_right, became_wrong, n))
    z = ndtri((1 + level) / 2)
    p_right, p_wrong = (right + 1) / (n + 2), (wrong + 1) / (n + 2)
    difference = p_right - p_wrong
    half = z * np.sqrt((p_right + p_wrong - difference**2) / (n + 2))
    return (
        np.where(n > 0, np.maximum(difference - half, -1.0), np.nan),
        np.where(n > 0, np.minimum(difference + half, 1.0), np.nan),
    )


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A difference of two means, with its confidence interval.

    Arguments:
        value: mean of the first sample minus mean of the second; nan, as are the bounds, if either has fewer than two
            values.
        low, high: bounds of the interval.
        n_first, n_second: numbers of values.
    """

    value: float
    low: float
    high: float
    n_first: int
    n_second: int


def difference_of_means(first: ArrayLike, second: ArrayLike, level: float = 0.95) -> Difference:
    """Difference of two means with the interval of Welch (1947), which allows unequal variances (SciPy's).

    Arguments:
        first, second: the two samples, [values].
        level: of confidence.
    """
    first, second = np.asarray(first, float), np.asarray(second, float)
    sizes = {"n_first": len(first), "n_second": len(second)}
    if min(sizes.values()) < 2:
        return Difference(value=math.nan, low=math.nan, high=math.nan, **sizes)
    value = float(first.mean() - second.mean())
    if first.std() < _CONSTANT and second.std() < _CONSTANT:  # constant samples have no sampling error
        return Difference(value=value, low=value, high=value, **sizes)
    with warnings.catch_warnings():
        # SciPy warns if one of the samples is constant. Its interval is still right.
        warnings.filterwarnings("ignore", "Precision loss occurred", RuntimeWarning)
        interval = stats.ttest_ind(first, second, equal_var=False).confidence_interval(level)
    return Difference(value=value, low=float(interval.low), high=float(interval.high), **sizes)
