"""A network as a straight line of tensor operations, its batch norms folded."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim

from ...errors import first_line
from ...networks.forward import working_copy
from ..silence import quiet

aten = torch.ops.aten

WEIGHTED = (aten.conv2d.default, aten.linear.default)
"""Operations whose second and third argument are a weight, one row an output channel, and a bias."""

LAYERS = (
    *WEIGHTED,
    aten.conv2d.padding,
    *(conv.default for conv in (aten.conv1d, aten.conv3d)),
    aten.conv1d.padding,
    aten.conv3d.padding,
)
"""These and further ones, of other shapes or with their padding in a word."""


IN_PLACE: dict[Any, Callable[..., Tensor]] = {
    aten.relu.default: aten.relu_.default,
    aten.add.Tensor: aten.add_.Tensor,
}
"""Operations, and those that write their result over their first argument."""


Way = Callable[[Tensor], Tensor]
"""A layer with its own constants, as a function of its input."""


class Untraceable(Exception):  # noqa: N818  # a finding, not a failure: the plain engine takes over
    """The network can't be written as a straight line of operations; the text says why."""


@dataclass(frozen=True, eq=False)
class Program:
    """A network's evaluation as a straight line of operations.

    Arguments:
        operations: those that depend on the input, in order. Their arguments are other nodes, of three further kinds:
            constants, sizes and the input.
        input: the placeholder of the input [samples, ...].
        output: the node that gives the logits [samples, classes].
        sizes: nodes that are whole numbers made of the batch size.
        constant_nodes: nodes that depend on the parameters alone, in order.
        parameters: numbers of every parameter and buffer by name; layers without a bias have one of zeros.
    """

    operations: tuple[fx.Node, ...]
    input: fx.Node
    output: fx.Node
    sizes: frozenset[fx.Node]
    constant_nodes: tuple[fx.Node, ...]
    parameters: Mapping[str, Tensor]
    _made_of: dict[fx.Node, frozenset[str]] = field(default_factory=dict, repr=False)

    def constants(self, changed: Mapping[str, Tensor] | None = None) -> dict[fx.Node, Tensor]:
        """Every constant; with `changed` parameters only those that they change."""
        values: dict[fx.Node, Any] = {}

        def value(node: fx.Node) -> Any:
            if node not in values:
                values[node] = self._constant(node, changed or {}, value)
            return values[node]

        wanted = (n for n in self.constant_nodes if changed is None or not self.made_of(n).isdisjoint(changed))
        return {node: value(node) for node in wanted}

    def users_of(self, constants: Iterable[fx.Node]) -> list[fx.Node]:
        """The operations that take one of these constants, in order."""
        taken = {user for node in constants for user in node.users}
        return [node for node in self.operations if node in taken]

    def touched_by(self, names: Iterable[str]) -> frozenset[fx.Node]:
        """The operations that parameters of these names reach."""
        wanted = set(names)
        reached = [node for node in self.constant_nodes if not self.made_of(node).isdisjoint(wanted)]
        return frozenset(self.users_of(reached))

    def made_of(self, node: fx.Node) -> frozenset[str]:
        """Names of the parameters that a constant is made of."""
        if node not in self._made_of:
            if node.op == "get_attr":
                self._made_of[node] = frozenset([str(node.target)])
            else:
                self._made_of[node] = frozenset().union(*(self.made_of(n) for n in node.all_input_nodes))
        return self._made_of[node]

    def _constant(self, node: fx.Node, changed: Mapping[str, Tensor], value: Callable[[fx.Node], Any]) -> Any:
        if node.op == "get_attr":
            name = str(node.target)
            return changed.get(name, self.parameters[name])
        return call(node, value)


def call(
    node: fx.Node, value: Callable[[fx.Node], Any], ways: Mapping[fx.Node, Way] | None = None, *, in_place: bool = False
) -> Any:
    """Carry out one operation on the values of its arguments, in a way of its own where it has one, or `in_place` over
    the first of them."""
    if ways and node in ways:
        return ways[node](value(operand(node, 0)))
    target = IN_PLACE[node.target] if in_place else node.target
    assert callable(target)
    return target(*fx.node.map_arg(node.args, value), **fx.node.map_arg(node.kwargs, value))


def overwrites(node: fx.Node) -> bool:
    """Whether an operation may write over its first argument: that is the result of a layer or of another such
    operation, of the same shape, and nothing else takes it."""
    first = operand(node, 0)
    return (
        node.target in IN_PLACE
        and isinstance(first, fx.Node)
        and (first.target in LAYERS or first.target in IN_PLACE)
        and len(first.users) == 1
        and first.meta["val"].shape == node.meta["val"].shape
    )


def operand(node: fx.Node, number: int) -> Any:
    """An argument of an operation by position; None where it is left out."""
    return node.args[number] if len(node.args) > number else None


def spatial(layer: fx.Node) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Stride, padding and dilation of a convolution."""
    stride, padding, dilation = (operand(layer, i) or [default] for i, default in ((3, 1), (4, 0), (5, 1)))
    return (stride[0], stride[-1]), (padding[0], padding[-1]), (dilation[0], dilation[-1])


def groups(node: fx.Node) -> int:
    """Groups of channels of a layer."""
    return int(operand(node, 6) or 1) if node.target is aten.conv2d.default else 1


def trace(model: nn.Module, example: Tensor) -> Program:
    """Write a network's evaluation as a program.

    Arguments:
        model: the network, which stays as it is.
        example: an input with a batch axis, [samples, ...]; its numbers don't matter.

    Raises:
        Untraceable: its forward pass can't be traced by torch.export with a free batch size, or doesn't give logits.
    """
    network = _Logits(working_copy(model))
    several = example[:1].expand(3, *example.shape[1:])
    try:
        with quiet():
            exported = torch.export.export(network, (several,), dynamic_shapes=({0: Dim.DYNAMIC},))
            exported = exported.run_decompositions({})
    except Exception as error:
        raise Untraceable(f"torch.export can't trace it ({first_line(error)})") from error
    graph = exported.graph_module.graph
    parameters = _named_parameters(graph, exported, network)
    if any(spec.kind.name != "USER_OUTPUT" for spec in exported.graph_signature.output_specs):
        raise Untraceable("it changes its own state in evaluation")
    _fold_batch_norms(graph)
    _plain_pools(graph)
    _give_biases(graph, parameters, network)
    for node in graph.nodes:
        if node.target is aten.view.default:  # memory may be channels-last, which a view refuses
            node.target = aten.reshape.default
    for node in reversed(list(graph.nodes)):
        if node.op in ("get_attr", "call_function") and not node.users:
            graph.erase_node(node)
    return _sorted(graph, parameters)


class _Logits(nn.Module):
    """The network's logits alone, whatever object it gives them in."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        output = self.network(x)
        result: Tensor = getattr(output, "logits", output)
        return result


def _named_parameters(graph: fx.Graph, exported: torch.export.ExportedProgram, network: _Logits) -> dict[str, Tensor]:
    """Turn the placeholders of parameters, buffers and constants into `get_attr` nodes under the network's own names,
    a tied parameter under its first name."""
    first = {id(value): name for name, value in reversed(list(network.named_parameters(remove_duplicate=False)))}
    own = {
        **dict(network.named_parameters(remove_duplicate=False)),
        **dict(network.named_buffers(remove_duplicate=False)),
    }
    parameters: dict[str, Tensor] = {}
    signature = exported.graph_signature
    stored = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    for node in list(graph.nodes):
        if node.op != "placeholder" or node.name not in stored:
            continue
        name = stored[node.name]
        value = own[name] if name in own else exported.constants[name]
        name = first.get(id(value), name).removeprefix("network.")
        parameters[name] = value.detach()
        with graph.inserting_before(node):
            replacement = graph.create_node("get_attr", name, name=node.name)
        replacement.meta = dict(node.meta)
        node.replace_all_uses_with(replacement)
        graph.erase_node(node)
    return parameters


def _fold_batch_norms(graph: fx.Graph) -> None:
    """Fold each batch norm that alone follows a convolution into its weight and bias; write the others as one factor
    and one shift a channel."""
    for norm in list(graph.nodes):
        if norm.target is not aten._native_batch_norm_legit_no_training.default:
            continue
        before, scale, shift, mean, variance, _, epsilon = norm.args
        if any(isinstance(n, fx.Node) and n.op != "get_attr" for n in norm.args[1:5]):
            raise Untraceable("a batch norm's numbers depend on the input")
        with graph.inserting_before(norm):
            if before.target is aten.conv2d.default and len(before.users) == 1 and before.args[1].op == "get_attr":
                x, weight, bias, *rest = (*before.args, None) if len(before.args) == 2 else before.args
                scaled = graph.call_function(folded_weight, (weight, scale, variance, epsilon))
                scaled.meta = dict(weight.meta)
                shifted = graph.call_function(folded_bias, (bias, scale, shift, mean, variance, epsilon))
                folded = graph.call_function(before.target, (x, scaled, shifted, *rest))
            else:
                factor = graph.call_function(norm_factor, (scale, variance, epsilon))
                shifted = graph.call_function(folded_bias, (None, scale, shift, mean, variance, epsilon))
                folded = graph.call_function(channel_affine, (before, factor, shifted))
        folded.meta = dict(before.meta)
        for output in list(norm.users):  # the first of three: the others are its training statistics
            output.replace_all_uses_with(folded)
            graph.erase_node(output)
        graph.erase_node(norm)


def folded_weight(weight: Tensor, scale: Tensor | None, variance: Tensor, epsilon: float) -> Tensor:
    """A convolution's weight [channels, ...] times what the batch norm behind it multiplies each channel with."""
    factor = _factor(scale, variance, epsilon).to(weight.dtype)
    return weight * factor.reshape(-1, *[1] * (weight.ndim - 1))


def folded_bias(
    bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    epsilon: float,
) -> Tensor:
    """The bias [channels] of a convolution with the batch norm behind it: (bias - mean) factor + shift."""
    start = -mean.double() if bias is None else bias.double() - mean.double()
    result = start * _factor(scale, variance, epsilon)
    return (result if shift is None else result + shift.double()).to(mean.dtype)


def norm_factor(scale: Tensor | None, variance: Tensor, epsilon: float) -> Tensor:
    """What a batch norm multiplies each channel with, [channels]."""
    return _factor(scale, variance, epsilon).to(variance.dtype)


def _factor(scale: Tensor | None, variance: Tensor, epsilon: float) -> Tensor:
    inverse = (variance.double() + epsilon).rsqrt()
    return inverse if scale is None else scale.double() * inverse


def channel_affine(x: Tensor, factor: Tensor, shift: Tensor) -> Tensor:
    """A batch norm that couldn't be folded: x [samples, channels, ...] times a factor plus a shift a channel."""
    shape = (-1, *[1] * (x.ndim - 2))
    return torch.addcmul(shift.reshape(shape), x, factor.reshape(shape))


def _plain_pools(graph: fx.Graph) -> None:
    """Write pools that also give positions, which nobody reads, as those that don't."""
    for pool in list(graph.nodes):
        if pool.target is aten.max_pool2d_with_indices.default and all(user.args[1] == 0 for user in pool.users):
            with graph.inserting_before(pool):
                plain = graph.call_function(aten.max_pool2d.default, pool.args, pool.kwargs)
            for output in list(pool.users):
                plain.meta = dict(output.meta)
                output.replace_all_uses_with(plain)
                graph.erase_node(output)
            graph.erase_node(pool)


def _give_biases(graph: fx.Graph, parameters: dict[str, Tensor], network: _Logits) -> None:
    """Give layers without a bias one of zeros, so that an edit can set it (`mean`)."""
    modules = dict(network.named_modules(remove_duplicate=False))
    for layer in list(graph.nodes):
        stack = list(layer.meta.get("nn_module_stack", {}).values())
        if layer.target not in LAYERS or not stack:
            continue
        path = str(stack[-1][0]).partition("@")[0]  # "@1" is the second call of the same module
        module, weight, bias = modules.get(path), operand(layer, 1), operand(layer, 2)
        if not isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d) or module.bias is not None:
            continue
        is_folded = weight.target is folded_weight
        if (operand(bias, 0) if is_folded else bias) is not None or weight.meta["val"].shape != module.weight.shape:
            continue
        name = f"{path.removeprefix('network.')}.bias"
        parameters.setdefault(name, module.weight.detach().new_zeros(len(module.weight)))
        with graph.inserting_before(bias if is_folded else layer):
            zeros = graph.create_node("get_attr", name)
        if is_folded:
            bias.args = (zeros, *bias.args[1:])
        else:
            layer.args = (*layer.args[:2], zeros, *layer.args[3:])


def _sorted(graph: fx.Graph, parameters: Mapping[str, Tensor]) -> Program:
    """Tell operations, constants and sizes apart."""
    (output,) = (node for node in graph.nodes if node.op == "output")
    (given,) = (node for node in graph.nodes if node.op == "placeholder")
    results = output.args[0]
    is_known = len(results) == 1 and isinstance(results[0], fx.Node) and results[0].op == "call_function"
    if not is_known or getattr(results[0].meta.get("val"), "ndim", 0) != 2:
        raise Untraceable("it doesn't give logits of shape [samples, classes]")
    operations: list[fx.Node] = []
    constants: list[fx.Node] = []
    sizes: set[fx.Node] = set()
    moving = {given}
    for node in graph.nodes:
        if node.op == "get_attr":
            constants.append(node)
        elif node.op == "call_function" and not isinstance(node.meta.get("val"), torch.SymInt | int):
            if moving.isdisjoint(node.all_input_nodes) and sizes.isdisjoint(node.all_input_nodes):
                constants.append(node)
            else:
                if isinstance(node.meta.get("val"), torch.SymFloat | torch.SymBool):
                    raise Untraceable("a number on its way is no tensor")
                moving.add(node)
                operations.append(node)
        elif node.op == "call_function":
            sizes.add(node)
            if not moving.isdisjoint(node.all_input_nodes) and node.args[:1] != (given,):
                raise Untraceable("it asks for the size of a value on its way")
    return Program(
        tuple(_close_to_their_use(operations)), given, results[0], frozenset(sizes), tuple(constants), parameters
    )


def _close_to_their_use(operations: Iterable[fx.Node]) -> list[fx.Node]:
    """Move each operation that depends on the batch size alone (a class token, repeated) right before its first use."""
    order = list(operations)
    there = set(order)
    for node in list(order):
        if there.isdisjoint(node.all_input_nodes) and not any(n.op == "placeholder" for n in node.all_input_nodes):
            order.remove(node)
            order.insert(min((order.index(user) for user in node.users if user in there), default=len(order)), node)
    return order


def size_value(node: fx.Node, rows: int) -> int:
    """The whole number that a node of `Program.sizes` stands for in a batch of this many rows."""
    if node.target is aten.sym_size.int:
        return rows
    number = call(node, lambda n: size_value(n, rows))
    return operator.index(number)
