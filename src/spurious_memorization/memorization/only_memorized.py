"""A data set whose minority groups keep only the training samples that are memorized."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd

from ..datasets.samples import LEFT_OUT, Dataset, checked_dataset
from ..errors import UserError
from .estimates import MEMORIZED


def only_memorized(data: Dataset, scores: pd.DataFrame, min_score: float = MEMORIZED) -> Dataset:
    """The same samples, where minority training samples with lower memorization scores belong to no split.

    A study on these data selects units by memorized samples alone, and measures the minority groups on them. Other
    groups, and unseen samples, stay as they are.

    Arguments:
        data: a data set with minority groups.
        scores: with the columns `sample` and `score`, as `MemorizationScores.scores` returns them for these data.
        min_score: the least score that is kept. A sample without a score is left out.

    Raises:
        UserError: the scores are of other data, or a minority group would lose all its training samples.

    Example:
        ```python
        data = sm.only_memorized(data, sm.MemorizationScores("scores").scores(), 0.25)
        sm.study_in_memory(model, data, sm.StudySettings(size=("3",)))
        ```
    """
    data = checked_dataset(data)
    train = data.train
    if not np.array_equal(np.sort(scores["sample"].to_numpy()), train.index):
        raise UserError("these memorization scores are of other training samples: make them of the same data folder")
    score = scores.set_index("sample")["score"].loc[train.index].to_numpy(float)
    is_minority = np.isin(train.g, data.minority)
    kept = ~is_minority | (score >= min_score - 1e-9)
    for group in data.minority:
        if (train.g == group).any() and not kept[train.g == group].any():
            raise UserError(
                f"no training sample of {data.groups.names[group]!r} has a memorization score of {min_score:g} or "
                "more: lower --min-score"
            )
    return data.leaving_out(train.index[~kept])


def left_out_digest(data: Dataset) -> str:
    """A short text that names the samples that belong to no split."""
    return hashlib.sha256(np.flatnonzero(data.split == LEFT_OUT).astype("<i8").tobytes()).hexdigest()[:12]
