"""A network exported by torch.export and written as a program, its batch norms folded."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim

from ...datasets.sources import Inputs
from ...errors import first_line
from ...networks.forward import first_repeated, logits_in, working_copy
from ..operations import LAYERS, aten, operand
from ..silence import quiet
from .batch_norms import fold_batch_norms, folded_weight
from .program import NotExportable, Program, parameters_of


def export_program(model: nn.Module, example: Inputs) -> Program:
    """Export a network in evaluation mode and write it as a program.

    Arguments:
        model: the network, which stays as it is.
        example: inputs with a batch axis, [samples, ...]; their values do not matter.

    Raises:
        NotExportable: torch.export cannot handle its forward pass with a free batch size, or it does not give logits.
    """
    network = _Logits(working_copy(model))
    several = first_repeated(example, 3)
    free_batch: Any = {0: Dim.DYNAMIC}
    dynamic = free_batch if isinstance(example, Tensor) else dict.fromkeys(example, free_batch)
    try:
        with quiet():
            exported = torch.export.export(network, (several,), dynamic_shapes=(dynamic,))
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
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    names = [""] if isinstance(example, Tensor) else list(example)
    inputs = dict(zip(names, placeholders, strict=True))
    weights = {name.removeprefix("network.") for name, _ in network.named_parameters(remove_duplicate=False)}
    return _program_of(graph, parameters, inputs, weights)


class _Logits(nn.Module):
    """A network that gives its logits alone, also where the network itself gives them as `logits` of something."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Inputs) -> Tensor:
        output = self.network(x) if isinstance(x, Tensor) else self.network(**x)
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


def _program_of(
    graph: fx.Graph, parameters: Mapping[str, Tensor], inputs: Mapping[str, fx.Node], weights: Collection[str]
) -> Program:
    """Sort the nodes of a graph into operations, preparations, constants and sizes.

    Arguments:
        graph: the exported graph.
        parameters: parameters, buffers and constants by name.
        inputs: the placeholders.
        weights: names of the parameters, which edits may change.
    """
    (output,) = (node for node in graph.nodes if node.op == "output")
    results = output.args[0]
    is_known = len(results) == 1 and isinstance(results[0], fx.Node) and results[0].op == "call_function"
    if not is_known or getattr(results[0].meta.get("val"), "ndim", 0) != 2:
        raise NotExportable("it doesn't give logits of shape [samples, classes]")
    operations: list[fx.Node] = []
    constants: list[fx.Node] = []
    sizes: set[fx.Node] = set()
    dependent = set(inputs.values())  # nodes that depend on the input
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
            if not dependent.isdisjoint(node.all_input_nodes) and node.args[0] not in inputs.values():
                raise NotExportable("it reads the size of an intermediate value")
    origin = parameters_of(constants)
    operations, preparations, shared = _prepared_first(
        operations, set(inputs.values()), {node for node in constants if origin[node].isdisjoint(weights)} | sizes
    )
    used = [node for node in inputs.values() if node.users]
    return Program(
        operations=tuple(_close_to_their_use(operations)),
        input=used[0],
        inputs=inputs,
        preparations=tuple(preparations),
        shared=tuple(shared),
        output=results[0],
        sizes=frozenset(sizes),
        constant_nodes=tuple(constants),
        parameters=parameters,
        parameters_of=origin,
    )


def _prepared_first(
    operations: Sequence[fx.Node], inputs: Collection[fx.Node], fixed: Collection[fx.Node]
) -> tuple[list[fx.Node], list[fx.Node], list[fx.Node]]:
    """Take out the operations that depend on inputs and on no parameter, unless they only lead from one input to one
    value that the others read.

    Arguments:
        operations: all that depend on the batch, in order.
        inputs: the placeholders.
        fixed: constants and sizes that no edit changes.

    Returns:
        The operations that stay, those that are taken out, and the values that the former read of the latter. The last
        two are empty where nothing is taken out.

    Raises:
        NotExportable: such a value has the samples on another axis than the first.
    """
    unedited, of_inputs = set(), set(inputs)
    for node in operations:
        if all(n in fixed or n in unedited or n in inputs for n in node.all_input_nodes):
            unedited.add(node)
            if not of_inputs.isdisjoint(node.all_input_nodes):
                of_inputs.add(node)
    main = [node for node in operations if node not in unedited]
    read = {source for node in main for source in node.all_input_nodes}
    shared = [node for node in (*inputs, *operations) if node in of_inputs and node in read]
    if len(shared) < 2 and sum(bool(node.users) for node in inputs) < 2:
        return list(operations), [], []
    for node in shared:
        value = node.meta.get("val")
        sizes = value.shape if isinstance(value, Tensor) else [None]
        if not isinstance(sizes[0] if len(sizes) else None, torch.SymInt) or any(
            isinstance(size, torch.SymInt) for size in sizes[1:]
        ):
            raise NotExportable("what it computes from its inputs alone has no samples on its first axis")
    kept = set(main)
    for node in reversed(operations):  # what depends on the batch size alone stays where it is read
        if node in unedited and node not in of_inputs and any(user in kept for user in node.users):
            kept.add(node)
    return [node for node in operations if node in kept], [node for node in operations if node in unedited], shared


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
