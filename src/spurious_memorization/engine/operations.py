"""Operations of an exported graph: their kinds, their arguments, and how one is carried out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

aten = torch.ops.aten

WEIGHTED = (aten.conv2d.default, aten.linear.default)
"""Operations whose second argument is a weight with one row per output channel, and whose third is a bias."""

LAYERS = (
    *WEIGHTED,
    aten.conv2d.padding,
    *(conv.default for conv in (aten.conv1d, aten.conv3d)),
    aten.conv1d.padding,
    aten.conv3d.padding,
)
"""All layers: also those for inputs of other shapes, and those whose padding is given as a word."""

IN_PLACE: dict[Any, Callable[..., Tensor]] = {
    aten.relu.default: aten.relu_.default,
    aten.add.Tensor: aten.add_.Tensor,
}
"""{operation: the same operation, which writes its result over its first argument}."""

Kernels = Mapping[fx.Node, nn.Module]
"""{layer: a faster kernel for it}: a module with the layer's own weights, which takes the layer's input."""


def call(
    node: fx.Node, value: Callable[[fx.Node], Any], kernels: Kernels | None = None, *, in_place: bool = False
) -> Any:
    """Carry out one operation.

    Arguments:
        node: the operation.
        value: gives the value of each of its arguments.
        kernels: layers that have a kernel of their own, which is used instead.
        in_place: write the result over the first argument.
    """
    if kernels and node in kernels:
        return kernels[node](value(operand(node, 0)))
    target = IN_PLACE[node.target] if in_place else node.target
    assert callable(target)
    return target(*fx.node.map_arg(node.args, value), **fx.node.map_arg(node.kwargs, value))


def can_overwrite(node: fx.Node) -> bool:
    """Whether an operation may write over its first argument.

    That must be the result of a layer or of another such operation, with the same shape, and no other operation may
    read it.
    """
    first = operand(node, 0)
    return (
        node.target in IN_PLACE
        and isinstance(first, fx.Node)
        and (first.target in LAYERS or first.target in IN_PLACE)
        and len(first.users) == 1
        and first.meta["val"].shape == node.meta["val"].shape
    )


def operand(node: fx.Node, position: int) -> Any:
    """An argument of an operation by position; None where it is left out."""
    return node.args[position] if len(node.args) > position else None


def conv_geometry(layer: fx.Node) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Stride, padding and dilation of a two-dimensional convolution, each (height, width)."""
    stride, padding, dilation = (operand(layer, i) or [default] for i, default in ((3, 1), (4, 0), (5, 1)))
    return (stride[0], stride[-1]), (padding[0], padding[-1]), (dilation[0], dilation[-1])


def n_groups(layer: fx.Node) -> int:
    """Number of channel groups of a layer; 1 for a linear one."""
    return int(operand(layer, 6) or 1) if layer.target is aten.conv2d.default else 1


def channel_axis(layer: fx.Node) -> int:
    """Axis of the channels in the output of a layer."""
    ndim: int = layer.meta["val"].ndim
    return 1 if layer.target is aten.conv2d.default else ndim - 1
