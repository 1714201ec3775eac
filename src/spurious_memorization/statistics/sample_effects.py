"""What an edit does to each sample."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from ..datasets.samples import Dataset
from ..engine.outcomes import Block


@dataclass(frozen=True, eq=False, kw_only=True)
class SampleEffects:
    """What an edit does to each sample.

    Arguments:
        index: of each sample in the data set, [samples].
        half: the half to which the sample belongs, [samples].
        accuracy_change: correct after minus correct before, [samples].
        margin_before: margin before the edit, [samples].
        margin_change: margin after minus margin before, [samples].
    """

    index: NDArray[np.int64]
    half: NDArray[np.int64]
    accuracy_change: NDArray[np.float64]
    margin_before: NDArray[np.float64]
    margin_change: NDArray[np.float64]

    def where(self, chosen: NDArray[np.bool_]) -> SampleEffects:
        """The effects on the chosen samples."""
        return SampleEffects(**{field.name: getattr(self, field.name)[chosen] for field in fields(self)})


NO_EFFECTS = SampleEffects(
    index=np.zeros(0, np.int64),
    half=np.zeros(0, np.int64),
    accuracy_change=np.zeros(0),
    margin_before=np.zeros(0),
    margin_change=np.zeros(0),
)
"""Effects on no samples."""


def sample_effects(before: Block, after: Block, row: int, halves: NDArray[np.int64], data: Dataset) -> SampleEffects:
    """What the edit in one row of a block does to each of its samples.

    Arguments:
        before: outcomes before any edit, one row.
        after: outcomes of edited networks on the same samples.
        row: of the edit in `after`.
        halves: number of the half of each sample of the whole data set.
        data: the data set.
    """
    y = data.y[before.index]
    margin = before.margin[0].astype(np.float64)
    return SampleEffects(
        index=before.index,
        half=halves[before.index],
        accuracy_change=(after.predicted[row] == y).astype(np.float64) - (before.predicted[0] == y),
        margin_before=margin,
        margin_change=after.margin[row] - margin,
    )


def joined(parts: Iterable[SampleEffects]) -> SampleEffects:
    """Effects on several parts of the samples as one, in the order of the samples' indices."""
    several = list(parts)
    arrays = {
        field.name: np.concatenate([getattr(part, field.name) for part in several]) for field in fields(SampleEffects)
    }
    order = np.argsort(arrays["index"], kind="stable")
    return SampleEffects(**{name: array[order] for name, array in arrays.items()})
