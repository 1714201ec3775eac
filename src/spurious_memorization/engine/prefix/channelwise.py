"""Operations that treat channels apart: they carry a change of few channels on to the same few channels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from ..operations import aten, operand
from .batch_norms import channel_affine
from .channels import resized, select_channels

_ONE_BY_ONE = {
    aten.relu.default,
    aten.gelu.default,
    aten.silu.default,
    aten.sigmoid.default,
    aten.tanh.default,
    aten.hardtanh.default,
    aten.hardswish.default,
    aten.hardsigmoid.default,
    aten.leaky_relu.default,
    aten.elu.default,
    aten.clone.default,
    aten.dropout.default,
}
_POOLS = {
    aten.max_pool2d.default,
    aten.avg_pool2d.default,
    aten.adaptive_avg_pool2d.default,
    aten.mean.dim,
}
_SUMS = {aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor}

CHANNELWISE = _ONE_BY_ONE | _POOLS | _SUMS | {aten.reshape.default, channel_affine}
"""Operations that treat channels apart, at least where the axis of the channels allows it."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ChangedChannels:
    """A value that differs from its unedited one in a few channels.

    Arguments:
        axis: axis of the channels.
        index: the changed channels, [k].
        new: the value in these channels: the unedited value's shape, but with k channels.
    """

    axis: int
    index: Tensor
    new: Tensor

    def equals(self, unedited: Tensor) -> bool:
        """Whether the new values are equal to the unedited ones after all."""
        old = select_channels(unedited, self.axis, self.index)
        return torch.equal(self.new.expand(old.shape), old)

    def channels(self, wanted: Tensor, unedited: Tensor) -> Tensor:
        """The value in some channels [wanted]: the new value where it is changed, else the unedited one."""
        result = select_channels(unedited, self.axis, wanted)
        where, which = (wanted[:, None] == self.index).nonzero(as_tuple=True)
        return result.index_copy_(self.axis, where, self.new.index_select(self.axis, which))

    def whole(self, unedited: Tensor) -> Tensor:
        """The value with all its channels."""
        result = unedited.clone(memory_format=torch.preserve_format)
        new = self.new.expand(resized(unedited, self.axis, len(self.index)))
        return result.index_copy_(self.axis, self.index, new)


Change = ChangedChannels | Tensor
"""A changed value: in a few channels, or everywhere."""


def channelwise_change(
    node: fx.Node,
    changed: Mapping[fx.Node, Change],
    unedited: Mapping[fx.Node, Any],
    constants: Mapping[fx.Node, Tensor],
    value: Callable[[fx.Node], Any],
) -> ChangedChannels | None:
    """The few changed channels of an operation's output, where the operation treats channels apart; otherwise None.

    Arguments:
        node: an operation. At least one of its arguments is changed in a few channels.
        changed: the changed values.
        unedited: the unedited values.
        constants: the unedited constants.
        value: gives a whole value as the edit leaves it.
    """
    source, few = next((n, c) for n in node.all_input_nodes if isinstance(c := changed.get(n), ChangedChannels))
    axis, index = few.axis, few.index
    output = unedited[node]
    if not isinstance(output, Tensor):  # a split
        return None
    if node.target in _ONE_BY_ONE or (node.target in _POOLS and axis == 1 and _is_spatial(node)):
        rest = fx.node.map_arg(node.args[1:], value)
        return ChangedChannels(axis=axis, index=index, new=node.target(few.new, *rest, **node.kwargs))
    same_axis = unedited[source].ndim == output.ndim and unedited[source].shape[axis] == output.shape[axis]
    if node.target in _SUMS and same_axis and not node.kwargs:
        parts = [_in_channels(arg, few, output, changed, unedited, constants) for arg in node.args[:2]]
        if all(part is not None for part in parts):
            return ChangedChannels(axis=axis, index=index, new=node.target(*parts))
    if node.target is aten.reshape.default and axis == 1 and output.ndim == 2 and few.new.shape[2:] == (1, 1):
        return ChangedChannels(axis=1, index=index, new=few.new.reshape(len(output), -1))
    if node.target is channel_affine and axis == 1:
        factor, offset = (constants[n].index_select(0, index) for n in node.all_input_nodes[1:])
        return ChangedChannels(axis=axis, index=index, new=channel_affine(few.new, factor, offset))
    return None


def _in_channels(
    arg: Any,
    few: ChangedChannels,
    output: Tensor,
    changed: Mapping[fx.Node, Change],
    unedited: Mapping[fx.Node, Any],
    constants: Mapping[fx.Node, Tensor],
) -> Any:
    """An argument of a sum or product in the changed channels alone; None where these cannot be computed apart."""
    if not isinstance(arg, fx.Node):
        return arg
    change = changed.get(arg)
    if isinstance(change, ChangedChannels):
        same = change.axis == few.axis and torch.equal(change.index, few.index)
        return change.new if same and change.new.shape == few.new.shape else None
    if change is not None or arg in constants or arg not in unedited or unedited[arg].shape != output.shape:
        return None
    return select_channels(unedited[arg], few.axis, few.index)


def _is_spatial(node: fx.Node) -> bool:
    """Whether a pool goes over height and width: always, except for a mean over other axes."""
    if node.target is not aten.mean.dim:
        return True
    ndim = operand(node, 0).meta["val"].ndim
    return sorted(axis % ndim for axis in operand(node, 1)) == [2, 3]
