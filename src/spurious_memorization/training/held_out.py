"""Training samples that a training holds out, for methods that fit on samples which the network has not seen."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..datasets.samples import Dataset


def held_out(data: Dataset, share: float, seed: int) -> NDArray[np.int64]:
    """Random training samples, the same share of each class. Group labels play no part.

    Arguments:
        data: the data set.
        share: of the training samples of each class, rounded.
        seed: of the draw; a training uses its own.

    Returns:
        Their indices in the data set, in order.
    """
    rng = np.random.default_rng([seed, 0x4E1D])
    index, y = data.train.index, data.train.y
    drawn = [rng.permutation(index[y == label])[: round(share * int((y == label).sum()))] for label in np.unique(y)]
    return np.sort(np.concatenate(drawn))
