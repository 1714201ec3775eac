"""An edit prepared for a program: which operations it changes, and their new weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from ..operations import WEIGHTED, channel_axis, n_groups, operand
from .channels import channels_read, is_few, resized, rows_output, select_channels
from .program import Program


@dataclass(frozen=True, eq=False, kw_only=True)
class NewRows:
    """New rows of a layer's weight and bias.

    Arguments:
        index: the layer's output channels, [k].
        weight: their weights, [k, ...].
        bias: their biases, [k], or None.
        has_zero_weight: all weights are zero, so that the output is the bias alone.
    """

    index: Tensor
    weight: Tensor
    bias: Tensor | None
    has_zero_weight: bool

    def output(self, layer: fx.Node, x: Tensor, value: Callable[[fx.Node], Any]) -> Tensor:
        """The layer's output in these channels.

        Arguments:
            layer: the layer.
            x: its input.
            value: gives the values of its further arguments.
        """
        if self.has_zero_weight and self.bias is not None:
            shape = list(layer.meta["val"].shape[1:])
            axis = channel_axis(layer) - 1
            shape[axis] = len(self.index)
            broadcast = [1] * len(shape)
            broadcast[axis] = -1
            return self.bias.reshape(broadcast).expand(len(x), *shape)
        given = x if n_groups(layer) == 1 else select_channels(x, 1, channels_read(layer, self.index))
        return rows_output(layer, given, self.weight, self.bias, value)

    def write(self, whole: Tensor, layer: fx.Node, x: Tensor, value: Callable[[fx.Node], Any]) -> Tensor:
        """Write the new rows' output into the layer's whole output, in place."""
        axis = channel_axis(layer)
        rows = self.output(layer, x, value).expand(resized(whole, axis, len(self.index)))
        return whole.index_copy_(axis, self.index, rows)


@dataclass(frozen=True, eq=False, kw_only=True)
class PreparedEdit:
    """An edit prepared for a program.

    Arguments:
        rows: {layer: its new rows}, where few rows change.
        constants: {constant: its new value}, where many rows change or the operation is no layer.
        operations: the operations that read a changed parameter.
    """

    rows: Mapping[fx.Node, NewRows]
    constants: Mapping[fx.Node, Tensor]
    operations: frozenset[fx.Node]

    @property
    def n_bytes(self) -> int:
        """Size of the new weights."""
        tensors = [
            *self.constants.values(),
            *(t for r in self.rows.values() for t in (r.weight, r.bias) if t is not None),
        ]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def prepare_edit(
    program: Program, unedited: Mapping[fx.Node, Tensor], changed: Mapping[str, Tensor], dtype: torch.dtype
) -> PreparedEdit:
    """Find the operations that changed parameters concern, and the rows that change.

    Arguments:
        program: of the network before any edit.
        unedited: the program's constants in full precision.
        changed: new values of parameters, by name.
        dtype: type of the program's values when it runs.

    Raises:
        KeyError: a parameter is not part of the program.
    """
    new = program.constants(changed)
    rows: dict[fx.Node, NewRows] = {}
    constants: dict[fx.Node, Tensor] = {}
    operations = set()
    for node in program.users_of(new):
        different = {n: new[n] for n in node.all_input_nodes if n in new and not torch.equal(new[n], unedited[n])}
        if not different:
            continue
        operations.add(node)
        index = _changed_rows(node, different, unedited) if has_rows(node, unedited) else None
        if index is None:
            constants.update({n: in_run_format(value, dtype) for n, value in different.items()})
            continue
        current = {**unedited, **new}
        weight, bias = current[operand(node, 1)][index], current.get(operand(node, 2))
        rows[node] = NewRows(
            index=index,
            weight=in_run_format(weight, dtype),
            bias=None if bias is None else in_run_format(bias[index], dtype),
            has_zero_weight=not weight.any().item(),
        )
    return PreparedEdit(rows=rows, constants=constants, operations=frozenset(operations))


def in_run_format(value: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor in the type and memory order in which the program runs."""
    value = value.to(dtype) if value.is_floating_point() else value
    return value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value.contiguous()


def has_rows(node: fx.Node, constants: Mapping[fx.Node, Tensor]) -> bool:
    """Whether an operation is a layer whose output channels can be computed one by one.

    Each row of its weight then gives one output channel, and its output has the samples on its first axis.
    """
    if node.target not in WEIGHTED or operand(node, 1) not in constants:
        return False
    n = node.meta["val"].shape[0]
    return isinstance(n, torch.SymInt) and bool(n.node.expr.is_Symbol)  # not 4 n windows, nor tokens before samples


def _changed_rows(layer: fx.Node, new: Mapping[fx.Node, Tensor], unedited: Mapping[fx.Node, Tensor]) -> Tensor | None:
    """Output channels of a layer whose weights or bias differ; None where they are not few."""
    differs = torch.stack([(v != unedited[n]).reshape(len(v), -1).any(1) for n, v in new.items()]).any(0)
    index = differs.nonzero().flatten()
    return index if is_few(len(index), len(differs)) else None
