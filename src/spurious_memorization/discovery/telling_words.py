"""The words by which the atypical texts of a class differ from its typical ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..datasets.candidate_groups import ATYPICAL, TYPICAL
from ..datasets.groups import Groups
from ..datasets.properties import text_properties
from ..datasets.samples import LEFT_OUT, Dataset
from ..statistics.property_associations import property_associations

COLUMNS = ["y", "property", "nmi", "p", "p_adjusted", "difference"]


def telling_words(data: Dataset, attribute: NDArray[np.str_]) -> pd.DataFrame:
    """The words of texts that go with "atypical" or "typical" among the training samples of a class.

    They are tested as `property_associations` tests whether a word goes with the label, class by class.

    Arguments:
        data: the texts.
        attribute: "typical" or "atypical" for each sample, [samples].

    Returns:
        One row per class and word: y (name of the class), property, nmi, p, p_adjusted and difference, as for
        `property_associations`. Those of a class with the highest mutual information come first.
    """
    words, parts = text_properties(data), []
    for label, name in enumerate(data.groups.classes):
        is_own = (data.split == "train") & (data.y == label)
        of_class = replace(
            data,
            groups=Groups((TYPICAL, ATYPICAL), ("all",)),
            y=(attribute == ATYPICAL).astype(np.int64),
            a=np.zeros(len(data), np.int64),
            split=np.where(is_own, "train", LEFT_OUT),
        )
        if len(np.unique(attribute[is_own])) == 2:
            found = property_associations(of_class, words).query("goes_with_label").assign(y=name)
            parts.append(found.sort_values("nmi", ascending=False, kind="stable")[COLUMNS])
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)
