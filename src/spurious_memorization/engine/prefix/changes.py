"""What an edit changes in a segment, operation by operation, compared with the values before any edit.

An edit of a filter changes one channel. While operations treat channels apart (activations, pools, sums), only that
channel is computed again. A layer that mixes channels then gets a change of low rank, which costs far less than the
layer itself. From there on every channel differs, and the operations run as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from ..operations import Kernels, aten, call, can_overwrite, channel_axis, conv_geometry, n_groups, operand
from .channels import channels_read, is_few, rows_output, rows_that_read, select_channels
from .channelwise import Change, ChangedChannels, channelwise_change
from .prepared import NewRows, PreparedEdit, has_rows
from .program import Program, size_value
from .segments import Segment


def segment_change(
    program: Program,
    segment: Segment,
    edit: PreparedEdit,
    given: Change | None,
    *,
    unedited: Mapping[fx.Node, Tensor],
    constants: Mapping[fx.Node, Tensor],
    kernels: Kernels,
) -> Change | None:
    """The change of a segment's output under an edit; None where the output stays as it is.

    Arguments:
        program: of which the segment is a part.
        segment: the segment.
        edit: the edit.
        given: the change of the segment's input.
        unedited: the unedited values of the segment's input and of every operation in it.
        constants: the unedited constants, as the program runs them.
        kernels: layers that have a kernel of their own.
    """
    n = len(unedited[segment.input])
    changed: dict[fx.Node, Change] = {} if given is None else {segment.input: given}

    def value(node: fx.Node) -> Any:
        if node in program.sizes:
            return size_value(node, n)
        if node in constants:
            return edit.constants.get(node, constants[node])
        change = changed.get(node)
        if change is None:
            return unedited[node]
        if isinstance(change, ChangedChannels):
            change = changed[node] = change.whole(unedited[node])
        return change

    for node in segment.operations:
        if node not in edit.operations and changed.keys().isdisjoint(node.all_input_nodes):
            continue
        if node in edit.operations and node not in edit.rows:
            change = call(node, value)
        else:
            change = _output_change(node, edit.rows.get(node), changed, unedited, constants, kernels, value)
        # A channel that an activation sets to zero in both networks does not differ after all.
        if not isinstance(change, ChangedChannels) or not change.equals(unedited[node]):
            changed[node] = change
        for unused in segment.unused_after[node]:
            changed.pop(unused, None)
    return changed.get(segment.output)


def _output_change(
    node: fx.Node,
    rows: NewRows | None,
    changed: Mapping[fx.Node, Change],
    unedited: Mapping[fx.Node, Any],
    constants: Mapping[fx.Node, Tensor],
    kernels: Kernels,
    value: Callable[[fx.Node], Any],
) -> Change:
    """The change of one operation's output; the operation reads unedited constants, but for these rows."""
    if has_rows(node, constants):
        source = operand(node, 0)
        change = changed.get(source)
        if rows is not None and change is None:
            new = rows.output(node, value(source), value)
            return ChangedChannels(axis=channel_axis(node), index=rows.index, new=new)
        whole: Tensor | None = None
        if isinstance(change, ChangedChannels) and change.axis == _mixed_axis(node, unedited[source]):
            if n_groups(node) == 1:
                whole = _low_rank_update(node, change, unedited[source], unedited[node], constants)
            elif rows is None and (few := _change_in_groups(node, change, unedited[source], constants, value)):
                return few
        whole = call(node, value, kernels) if whole is None else whole
        return whole if rows is None else rows.write(whole, node, value(source), value)
    if any(isinstance(changed.get(n), ChangedChannels) for n in node.all_input_nodes):
        few = channelwise_change(node, changed, unedited, constants, value)
        if few is not None:
            return few
    result: Change = call(node, value, in_place=operand(node, 0) in changed and can_overwrite(node))
    return result


def _change_in_groups(
    conv: fx.Node,
    change: ChangedChannels,
    x: Tensor,
    constants: Mapping[fx.Node, Tensor],
    value: Callable[[fx.Node], Any],
) -> ChangedChannels | None:
    """The change of a convolution with groups: in all channels of the groups that read a changed channel.

    Returns:
        None where these are not few.
    """
    rows = rows_that_read(conv, change.index)
    weight, bias = constants[operand(conv, 1)], constants.get(operand(conv, 2))
    if not is_few(len(rows), len(weight)):
        return None
    given = change.channels(channels_read(conv, rows), x)
    new = rows_output(conv, given, weight[rows], None if bias is None else bias[rows], value)
    return ChangedChannels(axis=1, index=rows, new=new)


def _low_rank_update(
    layer: fx.Node, change: ChangedChannels, x: Tensor, output: Tensor, constants: Mapping[fx.Node, Tensor]
) -> Tensor:
    """A layer's output when few of its input channels change: output + weight[:, channels] (new - old).

    The sum is one matrix product. For a convolution its columns are the patches of the difference (`unfold`).
    """
    weight = select_channels(constants[operand(layer, 1)], 1, change.index)
    difference = change.new - select_channels(x, change.axis, change.index)
    if layer.target is aten.linear.default:
        flat = torch.addmm(output.reshape(-1, output.shape[-1]), difference.reshape(-1, weight.shape[1]), weight.T)
        return flat.reshape(output.shape)
    stride, padding, dilation = conv_geometry(layer)
    n, channels, height, width = output.shape
    if weight.shape[2:] == (1, 1) and padding == (0, 0):
        columns = difference[:, :, :: stride[0], :: stride[1]].permute(0, 2, 3, 1).reshape(-1, weight.shape[1])
    else:
        columns = F.unfold(difference, weight.shape[2:], dilation, padding, stride).transpose(1, 2)
        columns = columns.reshape(n * height * width, -1)
    flat = torch.addmm(output.permute(0, 2, 3, 1).reshape(-1, channels), columns, weight.flatten(1).T)
    return flat.reshape(n, height, width, channels).permute(0, 3, 1, 2)


def _mixed_axis(layer: fx.Node, x: Tensor) -> int:
    """Axis of a layer's input over which its weight sums."""
    return 1 if layer.target is aten.conv2d.default else x.ndim - 1
