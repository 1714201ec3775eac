"""A network's forward pass as a list of tensor operations."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from ..operations import aten, call


class NotExportable(Exception):  # noqa: N818  # a finding, not a failure: the plain engine takes over
    """The network cannot be written as a list of operations. The text gives the reason."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Program:
    """A network's forward pass as a list of operations.

    Arguments:
        operations: the operations that depend on the input, in order. Their arguments are other nodes: operations,
            constants, sizes, shared values, or the input.
        input: the placeholder of the input [samples, ...]; of one of them, if the inputs are a mapping.
        inputs: the placeholders of all inputs, by name. A single tensor has the name "".
        preparations: operations before all others: they depend on the inputs and on no parameter, such as those that
            make an attention mask. No edit changes them.
        shared: the inputs and the results of preparations that the operations read. Those are empty where the
            operations read one input alone: it is then the first value.
        output: the operation that gives the logits [samples, classes].
        sizes: nodes that are whole numbers computed from the batch size.
        constant_nodes: nodes that depend on the parameters alone, in order.
        parameters: every parameter and buffer by name. Layers without a bias have one of zeros.
        parameters_of: names of the parameters from which each constant is computed.
    """

    operations: tuple[fx.Node, ...]
    input: fx.Node
    inputs: Mapping[str, fx.Node]
    preparations: tuple[fx.Node, ...]
    shared: tuple[fx.Node, ...]
    output: fx.Node
    sizes: frozenset[fx.Node]
    constant_nodes: tuple[fx.Node, ...]
    parameters: Mapping[str, Tensor]
    parameters_of: Mapping[fx.Node, frozenset[str]]

    def constants(self, changed: Mapping[str, Tensor] | None = None) -> dict[fx.Node, Tensor]:
        """Compute the constants that are tensors. A tuple or list of tensors is only read by other constants.

        Arguments:
            changed: new values of some parameters, by name. If given, only the constants that depend on them are
                computed.
        """
        values: dict[fx.Node, Any] = {}
        wanted = (n for n in self.constant_nodes if changed is None or not self.parameters_of[n].isdisjoint(changed))
        every = ((node, self._constant(node, changed or {}, values)) for node in wanted)
        return {node: value for node, value in every if isinstance(value, Tensor)}

    def shared_values(self, inputs: Mapping[str, Tensor], constants: Mapping[fx.Node, Tensor]) -> dict[fx.Node, Tensor]:
        """Compute the shared values of a batch.

        Arguments:
            inputs: [samples, ...] each, by name.
            constants: the constants' values.
        """
        values: dict[fx.Node, Any] = {self.inputs[name]: tensor for name, tensor in inputs.items()}
        rows = len(values[self.input])

        def value(node: fx.Node) -> Any:
            if node in self.sizes:
                return size_value(node, rows)
            return constants[node] if node in constants else values[node]

        for node in self.preparations:
            values[node] = call(node, value)
        return {node: values[node] for node in self.shared}

    def users_of(self, constants: Iterable[fx.Node]) -> list[fx.Node]:
        """The operations that read one of these constants, in order."""
        users = {user for node in constants for user in node.users}
        return [node for node in self.operations if node in users]

    def users_of_parameters(self, names: Iterable[str]) -> frozenset[fx.Node]:
        """The operations that read a constant which depends on one of these parameters."""
        wanted = set(names)
        dependent = [node for node in self.constant_nodes if not self.parameters_of[node].isdisjoint(wanted)]
        return frozenset(self.users_of(dependent))

    def _constant(self, node: fx.Node, changed: Mapping[str, Tensor], known: dict[fx.Node, Any]) -> Any:
        """The value of a constant, which is added to those that are known. A function within a function would refer to
        itself, so that the values stayed in memory until Python looks for such circles."""
        if node not in known:
            if node.op == "get_attr":
                name = str(node.target)
                known[node] = changed.get(name, self.parameters[name])
            else:
                known[node] = call(node, lambda source: self._constant(source, changed, known))
        return known[node]


def parameters_of(constant_nodes: Iterable[fx.Node]) -> dict[fx.Node, frozenset[str]]:
    """Names of the parameters from which each constant is computed; the constants are given in order."""
    result: dict[fx.Node, frozenset[str]] = {}
    for node in constant_nodes:
        if node.op == "get_attr":
            result[node] = frozenset([str(node.target)])
        else:
            result[node] = frozenset().union(*(result[source] for source in node.all_input_nodes))
    return result


def size_value(node: fx.Node, rows: int) -> int:
    """The whole number that a node of `Program.sizes` is in a batch of this many rows."""
    if node.target is aten.sym_size.int:
        return rows
    number = call(node, lambda n: size_value(n, rows))
    return operator.index(number)
