"""A network exported by torch.export and written as a program, its batch norms folded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, fx, nn
from torch.export import Dim

from ...errors import first_line
from ...networks.forward import logits_in, working_copy
from ..operations import LAYERS, aten, operand
from ..silence import quiet
from .batch_norms import fold_batch_norms, folded_weight
from .program import NotExportable, Program, parameters_of


def export_program(model: nn.Module, example: Tensor) -> Program:
    """Export a network in evaluation mode and write it as a program.

    Arguments:
        model: the network, which stays as it is.
        example: an input with a batch axis, [samples, ...]; its values do not matter.

    Raises:
        NotExportable: torch.export cannot handle its forward pass with a free batch size, or it does not give logits.
    """
    network = _Logits(working_copy(model))
    several = example[:1].expand(3, *example.shape[1:])
    try:
        with quiet():
            exported = torch.export.export(network, (several,), dynamic_shapes=({0: Dim.DYNAMIC},))
            exported = exported.run_decompositions({})
    except Exception as error:
        raise NotExportable(f"torch.export can't trace it ({first_line(error)})") from error
    graph = exported.graph_module.graph
    parameters = _named_parameters(graph, exported, network)
    changed = {spec.kind.name for spec in exported.graph_signature.output_specs} - {"USER_OUTPUT"}
    if changed:
        is_input = changed == {"USER_INPUT_MUTATION"}
        raise NotExportable(f"it changes its {'inputs' if is_input else 'own state'} in evaluation")
    fold_batch_norms(graph)
    _drop_pool_positions(graph)
    _add_zero_biases(graph, parameters, network)
    for node in graph.nodes:
        if node.target is aten.view.default:  # memory may be channels-last, where a view fails
            node.target = aten.reshape.default
    for node in reversed(list(graph.nodes)):
        if node.op in ("get_attr", "call_function") and not node.users:
            graph.erase_node(node)
    return _program_of(graph, parameters)


class _Logits(nn.Module):
    """A network that gives its logits alone, also where the network itself gives them as `logits` of something."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        output = self.network(x)
        result: Tensor = logits_in(output)
        return result


def _named_parameters(graph: fx.Graph, exported: torch.export.ExportedProgram, network: _Logits) -> dict[str, Tensor]:
    """Replace the placeholders of parameters, buffers and constants by `get_attr` nodes.

    They get the network's own names. A tied parameter gets its first name.

    Returns:
        The values by name.
    """
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


def _drop_pool_positions(graph: fx.Graph) -> None:
    """Replace max pools that also give positions by plain ones, where nothing reads the positions."""
    for pool in list(graph.nodes):
        if pool.target is aten.max_pool2d_with_indices.default and all(user.args[1] == 0 for user in pool.users):
            with graph.inserting_before(pool):
                plain = graph.call_function(aten.max_pool2d.default, pool.args, pool.kwargs)
            for output in list(pool.users):
                plain.meta = dict(output.meta)
                output.replace_all_uses_with(plain)
                graph.erase_node(output)
            graph.erase_node(pool)


def _add_zero_biases(graph: fx.Graph, parameters: dict[str, Tensor], network: _Logits) -> None:
    """Give each layer without a bias one of zeros, so that an edit such as `mean` can set it."""
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


def _program_of(graph: fx.Graph, parameters: Mapping[str, Tensor]) -> Program:
    """Sort the nodes of a graph into operations, constants and sizes."""
    (output,) = (node for node in graph.nodes if node.op == "output")
    (given,) = (node for node in graph.nodes if node.op == "placeholder")
    results = output.args[0]
    is_known = len(results) == 1 and isinstance(results[0], fx.Node) and results[0].op == "call_function"
    if not is_known or getattr(results[0].meta.get("val"), "ndim", 0) != 2:
        raise NotExportable("it doesn't give logits of shape [samples, classes]")
    operations: list[fx.Node] = []
    constants: list[fx.Node] = []
    sizes: set[fx.Node] = set()
    dependent = {given}  # nodes that depend on the input
    for node in graph.nodes:
        if node.op == "get_attr":
            constants.append(node)
        elif node.op == "call_function" and isinstance(node.meta.get("val"), torch.SymFloat | torch.SymBool):
            raise NotExportable("an intermediate value is a number and no tensor")
        elif node.op == "call_function" and not isinstance(node.meta.get("val"), torch.SymInt | int):
            if dependent.isdisjoint(node.all_input_nodes) and sizes.isdisjoint(node.all_input_nodes):
                constants.append(node)
            else:
                dependent.add(node)
                operations.append(node)
        elif node.op == "call_function":
            sizes.add(node)
            if not dependent.isdisjoint(node.all_input_nodes) and node.args[:1] != (given,):
                raise NotExportable("it reads the size of an intermediate value")
    return Program(
        operations=tuple(_close_to_their_use(operations)),
        input=given,
        output=results[0],
        sizes=frozenset(sizes),
        constant_nodes=tuple(constants),
        parameters=parameters,
        parameters_of=parameters_of(constants),
    )


def _close_to_their_use(operations: Iterable[fx.Node]) -> list[fx.Node]:
    """Move each operation that depends on the batch size alone right before its first use.

    An example is the class token of a transformer, repeated for each sample.
    """
    order = list(operations)
    known = set(order)
    for node in list(order):
        if known.isdisjoint(node.all_input_nodes) and not any(n.op == "placeholder" for n in node.all_input_nodes):
            order.remove(node)
            order.insert(min((order.index(user) for user in node.users if user in known), default=len(order)), node)
    return order
