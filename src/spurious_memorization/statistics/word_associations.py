"""Which words fit the images of a group better than the other images of its class, by CLIP's similarities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..datasets.groups import Groups
from ..resources import check_memory
from .max_statistic import ranks_and_adjusted
from .sequential import LEVEL

_SEED = 0x30BD5

COPIES = 3
"""Arrays of the size of all null values that the adjustment of the p-values needs at once, at least."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def word_associations(
    similarities: Floats, words: Sequence[str], groups: Groups, y: Ints, a: Ints, *, permutations: int, seed: int
) -> pd.DataFrame:
    """How much better each word fits the images of a group than the other images of its class.

    The difference is that of mean similarities. Its p-value compares it with permuted attributes within each class:
    (1 + values at least as large) / (1 + permutations). The same permutations serve all groups and words, so the
    p-values are adjusted for their number by the step-down maximum statistic (Westfall and Young 1993).

    Arguments:
        similarities: cosine similarity of each image and word, [samples, words].
        words: name of each word.
        groups: names of labels, attributes and groups.
        y, a: label and attribute of each sample, [samples].
        permutations: number of permutations.
        seed: of the permutations.

    Returns:
        One row per group and word: group (its name), n (samples), word, difference, p, p_adjusted, and fits_better
        (adjusted p at most 0.05); for each group, the largest difference first. A group that is empty, or the whole of
        its class, has no rows.

    Raises:
        UserError: the null values don't fit into memory.
    """
    classes, values = len(groups.classes), len(groups.attributes)
    counts = np.bincount(groups.of(y, a), minlength=len(groups)).reshape(classes, values)
    others = counts.sum(1, keepdims=True) - counts
    tested = np.flatnonzero((counts > 0) & (others > 0))
    n, n_others = counts.ravel()[tested], others.ravel()[tested]
    of_class = np.array([similarities[y == label].sum(0) for label in range(classes)])[tested // values]
    check_memory(
        COPIES * 8.0 * (1 + permutations) * len(tested) * len(words),
        f"{permutations:,} permutations of {len(tested):,} groups and {len(words):,} words",
        "use fewer permutations or words",
    )

    def differences(attributes: Ints) -> Floats:
        own = (groups.of(y, attributes) == tested[:, None]).astype(float) @ similarities
        return np.asarray(own / n[:, None] - (of_class - own) / n_others[:, None]).ravel()

    rng = np.random.default_rng([seed, _SEED])
    draws = [differences(a), *(differences(_permuted_within(y, a, rng)) for _ in range(permutations))]
    p, adjusted = ranks_and_adjusted(np.array(draws))
    frame = pd.DataFrame(
        {
            "group": np.repeat(np.array(groups.names, object)[tested], len(words)),
            "n": np.repeat(n, len(words)),
            "word": np.tile(np.array(words, object), len(tested)),
            "difference": draws[0],
            "p": p,
            "p_adjusted": adjusted,
            "fits_better": adjusted <= LEVEL,
        }
    )
    order = np.lexsort((-draws[0], np.repeat(tested, len(words))))
    return frame.iloc[order].reset_index(drop=True)


def _permuted_within(y: Ints, a: Ints, rng: np.random.Generator) -> Ints:
    """The attributes in a random order within each class."""
    permuted = np.empty_like(a)
    permuted[np.argsort(y, kind="stable")] = a[np.lexsort((rng.random(len(y)), y))]
    return permuted
