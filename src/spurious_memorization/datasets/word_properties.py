"""Words as properties of texts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .texts import Texts

MIN_SHARE = 0.01
"""Share of the training texts that a word must be in."""

MAX_WORDS = 500
"""Words of a text, or of a second text, that are compared."""

WORD = re.compile(r"\w+(?:['\u2019]\w+)*")


def word_properties(texts: Texts, train: NDArray[np.int64]) -> pd.DataFrame:
    """One row per sample: the number of words, and for each word whether it occurs; see `text_properties`.

    Arguments:
        texts: the texts.
        train: index of the training samples, [training samples].
    """
    columns = _of_part("", texts.texts, train)
    if texts.pairs is not None:
        columns |= _of_part("pair_", texts.pairs, train)
    return pd.DataFrame(columns, index=pd.RangeIndex(len(texts.texts), name="sample"))


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, in order."""
    return WORD.findall(text.lower())


def _of_part(prefix: str, texts: Sequence[str], train: NDArray[np.int64]) -> dict[str, NDArray[np.generic]]:
    words = [words_of(text) for text in texts]
    sets = [frozenset(of_text) for of_text in words]
    counts = Counter(word for sample in train.tolist() for word in sets[sample])
    common = [word for word, n in counts.most_common() if MIN_SHARE * len(train) <= n < len(train)]
    return {
        f"{prefix}words": np.array([len(of_text) for of_text in words]),
        **{f"{prefix}word_{word}": np.array([word in of_text for of_text in sets]) for word in common[:MAX_WORDS]},
    }
