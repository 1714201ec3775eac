"""Values of all samples, put together from those of each split."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..datasets.samples import Dataset, Samples

Floats = NDArray[np.float64]


def by_split(data: Dataset, values: Callable[[Samples], Floats]) -> Floats:
    """Values of every sample of a data set, [samples of the data set, ...]; nan for samples without a split.

    Arguments:
        data: the data set.
        values: gives the values of the samples of one split, [samples, ...].
    """
    parts = [(samples.index, values(samples)) for samples in map(data.samples, data.splits)]
    found = np.full((len(data), *parts[0][1].shape[1:]), np.nan)
    for index, part in parts:
        found[index] = part
    return found
