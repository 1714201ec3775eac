"""Random samples with outcomes before and after edits, and group accuracies by fairlearn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from fairlearn.metrics import MetricFrame
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score

import spurious_memorization as sm
from spurious_memorization.engine.outcomes import Block


@st.composite
def cases(draw: st.DrawFn) -> tuple[sm.Samples, Block, Block]:
    """Random labels, attributes and answers, with groups that may be empty."""
    n, n_edits = draw(st.integers(2, 40)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    y, a = rng.integers(0, 3, n), rng.integers(0, 2, n)
    data = sm.from_tensors(torch.zeros(n, 1), y, a, classes=("x", "y", "z"), attributes=("p", "q"))
    return data.train, block(rng, range(-1, 0), y), block(rng, range(n_edits), y)


def block(rng: np.random.Generator, edits: range, y: np.ndarray) -> Block:
    shape = (len(edits), len(y))
    right = rng.random(shape) < 0.6
    predicted = np.where(right, y, rng.integers(0, 3, shape)).astype(np.int16)
    numbers = rng.normal(size=(2, *shape)).astype(np.float32)
    return Block(
        edits=np.array(edits), index=np.arange(len(y)), predicted=predicted, loss=np.abs(numbers[0]), margin=numbers[1]
    )


def by_group(samples: sm.Samples, predicted: np.ndarray) -> pd.Series:
    frame = MetricFrame(metrics=accuracy_score, y_true=samples.y, y_pred=predicted, sensitive_features=samples.g)
    return frame.by_group
