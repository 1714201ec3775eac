"""A plain, slow version of the step-down maximum statistic, to compare the project's own with."""

from __future__ import annotations

import numpy as np


def step_down(selected: np.ndarray, null: np.ndarray) -> list[float]:
    """Adjusted p-values by the step-down maximum statistic, test by test from the most significant one.

    Arguments:
        selected: the value of the selected set in each test, [tests].
        null: the values of its null sets, [null sets, tests].
    """
    z = [[0.0] * len(selected) for _ in range(len(null) + 1)]
    for q, column in enumerate(np.vstack([selected, null]).T):
        middle, spread = np.mean(column), np.std(column)
        for row, value in enumerate(column):
            z[row][q] = (value - middle) / spread if spread > 1e-9 else 0.0
    left, adjusted, so_far = set(range(len(selected))), [0.0] * len(selected), 0.0
    while left:
        q = max(left, key=lambda test: z[0][test])
        reached = sum(max(row[other] for other in left) >= z[0][q] - 1e-9 for row in z)
        so_far = max(so_far, reached / len(z))
        adjusted[q] = so_far
        left.remove(q)
    return adjusted
