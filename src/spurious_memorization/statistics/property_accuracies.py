"""How right a network is along each property of the images."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..datasets.property_values import property_values
from ..datasets.samples import Dataset
from ..intervals import wilson_interval
from ..runs.run import Run


def property_accuracies(
    run: Run, properties: pd.DataFrame, *, data: Dataset | None = None, split: str = "test", epoch: str | int = "best"
) -> pd.DataFrame:
    """Accuracy of a run's network for each value of each property, class by class.

    Numbers are cut into three bins, where the training split has its thirds. The network's stored answers are used.

    Arguments:
        run: the run.
        properties: one row per sample of the run's data, as `image_properties` returns it.
        data: the run's data; read from its folder if not given.
        split: of the samples.
        epoch: of the network: "best", "last" or a number.

    Returns:
        One row per property, value and class with samples: property, value, range (of numbers, in words), label, n,
        correct, accuracy, low and high (Wilson's 95 % interval), rest_accuracy (of the other samples of the class; nan
        if there are none), and worst: for each property, the row with the lowest upper bound. So a few wrong answers
        alone don't make a row the worst.

    Raises:
        UserError: the split or epoch is missing, or the rows don't fit the data.

    Example:
        ```python
        run = sm.Run("runs/first")
        properties = sm.image_properties(run.read_data())
        sm.property_accuracies(run, properties).query("worst")
        ```
    """
    data = data or run.read_data()
    samples, values = data.samples(split), property_values(data, properties)
    predicted = run.predictions(run.choose_epoch(epoch), split).loc[samples.index].to_numpy().argmax(1)
    is_right = predicted == samples.y
    parts = []
    for name, of_property in values.items():
        shape = len(data.groups.classes), len(of_property.names)
        cell = samples.y * shape[1] + of_property.codes[samples.index]
        n, correct = (
            np.bincount(cell, weights, shape[0] * shape[1]).astype(np.int64).reshape(shape)
            for weights in (None, is_right)
        )
        rest_n, rest_correct = (counts.sum(1, keepdims=True) - counts for counts in (n, correct))
        label, value = np.indices(shape).reshape(2, -1)
        low, high = wilson_interval(correct, n)
        part = pd.DataFrame(
            {
                "property": name,
                "value": np.array(of_property.names, object)[value],
                "range": np.array(of_property.ranges(), object)[value],
                "label": np.array(data.groups.classes, object)[label],
                "n": n.ravel(),
                "correct": correct.ravel(),
                "accuracy": _shares(correct, n),
                "low": low.ravel(),
                "high": high.ravel(),
                "rest_accuracy": _shares(rest_correct, rest_n),
            }
        )
        part["worst"] = part.index == part["high"].idxmin()
        parts.append(part[part["n"] > 0])
    return pd.concat(parts, ignore_index=True)


def _shares(correct: NDArray[np.int64], n: NDArray[np.int64]) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = np.divide(correct, n, out=np.full(n.shape, np.nan), where=n > 0)
    return shares.ravel()
