"""Some channels of a value, and of a layer: all of it that an edit of few channels needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from ..operations import n_groups, operand

FEW_DIVISOR = 8
"""Changed channels are few, and are computed apart, if they are at most one in eight of a layer's channels."""


def is_few(k: int, channels: int) -> bool:
    """Whether k of a layer's channels are few enough to be computed apart."""
    return k == 1 or k * FEW_DIVISOR <= channels


def resized(value: Tensor, axis: int, k: int) -> list[int]:
    """The shape of a value with k entries along one axis."""
    shape = list(value.shape)
    shape[axis] = k
    return shape


def select_channels(value: Tensor, axis: int, index: Tensor) -> Tensor:
    """Some channels of a value.

    On a middle axis of a channels-last value, `index_select` alone would first copy the whole value.
    """
    return value.movedim(axis, -1).index_select(-1, index).movedim(-1, axis)


def rows_output(
    layer: fx.Node, given: Tensor, weight: Tensor, bias: Tensor | None, value: Callable[[fx.Node], Any]
) -> Tensor:
    """A layer's output in some of its channels.

    Arguments:
        layer: the layer.
        given: its input; of a convolution with groups only the channels that `channels_read` names.
        weight: rows of its weight, [k, ...].
        bias: their biases, [k], or None.
        value: gives the values of its further arguments.
    """
    rest = fx.node.map_arg(layer.args[3:], value)
    if n_groups(layer) > 1:
        rest = (*rest[:3], len(weight))  # each row is a group of its own
    result: Tensor = layer.target(given, weight, bias, *rest)  # type: ignore[operator]
    return result


def channels_read(conv: fx.Node, rows: Tensor) -> Tensor:
    """The input channels that some output channels [k] of a convolution with groups read, row after row."""
    n_in, n_out = _channels_per_group(conv)
    first = rows // n_out * n_in
    return (first[:, None] + torch.arange(n_in, device=rows.device)).flatten()


def rows_that_read(conv: fx.Node, inputs: Tensor) -> Tensor:
    """The output channels of a convolution with groups that read some of its input channels, in order."""
    n_in, n_out = _channels_per_group(conv)
    rows = torch.arange(n_groups(conv) * n_out, device=inputs.device)
    return torch.isin(rows // n_out, inputs // n_in).nonzero().flatten()


def _channels_per_group(conv: fx.Node) -> tuple[int, int]:
    """Number of input and of output channels."""
    n = n_groups(conv)
    return operand(conv, 0).meta["val"].shape[1] // n, conv.meta["val"].shape[1] // n
