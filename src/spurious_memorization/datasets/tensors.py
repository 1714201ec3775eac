"""Data sets from tensors in memory, and the inputs and labels that users have: arrays, lists, other types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..console import log
from ..errors import UserError, first_line
from .groups import Groups
from .samples import SPLITS, Dataset, Samples, checked_samples
from .sources import Batch, Inputs, Tensors

MAX_LABEL = 100_000
"""A larger number is no index of a class, and a list of as many names would be useless."""


def from_tensors(
    x: Inputs | ArrayLike | Sequence[Tensor],
    y: ArrayLike,
    a: ArrayLike,
    split: ArrayLike | None = None,
    *,
    classes: Sequence[str] | None = None,
    attributes: Sequence[str] | None = None,
) -> Dataset:
    """Make a data set from tensors, or from what can be read as tensors: arrays, lists, pandas columns.

    Arguments:
        x: inputs, [samples, ...], or a mapping of such tensors. The names are the network's argument names. Floats of
            another precision become float32. Images of type uint8, [samples, channels, height, width], are divided by
            255, and a line says so.
        y: labels 0, 1, ..., [samples]; also [samples, 1], or one-hot [samples, classes].
        a: spurious attribute values 0, 1, ..., in the same forms.
        split: "train", "val" or "test" for each sample, or one of them for all; by default all "train".
        classes: names of the labels; by default their numbers.
        attributes: names of the attribute values; by default their numbers.

    Returns:
        The data set. Where nothing is converted, its inputs are these tensors, not copies.

    Raises:
        UserError: the lengths differ or are 0, an input is not a number, a label or an attribute value is not a whole
            number from 0, or a split is unknown.

    Example:
        ```python
        samples = sm.from_tensors(torch.randn(8, 3, 16, 16), y=[0, 1] * 4, a=[0, 0, 1, 1] * 2)
        ```
    """
    inputs = as_inputs(x)
    n = _length(inputs)
    labels, n_classes = _indices(y, "y", classes)
    values, n_values = _indices(a, "a", attributes)
    splits = np.asarray("train" if split is None else split, dtype=str)
    splits = np.full(n, splits) if splits.ndim == 0 else splits
    if not n == len(labels) == len(values) == len(splits):
        raise UserError(
            f"x, y, a and split must have the same length, not {n}, {len(labels)}, {len(values)}, {len(splits)}"
        )
    if unknown := sorted(set(splits.tolist()) - set(SPLITS)):
        raise UserError(f"unknown split {unknown[0]!r}: choose among {', '.join(SPLITS)}")
    groups = Groups(
        tuple(classes or map(str, range(n_classes))),
        tuple(attributes or map(str, range(n_values))),
    )
    return Dataset(name="tensors", groups=groups, y=labels, a=values, split=splits, source=Tensors(inputs))


def as_inputs(x: Any) -> Inputs:
    """Inputs of a network from tensors, arrays or lists; see `from_tensors`.

    Raises:
        UserError: they can't be read as numbers, have no samples, or contain NaN.
    """
    if isinstance(x, Mapping):
        inputs = {str(name): _numbers(value, f"x[{name!r}]") for name, value in x.items()}
        if len({len(value) for value in inputs.values()}) != 1:
            raise UserError("the tensors in x must have the same length: give one entry per sample in each")
        return inputs
    return _numbers(x, "x")


def as_batch(batch: Any) -> Batch | Samples:
    """Samples, or a batch of them, from what users have: a pair (x, y), or a data set with one split.

    Raises:
        UserError: they are something else, or as for `from_tensors`.
    """
    match batch:
        case Samples() | Dataset():
            return checked_samples(batch)
        case Batch():
            x, y, index = batch
        case (x, y):
            index = torch.arange(0)
        case _:
            raise UserError(
                f"the samples are a {type(batch).__name__}: give samples such as data.train, or a pair (x, y)"
            )
    inputs, labels = as_inputs(x), torch.from_numpy(_indices(y, "y", None)[0])
    if _length(inputs) != len(labels):
        raise UserError(f"x and y must have the same length, not {_length(inputs)} and {len(labels)}")
    return Batch(inputs, labels, index if len(index) else torch.arange(len(labels)))


def _length(inputs: Inputs) -> int:
    return len(next(iter(inputs.values()))) if isinstance(inputs, Mapping) else len(inputs)


def _numbers(values: Any, name: str) -> Tensor:
    """One tensor, [samples, ...], without gradients: float32, or a whole-number type as it is."""
    tensor = _tensor(values, name).detach()
    if tensor.layout != torch.strided or tensor.is_quantized:
        raise UserError(f"{name} is sparse or quantized: give a dense tensor of numbers")
    if not tensor.ndim or not len(tensor):
        raise UserError(f"{name} has no samples: its first axis must be that of the samples")
    if tensor.is_complex():
        raise UserError(f"{name} has complex numbers: give real ones")
    if tensor.dtype == torch.uint8:
        if tensor.ndim != 4:
            raise UserError(
                f"{name} is of type uint8 and shape {list(tensor.shape)}: convert it to float32 as you need"
            )
        log(f"{name} holds images of type uint8: they are divided by 255")
        return tensor.float() / 255
    if tensor.is_floating_point():
        tensor = tensor.to(torch.float32)
        if (broken := tensor.isnan().flatten(1).any(1) if tensor.ndim > 1 else tensor.isnan()).any():
            raise UserError(f"{name} has a value that is not a number, first in sample {int(broken.int().argmax())}")
    return tensor


def _tensor(values: Any, name: str) -> Tensor:
    if isinstance(values, Tensor):
        return values
    try:
        if isinstance(values, list | tuple) and values and isinstance(values[0], Tensor):
            return torch.stack([torch.as_tensor(value) for value in values])
        return torch.from_numpy(_array(values, name))
    except (RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{name} can't be read as numbers ({first_line(error)}): give a tensor or an array") from error


def _array(values: Any, name: str) -> NDArray[Any]:
    """A writable array, in the byte order of this machine."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = values.double() if values.is_floating_point() else values
    try:
        array = np.asarray(values)
    except (RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{name} can't be read as numbers ({first_line(error)}): give a tensor or an array") from error
    if array.dtype.kind not in "biufc":
        raise UserError(f"{name} must hold numbers, not {array.dtype.name}: use read_data for names and image files")
    return np.require(array, array.dtype.newbyteorder("="), ["C", "W"])


def _indices(values: Any, name: str, names: Sequence[str] | None) -> tuple[NDArray[np.int64], int]:
    """Labels or attribute values as whole numbers, [samples], and how many different ones there may be."""
    array = _array(values, name)
    width = 0
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    elif array.ndim == 2 and (np.isin(array, (0, 1)).all() and (array.sum(1) == 1).all()):
        array, width = array.argmax(1), array.shape[1]
    if array.ndim != 1:
        raise UserError(f"{name} has shape {list(array.shape)}: give one whole number per sample, or one-hot rows")
    wrong = (array < 0) | (array > MAX_LABEL) | (array != np.floor(array)) if array.dtype.kind in "iuf" else None
    if array.dtype.kind == "c" or (wrong is not None and wrong.any()):
        example = "complex numbers" if wrong is None else array[wrong][0]
        raise UserError(f"{name} must contain whole numbers from 0, not {example}: use read_data for names")
    n = max(width, int(array.max(initial=0)) + 1)
    if names is not None and len(array) and n > len(names):
        raise UserError(f"{name} contains {n - 1}, but only {len(names)} names are given")
    return array.astype(np.int64), n
