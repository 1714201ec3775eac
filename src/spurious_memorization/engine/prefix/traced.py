"""A network cut into segments and ready to run: unedited, edited, and for a stack of edits at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn

from ...edits.apply import edited_tensors
from ...edits.edit import Edit
from ...errors import first_line
from ...networks.forward import logits
from ...networks.names import Precision, UnitKind
from ...networks.units import short_name
from ..cpu.fused import fused
from ..cpu.winograd import Winograd, winograd_layers
from .changes import Prepared, are_few, as_run, patched, prepare
from .compiled import Run, compiled
from .program import Program, Untraceable, Way, call, operand, overwrites, size_value, trace
from .segments import Segment, cut, module
from .work import edited_work, full_work

KEPT_BYTES = 256_000_000
"""Size of the prepared edits that are kept from batch to batch."""

DTYPES: dict[Precision, torch.dtype] = {"float32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, eq=False)
class Traced:
    """A network cut into segments, ready to run in one precision.

    Arguments:
        model: the network itself, in evaluation mode.
        program: its operations.
        segments: the program, cut.
        exact: its constants as they are.
        constants: its constants as it runs.
        ways: layers that have a faster way than their operation.
        runs: each segment as a function.
        dtype: of its values.
        is_compiled: whether its segments are.
        reached: operations that units of a kind in layers of these names reach.
        counted: the part of a full pass that edits of these operations need.
    """

    model: nn.Module
    program: Program
    segments: Sequence[Segment]
    exact: Mapping[fx.Node, Tensor]
    constants: Mapping[fx.Node, Tensor]
    ways: Mapping[fx.Node, Winograd]
    runs: Sequence[Run]
    dtype: torch.dtype
    is_compiled: bool = False
    reached: dict[tuple[str, ...], frozenset[fx.Node]] = field(default_factory=dict)
    counted: dict[tuple[frozenset[fx.Node], bool], float] = field(default_factory=dict)

    @cached_property
    def place(self) -> Mapping[fx.Node, int]:
        """Number of the segment of each operation."""
        return {node: number for number, segment in enumerate(self.segments) for node in segment.operations}

    def prepared(self, edit: Edit) -> Prepared:
        """The edit made ready."""
        return prepare(self.program, self.exact, edited_tensors(self.model, edit), self.dtype)

    def touched(self, edit: Edit) -> frozenset[fx.Node]:
        """The operations that an edit may concern."""
        key = (edit.units.kind, *edit.units.by_name())
        if key not in self.reached:
            self.reached[key] = self.program.touched_by(_parameters(self.program, key[1:], edit.units.kind))
        return self.reached[key]

    def share(self, edit: Edit) -> float:
        """The part of a full pass that an edit needs."""
        touched = self.touched(edit)
        few = edit.units.kind == "channel" and all(
            name in self.program.parameters and are_few(len(index), len(self.program.parameters[name]))
            for name, index in edit.units.by_name().items()
        )
        if (touched, few) not in self.counted:
            work = edited_work(self.segments, self.exact, touched, few=few)
            self.counted[touched, few] = work / max(1, full_work(self.segments))
        return self.counted[touched, few]

    @cached_property
    def row_bytes(self) -> Sequence[int]:
        """Size of the largest value of one sample in the segments from each on."""
        each = [
            max(_numbers_a_sample(node) for node in (segment.input, *segment.operations)) * self.dtype.itemsize
            for segment in self.segments
        ]
        return [max(each[start:]) for start in range(len(each))]

    def in_float32(self) -> Traced:
        """The same network in float32."""
        constants = {node: as_run(value, torch.float32) for node, value in self.exact.items()}
        ways = winograd_layers(self.program, constants)
        runs = [fused(module(self.program, segment, constants, ways)) for segment in self.segments]
        return replace(self, constants=constants, ways=ways, runs=runs, dtype=torch.float32, is_compiled=False)

    def compiled(self, example: Tensor) -> Traced:
        """The same network with compiled segments, where a compiler is there; `example` is an input."""
        modules = [module(self.program, segment, self.constants) for segment in self.segments]
        runs = compiled(modules, as_run(example, self.dtype))
        return self if runs[0] is modules[0] else replace(self, runs=runs, is_compiled=True)


def traced(model: nn.Module, example: Tensor, precision: Precision) -> Traced:
    """Trace and cut a network in evaluation mode.

    Raises:
        Untraceable: it can't be traced, or its trace gives other logits.
    """
    program = trace(model, example)
    segments, exact, dtype = cut(program), program.constants(), DTYPES[precision]
    _check_logits(model, program, segments, exact, example)
    constants = {node: as_run(value, dtype) for node, value in exact.items()}
    ways = winograd_layers(program, constants)
    modules = [fused(module(program, segment, constants, ways)) for segment in segments]
    if precision != "float32":
        _check_precision(modules, as_run(example, dtype))
    return Traced(model, program, segments, exact, constants, ways, modules, dtype)


def kept_ready(network: Traced) -> Callable[[Edit], Prepared]:
    """A function that makes edits ready and, as long as there is room, keeps them for the next batch."""
    kept: dict[Edit, Prepared] = {}
    room = KEPT_BYTES

    def ready(edit: Edit) -> Prepared:
        nonlocal room
        if edit in kept:
            return kept[edit]
        result = network.prepared(edit)
        if result.n_bytes < room:
            kept[edit] = result
            room -= result.n_bytes
        return result

    return ready


def segment_values(
    program: Program,
    segment: Segment,
    constants: Mapping[fx.Node, Tensor],
    given: Tensor,
    edits: Sequence[tuple[slice, Prepared]] = (),
    ways: Mapping[fx.Node, Way] | None = None,
    *,
    only_output: bool = False,
) -> dict[fx.Node, Any]:
    """The value of a segment's input and of each of its operations.

    Arguments:
        given: the input, [rows, ...].
        edits: rows of the batch that belong to an edited network, and its edit, whose new rows of layers are put in.
        ways: layers that have a way of their own.
        only_output: give that of the segment's output alone, and let the others go as soon as they are spent.
    """
    values: dict[fx.Node, Any] = {segment.input: given}

    def value(node: fx.Node) -> Any:
        if node in program.sizes:
            return size_value(node, len(given))
        return constants[node] if node in constants else values[node]

    for node in segment.operations:
        values[node] = call(node, value, ways, in_place=only_output and overwrites(node))
        for here, edit in edits:
            if node in edit.rows:
                patched(values[node][here], node, edit.rows[node], value(operand(node, 0))[here], value)
        for spent in segment.spent[node] if only_output else ():
            values.pop(spent, None)
    return values


def run_alone(network: Traced, start: int, end: int, given: Tensor, edit: Prepared) -> Tensor:
    """Run the segments from `start` to before `end` as an edit leaves them, on the samples [samples, ...] alone."""
    constants = {**network.constants, **edit.constants}
    for place in range(start, end):
        segment = network.segments[place]
        if edit.touched.isdisjoint(segment.operations):
            given = network.runs[place](given)
        else:
            everyone = [(slice(None), edit)]
            values = segment_values(network.program, segment, constants, given, everyone, only_output=True)
            given = values[segment.output]
    return given


def run_stack(network: Traced, start: int, edits: Sequence[Prepared], given: list[Tensor]) -> list[Tensor]:
    """Logits [samples, classes] of several edited networks, from what each gives to segment `start`; `given` is
    emptied, so that the values don't stay beside the stack that is made of them."""
    n = len(given[0])
    stack = torch.cat(given) if len(given) > 1 else given[0]
    given.clear()
    for place in range(start, len(network.segments)):
        segment = network.segments[place]
        here = [
            (slice(i * n, (i + 1) * n), edit)
            for i, edit in enumerate(edits)
            if not edit.rows.keys().isdisjoint(segment.operations)
        ]
        if here:
            values = segment_values(
                network.program, segment, network.constants, stack, here, network.ways, only_output=True
            )
            stack = values[segment.output]
        else:
            stack = network.runs[place](stack)
    return list(torch.split(stack.float(), n))


def _check_logits(
    model: nn.Module,
    program: Program,
    segments: Sequence[Segment],
    constants: Mapping[fx.Node, Tensor],
    example: Tensor,
) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (3, *example.shape[1:])
    inputs = (
        torch.randn(shape, generator=generator).to(example) if example.is_floating_point() else example.expand(shape)
    )
    with torch.no_grad():
        expected, given, alone = logits(model, inputs), inputs, inputs[:1]
        for segment in segments:
            given = segment_values(program, segment, constants, given)[segment.output]
            alone = segment_values(program, segment, constants, alone)[segment.output]
    given = torch.cat([given, alone])
    expected = torch.cat([expected, expected[:1]])  # a sample's logits must not depend on the others in its batch
    if given.shape != expected.shape or not torch.allclose(
        given.float(), expected, rtol=0, atol=1e-4 * max(1.0, float(expected.abs().max()))
    ):
        raise Untraceable("its trace gives other logits than the network itself")


def _check_precision(modules: Sequence[Run], given: Tensor) -> None:
    try:
        with torch.no_grad():
            for run in modules:
                given = run(given)
    except RuntimeError as error:
        raise Untraceable(f"it needs float32 on its way ({first_line(error)})") from error


def _parameters(program: Program, names: Sequence[str], kind: UnitKind) -> list[str]:
    """The program's parameters that units of these layers, modules or tensors may change."""
    if kind == "weight":
        return list(names)
    layers = tuple(f"{short_name(name)}." for name in names)
    return [name for name in program.parameters if name.startswith(layers)]


def _numbers_a_sample(node: fx.Node) -> int:
    value = node.meta["val"]
    shapes = [v.shape for v in (value if isinstance(value, list | tuple) else [value])]
    return max((int(torch.Size(int(n) for n in shape if isinstance(n, int)).numel()) for shape in shapes), default=1)
