"""A program cut into segments between which a single value passes.

In a residual network the cuts lie between its blocks; in a plain network, between its layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..operations import Kernels, aten
from .program import Program


@dataclass(eq=False, kw_only=True)
class Segment:
    """A part of a program: one value goes in, one comes out.

    Arguments:
        name: of the layers in it, such as "layer3.0".
        input: the value that goes in.
        operations: in order; the last gives the value that comes out.
        shared: the values that it reads of those which the inputs alone determine.
        unused_after: by operation: the values that no later operation of the segment reads.
    """

    name: str
    input: fx.Node
    operations: tuple[fx.Node, ...]
    shared: tuple[fx.Node, ...] = ()
    unused_after: Mapping[fx.Node, tuple[fx.Node, ...]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        last_reader = {source: node for node in self.operations for source in node.all_input_nodes}
        self.unused_after = {
            node: tuple(
                source for source in node.all_input_nodes if last_reader[source] is node and source not in self.shared
            )
            for node in self.operations
        }

    @property
    def output(self) -> fx.Node:
        """The operation that gives the value that comes out."""
        return self.operations[-1]


def cut(program: Program) -> list[Segment]:
    """Cut a program wherever a single value crosses that has the samples on its first axis.

    Each segment begins with an operation that reads constants, where possible. So an activation or a pool ends a
    segment rather than beginning one.
    """
    constants = set(program.constant_nodes)
    crossed = _crossed_alone(program)
    segments: list[Segment] = []
    given, part = program.input, []
    for node, following in zip(program.operations, [*program.operations[1:], None], strict=True):
        part.append(node)
        if node is not program.output:
            has_constants = any(_reads(n, constants) for n in part)
            is_better_later = following in crossed and not _reads(following, constants)
            if node not in crossed or not has_constants or is_better_later:
                continue
        segments.append(_segment(program, _common_name(program, part), given, part))
        given, part = node, []
        if node is program.output:
            break
    if len(segments) > 1 and not any(_reads(n, constants) for n in segments[-1].operations):
        last, previous = segments.pop(), segments.pop()
        operations = previous.operations + last.operations
        segments.append(_segment(program, previous.name, previous.input, operations))
    return segments


def _segment(program: Program, name: str, given: fx.Node, operations: Sequence[fx.Node]) -> Segment:
    read = {source for node in operations for source in node.all_input_nodes}
    shared = tuple(node for node in program.shared if node in read)
    return Segment(name=name, input=given, operations=tuple(operations), shared=shared)


def _reads(node: fx.Node, constants: set[fx.Node]) -> bool:
    return not constants.isdisjoint(node.all_input_nodes)


def _crossed_alone(program: Program) -> set[fx.Node]:
    """The operations after which only their own value is still read, with the samples on its first axis."""
    given = () if program.shared else (program.input,)
    position = {node: i for i, node in enumerate(program.operations)}
    last_use = {
        node: max((position[user] for user in node.users if user in position), default=len(position))
        for node in (*given, *program.operations)
    }
    batch = program.input.meta["val"].shape[0]
    result = set()
    for i, node in enumerate(program.operations):
        crossing = [n for n in (*given, *program.operations[: i + 1]) if last_use[n] > i]
        value = node.meta.get("val")
        length: Any = value.shape[0] if isinstance(value, Tensor) and value.ndim else None
        if crossing == [node] and isinstance(length, torch.SymInt) and length == batch:  # a constant may equal it
            result.add(node)
    return result


def _common_name(program: Program, operations: Iterable[fx.Node]) -> str:
    """The longest module name that all layers of these operations have in common."""
    known = program.parameters_of
    used = sorted({name for n in operations for c in n.all_input_nodes if c in known for name in known[c]})
    paths = [name.split(".")[:-1] for name in used]
    common = []
    for words in zip(*paths, strict=False):
        if len(set(words)) > 1:
            break
        common.append(words[0])
    return ".".join(common) or (".".join(paths[0]) if paths else "rest")


def segment_module(
    program: Program, segment: Segment, constants: Mapping[fx.Node, Tensor], kernels: Kernels | None = None
) -> fx.GraphModule:
    """A segment as a module of its own: [rows, ...] in, [rows, ...] out. Shared values are its further arguments.

    Arguments:
        program: of which the segment is a part.
        segment: from `cut`.
        constants: the constants' values, which become buffers of the module.
        kernels: layers that have a kernel of their own, which becomes a submodule.
    """
    graph = fx.Graph()
    root = nn.Module()
    copies: dict[fx.Node, fx.Node] = {}
    given = graph.placeholder("x")
    given.meta = dict(segment.input.meta)
    copies[segment.input] = given
    for number, node in enumerate(segment.shared):
        copies[node] = graph.placeholder(f"shared_{number}")
        copies[node].meta = dict(node.meta)

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
        if kernels and node in kernels:
            root.add_module(f"layer_{number}", kernels[node])
            copies[node] = graph.call_module(f"layer_{number}", (copied(node.all_input_nodes[0]),))
            copies[node].meta = dict(node.meta)
        else:
            copies[node] = graph.node_copy(node, copied)
    graph.output(copies[segment.output])
    return fx.GraphModule(root, graph)
