"""What an edit changes, operation by operation, beside the values of the network before any edit.

An edit of a filter changes one channel. As long as an operation treats channels apart (an activation, a pool, a sum),
only that channel has to be calculated again; a layer that mixes channels then gets a change of low rank, which is far
cheaper than the layer itself. From there on every channel differs and the operations run as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from .program import (
    WEIGHTED,
    Program,
    Way,
    aten,
    call,
    channel_affine,
    groups,
    operand,
    overwrites,
    size_value,
    spatial,
)
from .segments import Segment

FEW = 8
"""Up to one channel in so many counts as few: they are calculated apart."""

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
"""Operations that treat channels apart, at least where the channels' axis allows it."""


@dataclass(frozen=True, eq=False)
class Channels:
    """A value that differs from its unedited one in a few channels.

    Arguments:
        axis: of the channels.
        index: the channels, [k].
        new: the value there, of the unedited value's shape but with k channels.
    """

    axis: int
    index: Tensor
    new: Tensor

    def is_as(self, unedited: Tensor) -> bool:
        """Whether nothing differs after all."""
        old = taken(unedited, self.axis, self.index)
        return torch.equal(self.new.expand(old.shape), old)

    def whole(self, unedited: Tensor) -> Tensor:
        """The value with all its channels."""
        result = unedited.clone(memory_format=torch.preserve_format)
        return result.index_copy_(self.axis, self.index, self.new.expand(_with(unedited, self.axis, len(self.index))))


def taken(value: Tensor, axis: int, index: Tensor) -> Tensor:
    """Some channels of a value. On a middle axis of a channels_last value `index_select` would first copy all of it."""
    return value.movedim(axis, -1).index_select(-1, index).movedim(-1, axis)


Change = Channels | Tensor
"""A changed value: in a few channels, or everywhere."""


@dataclass(frozen=True, eq=False)
class Rows:
    """New rows of a layer.

    Arguments:
        index: output channels, [k].
        weight: [k, ...].
        bias: [k] or None.
        is_constant: all weights are zero, so that the bias alone is left.
    """

    index: Tensor
    weight: Tensor
    bias: Tensor | None
    is_constant: bool

    def of(self, layer: fx.Node, x: Tensor, value: Callable[[fx.Node], Any]) -> Tensor:
        """The layer's output in these channels, for the input x."""
        if self.is_constant and self.bias is not None:
            shape = list(layer.meta["val"].shape[1:])
            axis = channel_axis(layer) - 1
            shape[axis] = len(self.index)
            broadcast = [1] * len(shape)
            broadcast[axis] = -1
            return self.bias.reshape(broadcast).expand(len(x), *shape)
        rest = fx.node.map_arg(layer.args[3:], value)
        result: Tensor = layer.target(x, self.weight, self.bias, *rest)  # type: ignore[operator]
        return result


@dataclass(frozen=True, eq=False)
class Prepared:
    """An edit made ready for a program.

    Arguments:
        rows: {layer: its new rows}, where few rows change.
        constants: {constant: its new value}, where much changes.
        touched: operations that either concerns.
    """

    rows: Mapping[fx.Node, Rows]
    constants: Mapping[fx.Node, Tensor]
    touched: frozenset[fx.Node]

    @property
    def n_bytes(self) -> int:
        parts = [
            *self.constants.values(),
            *(t for r in self.rows.values() for t in (r.weight, r.bias) if t is not None),
        ]
        return sum(part.numel() * part.element_size() for part in parts)


def prepare(
    program: Program, unedited: Mapping[fx.Node, Tensor], changed: Mapping[str, Tensor], dtype: torch.dtype
) -> Prepared:
    """Make changed parameters ready: which operations they concern, and where.

    Arguments:
        unedited: the program's constants in full precision.
        changed: new values of parameters, by name.
        dtype: in which the program runs.

    Raises:
        KeyError: a parameter is not part of the program.
    """
    new = program.constants(changed)
    rows: dict[fx.Node, Rows] = {}
    constants: dict[fx.Node, Tensor] = {}
    touched = set()
    for node in program.users_of(new):
        concerned = {n: new[n] for n in node.all_input_nodes if n in new and not torch.equal(new[n], unedited[n])}
        if not concerned:
            continue
        touched.add(node)
        few = _changed_rows(node, concerned, unedited) if takes_rows(node, unedited) else None
        if few is None:
            constants.update({n: as_run(value, dtype) for n, value in concerned.items()})
            continue
        every = {**unedited, **new}
        weight, bias = every[operand(node, 1)], every.get(operand(node, 2))
        part = weight[few]
        rows[node] = Rows(
            few, as_run(part, dtype), None if bias is None else as_run(bias[few], dtype), not part.any().item()
        )
    return Prepared(rows, constants, frozenset(touched))


def as_run(value: Tensor, dtype: torch.dtype) -> Tensor:
    """A constant in the precision and memory order in which the program runs."""
    value = value.to(dtype) if value.is_floating_point() else value
    return value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value.contiguous()


def takes_rows(node: fx.Node, constants: Mapping[fx.Node, Tensor]) -> bool:
    """A layer whose output channels are its weight's rows, each made of all input channels, and whose output has the
    samples on its first axis."""
    if node.target not in WEIGHTED or operand(node, 1) not in constants or groups(node) != 1:
        return False
    n = node.meta["val"].shape[0]
    return isinstance(n, torch.SymInt) and bool(n.node.expr.is_Symbol)  # not 4 n windows, nor tokens before samples


def are_few(k: int, channels: int) -> bool:
    """Whether k of so many channels are calculated apart."""
    return k == 1 or k * FEW <= channels


def channel_axis(layer: fx.Node) -> int:
    """Axis of the channels in the output of a layer."""
    ndim: int = layer.meta["val"].ndim
    return 1 if layer.target is aten.conv2d.default else ndim - 1


def changes(
    program: Program,
    segment: Segment,
    edit: Prepared,
    given: Change | None,
    unedited: Mapping[fx.Node, Tensor],
    constants: Mapping[fx.Node, Tensor],
    ways: Mapping[fx.Node, Way],
) -> Change | None:
    """What an edit makes of a segment's output; None where it stays as it is.

    Arguments:
        edit: made ready; only its rows may concern this segment.
        given: the change of the segment's input.
        unedited: the unedited value of the segment's input and of every operation in it.
        constants: the unedited constants, as the program runs them.
        ways: layers that have a way of their own.
    """
    n = len(unedited[segment.input])
    changed: dict[fx.Node, Change] = {} if given is None else {segment.input: given}

    def value(node: fx.Node) -> Any:
        if node in program.sizes:
            return size_value(node, n)
        if node in constants:
            return constants[node]
        change = changed.get(node)
        if change is None:
            return unedited[node]
        if isinstance(change, Channels):
            change = changed[node] = change.whole(unedited[node])
        return change

    for node in segment.operations:
        if node not in edit.touched and changed.keys().isdisjoint(node.all_input_nodes):
            continue
        change = _change(node, edit.rows.get(node), changed, unedited, constants, ways, value)
        if not isinstance(change, Channels) or not change.is_as(unedited[node]):  # an inactive channel stays so
            changed[node] = change
        for spent in segment.spent[node]:
            changed.pop(spent, None)
    return changed.get(segment.output)


def _change(
    node: fx.Node,
    rows: Rows | None,
    changed: Mapping[fx.Node, Change],
    unedited: Mapping[fx.Node, Any],
    constants: Mapping[fx.Node, Tensor],
    ways: Mapping[fx.Node, Way],
    value: Callable[[fx.Node], Any],
) -> Change:
    if takes_rows(node, constants):
        first = operand(node, 0)
        change = changed.get(first)
        if rows is not None and change is None:
            return Channels(channel_axis(node), rows.index, rows.of(node, unedited[first], value))
        whole = (
            _low_rank(node, change, unedited[first], unedited[node], constants)
            if isinstance(change, Channels) and change.axis == _mixed_axis(node, unedited[first])
            else call(node, value, ways)
        )
        return whole if rows is None else patched(whole, node, rows, value(first), value)
    if any(isinstance(changed.get(n), Channels) for n in node.all_input_nodes):
        few = _channelwise(node, changed, unedited, constants, value)
        if few is not None:
            return few
    result: Change = call(node, value, in_place=operand(node, 0) in changed and overwrites(node))
    return result


def patched(whole: Tensor, layer: fx.Node, rows: Rows, x: Tensor, value: Callable[[fx.Node], Any]) -> Tensor:
    """A layer's output, changed in place, with new rows in place of the layer's own."""
    axis = channel_axis(layer)
    return whole.index_copy_(axis, rows.index, rows.of(layer, x, value).expand(_with(whole, axis, len(rows.index))))


def _low_rank(
    layer: fx.Node, change: Channels, x: Tensor, output: Tensor, constants: Mapping[fx.Node, Tensor]
) -> Tensor:
    """A layer's output when few of its input channels change: output + weight[:, channels] (new - old), summed in one
    matrix product (Toeplitz columns for a convolution)."""
    weight = taken(constants[operand(layer, 1)], 1, change.index)
    difference = change.new - taken(x, change.axis, change.index)
    if layer.target is aten.linear.default:
        flat = torch.addmm(output.reshape(-1, output.shape[-1]), difference.reshape(-1, weight.shape[1]), weight.T)
        return flat.reshape(output.shape)
    stride, padding, dilation = spatial(layer)
    n, channels, height, width = output.shape
    if weight.shape[2:] == (1, 1) and padding == (0, 0):
        columns = difference[:, :, :: stride[0], :: stride[1]].permute(0, 2, 3, 1).reshape(-1, weight.shape[1])
    else:
        columns = F.unfold(difference, weight.shape[2:], dilation, padding, stride).transpose(1, 2)
        columns = columns.reshape(n * height * width, -1)
    flat = torch.addmm(output.permute(0, 2, 3, 1).reshape(-1, channels), columns, weight.flatten(1).T)
    return flat.reshape(n, height, width, channels).permute(0, 3, 1, 2)


def _channelwise(
    node: fx.Node,
    changed: Mapping[fx.Node, Change],
    unedited: Mapping[fx.Node, Any],
    constants: Mapping[fx.Node, Tensor],
    value: Callable[[fx.Node], Any],
) -> Channels | None:
    """The few changed channels of an operation's output, where it treats channels apart; otherwise None."""
    source, few = next((n, c) for n in node.all_input_nodes if isinstance(c := changed.get(n), Channels))
    axis, index = few.axis, few.index
    output = unedited[node]
    if not isinstance(output, Tensor):  # a split
        return None
    if node.target in _ONE_BY_ONE or (node.target in _POOLS and axis == 1 and _is_spatial(node)):
        rest = fx.node.map_arg(node.args[1:], value)
        return Channels(axis, index, node.target(few.new, *rest, **node.kwargs))
    same_axis = unedited[source].ndim == output.ndim and unedited[source].shape[axis] == output.shape[axis]
    if node.target in _SUMS and same_axis and not node.kwargs:
        parts = [_same_channels(arg, few, output, changed, unedited, constants) for arg in node.args[:2]]
        if all(part is not None for part in parts):
            return Channels(axis, index, node.target(*parts))
    if node.target is aten.reshape.default and axis == 1 and output.ndim == 2 and few.new.shape[2:] == (1, 1):
        return Channels(1, index, few.new.reshape(len(output), -1))
    if node.target is channel_affine and axis == 1:
        factor, shift = (constants[n].index_select(0, index) for n in node.all_input_nodes[1:])
        return Channels(axis, index, channel_affine(few.new, factor, shift))
    return None


def _same_channels(
    arg: Any,
    few: Channels,
    output: Tensor,
    changed: Mapping[fx.Node, Change],
    unedited: Mapping[fx.Node, Any],
    constants: Mapping[fx.Node, Tensor],
) -> Any:
    """An argument of a sum in the changed channels alone; None where that makes no sense."""
    if not isinstance(arg, fx.Node):
        return arg
    change = changed.get(arg)
    if isinstance(change, Channels):
        same = change.axis == few.axis and torch.equal(change.index, few.index)
        return change.new if same and change.new.shape == few.new.shape else None
    if change is not None or arg in constants or arg not in unedited or unedited[arg].shape != output.shape:
        return None
    return taken(unedited[arg], few.axis, few.index)


def _changed_rows(layer: fx.Node, new: Mapping[fx.Node, Tensor], unedited: Mapping[fx.Node, Tensor]) -> Tensor | None:
    """Output channels of a layer whose weights or bias differ; None where they are not few."""
    differs = torch.stack([(v != unedited[n]).reshape(len(v), -1).any(1) for n, v in new.items()]).any(0)
    index = differs.nonzero().flatten()
    return index if are_few(len(index), len(differs)) else None


def _mixed_axis(layer: fx.Node, x: Tensor) -> int:
    """Axis of a layer's input that its weight mixes."""
    return 1 if layer.target is aten.conv2d.default else x.ndim - 1


def _is_spatial(node: fx.Node) -> bool:
    """A pool over height and width: always, but for a mean over other axes."""
    if node.target is not aten.mean.dim:
        return True
    ndim = operand(node, 0).meta["val"].ndim
    return sorted(axis % ndim for axis in operand(node, 1)) == [2, 3]


def _with(value: Tensor, axis: int, k: int) -> list[int]:
    shape = list(value.shape)
    shape[axis] = k
    return shape
