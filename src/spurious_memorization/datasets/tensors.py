"""Data sets from tensors in memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..errors import UserError
from .groups import Groups
from .samples import SPLITS, Dataset
from .sources import Inputs, Tensors


def from_tensors(
    x: Inputs,
    y: ArrayLike,
    a: ArrayLike,
    split: ArrayLike | None = None,
    *,
    classes: tuple[str, ...] | None = None,
    attributes: tuple[str, ...] | None = None,
) -> Dataset:
    """Make a data set from tensors.

    Arguments:
        x: inputs, [samples, ...], or a mapping of such tensors. The names are the network's argument names.
        y: labels 0, 1, ..., [samples].
        a: spurious attribute values 0, 1, ..., [samples].
        split: "train", "val" or "test" for each sample; by default all "train".
        classes: names of the labels; by default their numbers.
        attributes: names of the attribute values; by default their numbers.

    Returns:
        The data set. Its inputs are these tensors, not copies.

    Raises:
        UserError: the lengths differ, a label or an attribute value is not a whole number from 0, or a split is
            unknown.

    Example:
        ```python
        samples = sm.from_tensors(torch.randn(8, 3, 16, 16), y=[0, 1] * 4, a=[0, 0, 1, 1] * 2)
        ```
    """
    labels, values = _indices(y, "y", classes), _indices(a, "a", attributes)
    n = len(x) if isinstance(x, Tensor) else len(next(iter(x.values())))
    splits = np.full(n, "train") if split is None else np.asarray(split, dtype=str)
    if not n == len(labels) == len(values) == len(splits):
        raise UserError(
            f"x, y, a and split must have the same length, not {n}, {len(labels)}, {len(values)}, {len(splits)}"
        )
    if unknown := sorted(set(splits.tolist()) - set(SPLITS)):
        raise UserError(f"unknown split {unknown[0]!r}: choose among {', '.join(SPLITS)}")
    groups = Groups(
        classes or tuple(map(str, range(int(labels.max(initial=0)) + 1))),
        attributes or tuple(map(str, range(int(values.max(initial=0)) + 1))),
    )
    return Dataset(name="tensors", groups=groups, y=labels, a=values, split=splits, source=Tensors(x))


def _indices(values: ArrayLike, name: str, names: tuple[str, ...] | None) -> NDArray[np.int64]:
    array = np.asarray(values)
    if not np.issubdtype(array.dtype, np.integer) or (len(array) and array.min() < 0):
        raise UserError(f"{name} must contain whole numbers from 0: use read_data for names")
    if names is not None and len(array) and array.max() >= len(names):
        raise UserError(f"{name} contains {array.max()}, but only {len(names)} names are given")
    return array.astype(np.int64)
