"""Properties as categories: numbers become low, mid and high."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import UserError
from ..input_files import shown
from .samples import Dataset

N_BINS = 3
BIN_NAMES = {1: ("all",), 2: ("low", "high"), 3: ("low", "mid", "high")}


@dataclass(frozen=True, eq=False, kw_only=True)
class PropertyValues:
    """One property of all samples, as categories.

    Arguments:
        names: of the categories: low, mid and high for numbers, in this order.
        codes: the category of each sample, [samples].
        cuts: what separates the categories of numbers, [categories - 1]: a lower category is under the cut. None for
            names.
    """

    names: tuple[str, ...]
    codes: NDArray[np.int64]
    cuts: NDArray[np.float64] | None = None

    def of_samples(self) -> NDArray[np.object_]:
        """The name of each sample's category, [samples]."""
        return np.array(self.names, object)[self.codes]

    def ranges(self) -> tuple[str, ...]:
        """For each category of numbers, its range in words; "" for names, and if there is only one category."""
        if self.cuts is None or not len(self.cuts):
            return ("",) * len(self.names)
        cuts = [number_text(cut) for cut in self.cuts.tolist()]
        between = [f"{low} to {high}" for low, high in pairwise(cuts)]
        return (f"under {cuts[0]}", *between, f"over {cuts[-1]}")


def property_values(data: Dataset, properties: pd.DataFrame) -> dict[str, PropertyValues]:
    """Each property as categories. Numbers are cut where the training split has its thirds.

    Arguments:
        data: the data set.
        properties: one row per sample, in the order of the data set; numbers or names.

    Raises:
        UserError: there are more or fewer rows than samples, or a value is missing.
    """
    if len(properties) != len(data):
        raise UserError(
            f"the properties have {len(properties)} rows, but the data have {len(data)} samples: "
            "give one row per sample, in the same order"
        )
    train = data.train.index
    return {str(name): _values(str(name), properties[name], train) for name in properties}


def quantile_cuts(values: NDArray[np.float64], n_bins: int = N_BINS) -> NDArray[np.float64]:
    """Where numbers are cut into bins of nearly equal counts. Equal numbers stay together.

    Each quantile is moved to the nearest gap between two different numbers. So numbers of which most are equal still
    give two bins.

    Arguments:
        values: the numbers, [samples].
        n_bins: the largest number of bins.

    Returns:
        The middles of the chosen gaps, increasing, [bins - 1].
    """
    numbers, counts = np.unique(values, return_counts=True)
    if len(numbers) < 2:
        return np.empty(0)
    below = counts.cumsum()[:-1]
    wanted = np.arange(1, n_bins) * len(values) / n_bins
    chosen = np.unique(np.abs(below - wanted[:, None]).argmin(1))
    cuts: NDArray[np.float64] = numbers[chosen] + (numbers[chosen + 1] - numbers[chosen]) / 2
    return cuts


def number_text(value: float) -> str:
    """A number with three digits, or without decimals if it is large."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _values(name: str, column: pd.Series, train: NDArray[np.int64]) -> PropertyValues:
    if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        if column.isna().any():
            raise _missing(name, int(column.isna().to_numpy().argmax()))
        codes, names = pd.factorize(column.astype(str), sort=True)
        return PropertyValues(names=tuple(map(str, names)), codes=codes.astype(np.int64))
    numbers = column.to_numpy(np.float64, na_value=np.nan)
    if not np.isfinite(numbers).all():
        raise _missing(name, int((~np.isfinite(numbers)).argmax()))
    cuts = quantile_cuts(numbers[train])
    return PropertyValues(names=BIN_NAMES[len(cuts) + 1], codes=np.searchsorted(cuts, numbers, side="right"), cuts=cuts)


def _missing(name: str, sample: int) -> UserError:
    return UserError(f"property {shown(name)!r} of sample {sample} is missing or not finite: fill it in")
