"""Confidence intervals. They describe the sampling error of accuracies and accuracy changes."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

Array = NDArray[np.float64]


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
