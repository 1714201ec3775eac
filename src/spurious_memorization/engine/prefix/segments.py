"""A program cut where a single value crosses: at the blocks of a residual network, between layers of a plain one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, fx, nn

from ..cpu.winograd import Winograd
from .program import Program, aten


@dataclass(frozen=True, eq=False)
class Segment:
    """A part of a program: one value goes in, one comes out.

    Arguments:
        name: of the layers in it, such as "layer3.0".
        input: the value that goes in.
        operations: in order; the last gives what comes out.
    """

    name: str
    input: fx.Node
    operations: tuple[fx.Node, ...]

    @property
    def output(self) -> fx.Node:
        return self.operations[-1]

    @cached_property
    def spent(self) -> Mapping[fx.Node, tuple[fx.Node, ...]]:
        """The values that nothing in the segment takes after an operation, by operation."""
        last = {taken: node for node in self.operations for taken in node.all_input_nodes}
        return {node: tuple(n for n in node.all_input_nodes if last[n] is node) for node in self.operations}


def cut(program: Program) -> list[Segment]:
    """Cut a program wherever a single value, with the samples on its first axis, crosses; each segment begins with an
    operation with constants where it can, so that an activation or a pool ends a segment rather than beginning one."""
    constants = set(program.constant_nodes)
    crossed = _crossed_alone(program)
    segments: list[Segment] = []
    given, part = program.input, []
    for node, tracking in zip(program.operations, [*program.operations[1:], None], strict=True):
        part.append(node)
        if node is not program.output:
            weighted = any(not constants.isdisjoint(n.all_input_nodes) for n in part)
            later = tracking in crossed and constants.isdisjoint(tracking.all_input_nodes)
            if node not in crossed or not weighted or later:
                continue
        segments.append(Segment(_common_name(program, part), given, tuple(part)))
        given, part = node, []
        if node is program.output:
            break
    if len(segments) > 1 and not any(not constants.isdisjoint(n.all_input_nodes) for n in segments[-1].operations):
        last, before = segments.pop(), segments.pop()
        segments.append(Segment(before.name, before.input, before.operations + last.operations))
    return segments


def _crossed_alone(program: Program) -> set[fx.Node]:
    """The operations after which nothing but their own value, with the samples on its first axis, is taken later."""
    position = {node: i for i, node in enumerate(program.operations)}
    last_use = {
        node: max((position[user] for user in node.users if user in position), default=len(position))
        for node in (program.input, *program.operations)
    }
    batch = program.input.meta["val"].shape[0]
    result = set()
    for i, node in enumerate(program.operations):
        crossing = [n for n in (program.input, *program.operations[: i + 1]) if last_use[n] > i]
        value = node.meta.get("val")
        if crossing == [node] and isinstance(value, Tensor) and value.ndim > 0 and value.shape[0] == batch:
            result.add(node)
    return result


def _common_name(program: Program, operations: Iterable[fx.Node]) -> str:
    """The longest module name that all layers of these operations share."""
    constants = set(program.constant_nodes)
    used = sorted({p for n in operations for c in n.all_input_nodes if c in constants for p in program.made_of(c)})
    paths = [name.split(".")[:-1] for name in used]
    shared = []
    for words in zip(*paths, strict=False):
        if len(set(words)) > 1:
            break
        shared.append(words[0])
    return ".".join(shared) or (".".join(paths[0]) if paths else "rest")


def module(
    program: Program,
    segment: Segment,
    constants: Mapping[fx.Node, Tensor],
    ways: Mapping[fx.Node, Winograd] | None = None,
) -> fx.GraphModule:
    """A segment as a module of its own, with these constants as its buffers: [rows, ...] in, [rows, ...] out; `ways`
    are layers that have a module of their own."""
    graph = fx.Graph()
    root = nn.Module()
    copies: dict[fx.Node, fx.Node] = {}
    given = graph.placeholder("x")
    given.meta = dict(segment.input.meta)
    copies[segment.input] = given

    def copied(node: fx.Node) -> fx.Node:
        if node in copies:
            return copies[node]
        if node in program.sizes:
            if node.target is aten.sym_size.int:
                copies[node] = graph.call_function(aten.sym_size.int, (given, 0))
            else:
                copies[node] = graph.node_copy(node, copied)
        else:
            name = f"constant_{len(list(root.buffers()))}"
            root.register_buffer(name, constants[node])
            copies[node] = graph.get_attr(name)
        return copies[node]

    for number, node in enumerate(segment.operations):
        if ways and node in ways:
            root.add_module(f"layer_{number}", ways[node])
            copies[node] = graph.call_module(f"layer_{number}", (copied(node.all_input_nodes[0]),))
            copies[node].meta = dict(node.meta)
        else:
            copies[node] = graph.node_copy(node, copied)
    graph.output(copies[segment.output])
    return fx.GraphModule(root, graph)
