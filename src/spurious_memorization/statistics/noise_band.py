"""What chance alone does to an accuracy: the values that a number of samples shows if the true accuracy is known."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]


def noise_band(accuracy: ArrayLike, n: ArrayLike, level: float = 0.95) -> tuple[Array, Array]:
    """The accuracies that `n` samples show by chance, elementwise: the central range of the binomial distribution.

    At most (1 - level) / 2 of all draws lie below the band, and as many above it. A measured accuracy lies below the
    band exactly if its interval by Clopper and Pearson (1934), of the same level, lies below the true accuracy.

    Arguments:
        accuracy: the true accuracies; values under 0 count as 0, values over 1 as 1.
        n: numbers of samples, of the same shape.
        level: share of the draws that the band holds, at least.

    Returns:
        Lower and upper end, of the same shape; nan where `n` is 0.
    """
    p, n = np.clip(np.asarray(accuracy, float), 0, 1), np.asarray(n, float)
    tail = (1 - level) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        low, high = (stats.binom.ppf(share, n, p) / n for share in (tail, 1 - tail))
    return np.where(n > 0, low, np.nan), np.where(n > 0, high, np.nan)


def sidak_level(n: int, level: float = 0.95) -> float:
    """The level of each of `n` intervals that gives all of them together the level `level` (Šidák 1967)."""
    return float(level ** (1 / n))
