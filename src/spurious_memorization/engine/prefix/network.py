"""A network cut into segments and ready to run: unedited, with one edit, or for a stack of edits at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn

from ...datasets.sources import Inputs
from ...edits.apply import edited_tensors
from ...edits.edit import Edit
from ...errors import first_line
from ...networks.forward import exact_float32, first_repeated, logits
from ...networks.names import Precision
from ...networks.units import UnitPlaces
from ..cpu.kernels import fused_module, kernels_for
from ..operations import Kernels, aten, call, can_overwrite, operand
from .compiled import SegmentFunction, compiled_functions
from .export import export_program
from .prepared import PreparedEdit, in_run_format, prepare_edit
from .program import NotExportable, Program, size_value
from .reach import EditReach
from .segments import Segment, cut, segment_module

Shared = Mapping[fx.Node, Tensor]
"""Values of a batch that its inputs alone determine, such as an attention mask; see `Program.shared`."""

DTYPES: dict[Precision, torch.dtype] = {"float32": torch.float32, "bf16": torch.bfloat16}


@dataclass(eq=False, kw_only=True)
class SegmentedNetwork:
    """A network cut into segments, ready to run in one precision.

    Arguments:
        model: the network itself, in evaluation mode.
        program: its operations.
        segments: the program, cut.
        exact_constants: its constants in full precision.
        constants: its constants as it runs.
        kernels: layers that have a faster kernel than their operation.
        functions: each segment as a function.
        precision: in which it runs.
        reach: how far edits of it reach.
        is_compiled: whether its segments are compiled.
        segment_of: position of the segment of each operation.
        row_bytes: for each segment: size of the largest value of one sample from there on.
    """

    model: nn.Module
    program: Program
    segments: Sequence[Segment]
    exact_constants: Mapping[fx.Node, Tensor]
    constants: Mapping[fx.Node, Tensor]
    kernels: Kernels
    functions: Sequence[SegmentFunction]
    precision: Precision
    reach: EditReach
    is_compiled: bool = False
    segment_of: Mapping[fx.Node, int] = field(init=False, repr=False)
    row_bytes: Sequence[int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.segment_of = {node: i for i, segment in enumerate(self.segments) for node in segment.operations}
        largest = [
            max(_size_per_sample(node) for node in (segment.input, *segment.operations)) for segment in self.segments
        ]
        self.row_bytes = [max(largest[start:]) * self.dtype.itemsize for start in range(len(largest))]

    @cached_property
    def places(self) -> UnitPlaces:
        """Where its units are."""
        return UnitPlaces(self.model)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the network's values."""
        return DTYPES[self.precision]

    def after_constants(self, edit: PreparedEdit) -> int:
        """Position of the first segment from which on an edit changes new rows alone, and no whole constants."""
        changed = edit.operations - edit.rows.keys()
        return max((self.segment_of[node] + 1 for node in changed), default=0)

    def prepare(self, edit: Edit) -> PreparedEdit:
        """Prepare an edit for this network."""
        tensors = edited_tensors(self.model, edit, self.places)
        return prepare_edit(self.program, self.exact_constants, tensors, self.dtype)

    def in_precision(self, precision: Precision) -> SegmentedNetwork:
        """The same network in another precision, not compiled."""
        constants, kernels, functions = _runnable(self.program, self.segments, self.exact_constants, precision)
        return replace(
            self, constants=constants, kernels=kernels, functions=functions, precision=precision, is_compiled=False
        )

    def enter(self, inputs: Inputs) -> tuple[Tensor, Shared]:
        """The value that enters the first segment, and the values that the inputs alone determine."""
        return entered(self.program, self.constants, inputs, self.dtype)

    def run_segment(self, position: int, value: Tensor, shared: Shared) -> Tensor:
        """The value that leaves a segment before any edit. A value that enters it and was computed by a relu may be
        overwritten."""
        return self.functions[position](value, *(shared[node] for node in self.segments[position].shared))

    def compiled(self, example: Inputs) -> SegmentedNetwork:
        """The same network with compiled segments; the network itself where no compiler is available.

        Arguments:
            example: inputs [samples, ...].
        """
        modules = [segment_module(self.program, segment, self.constants) for segment in self.segments]
        value, shared = self.enter(example)
        functions = compiled_functions(modules, [value, *(shared[node] for node in self.segments[0].shared)])
        return self if functions is None else replace(self, functions=functions, is_compiled=True)


@exact_float32()
def segmented(model: nn.Module, example: Inputs, precision: Precision) -> SegmentedNetwork:
    """Export a network in evaluation mode and cut it into segments.

    Arguments:
        model: the network, in evaluation mode.
        example: a few inputs, [samples, ...].
        precision: in which it will run.

    Raises:
        NotExportable: torch.export cannot handle it, or the exported program gives other logits.
    """
    program = export_program(model, example)
    segments, exact_constants = cut(program), program.constants()

    def exact(inputs: Inputs) -> Tensor:
        value, shared = entered(program, exact_constants, inputs, torch.float32)
        for segment in segments:
            value = segment_values(program, segment, {**exact_constants, **shared}, value)[segment.output]
        return value

    _check_logits(model, exact, example)
    constants, kernels, functions = _runnable(program, segments, exact_constants, precision)

    network = SegmentedNetwork(
        model=model,
        program=program,
        segments=segments,
        exact_constants=exact_constants,
        constants=constants,
        kernels=kernels,
        functions=functions,
        precision=precision,
        reach=EditReach(program, segments, exact_constants),
    )

    def fast(inputs: Inputs) -> Tensor:
        value, shared = network.enter(inputs)
        for position in range(len(segments)):
            value = network.run_segment(position, value, shared)
        return value

    if precision == "float32":
        _check_logits(model, fast, example)
    else:
        _check_precision(fast, example)
    return network


def entered(
    program: Program, constants: Mapping[fx.Node, Tensor], inputs: Inputs, dtype: torch.dtype
) -> tuple[Tensor, Shared]:
    """The value that enters the first segment, and the values that the inputs alone determine, as the program runs."""
    named = {"": inputs} if isinstance(inputs, Tensor) else inputs
    given = {name: in_run_format(value, dtype) for name, value in named.items()}
    shared = program.shared_values(given, constants) if program.shared else {}
    first = next(given[name] for name, node in program.inputs.items() if node is program.input)
    return first, {node: in_run_format(value, dtype) for node, value in shared.items()}


def segment_values(
    program: Program,
    segment: Segment,
    constants: Mapping[fx.Node, Tensor],
    given: Tensor,
    edits: Sequence[tuple[slice, PreparedEdit]] = (),
    kernels: Kernels | None = None,
    *,
    only_output: bool = False,
) -> dict[fx.Node, Any]:
    """The value of a segment's input and of each of its operations.

    Arguments:
        program: of which the segment is a part.
        segment: the segment.
        constants: the constants' values, and the shared values of the batch.
        given: the segment's input, [rows, ...].
        edits: (rows of the batch that belong to one edited network, its edit); the edit's new rows of layers are used
            there.
        kernels: layers that have a kernel of their own.
        only_output: return the output's value alone, and free every other value after its last use.
    """
    values: dict[fx.Node, Any] = {segment.input: given}

    def value(node: fx.Node) -> Any:
        if node in program.sizes:
            return size_value(node, len(given))
        return constants[node] if node in constants else values[node]

    for node in segment.operations:
        values[node] = call(node, value, kernels, in_place=only_output and can_overwrite(node))
        for here, edit in edits:
            if node in edit.rows:
                edit.rows[node].write(values[node][here], node, value(operand(node, 0))[here], value)
        for unused in segment.unused_after[node] if only_output else ():
            values.pop(unused, None)
    return values


def run_alone(
    network: SegmentedNetwork, start: int, end: int, given: Tensor, edit: PreparedEdit, shared: Shared
) -> Tensor:
    """Run the segments from `start` to before `end` with one edit, on the batch [samples, ...] alone."""
    constants = {**network.constants, **edit.constants, **shared}
    for position in range(start, end):
        segment = network.segments[position]
        if edit.operations.isdisjoint(segment.operations):
            given = network.run_segment(position, given, shared)
        else:
            whole_batch = [(slice(None), edit)]
            values = segment_values(network.program, segment, constants, given, whole_batch, only_output=True)
            given = values[segment.output]
    return given


def run_stack(
    network: SegmentedNetwork, start: int, edits: Sequence[PreparedEdit], given: list[Tensor], shared: Shared
) -> list[Tensor]:
    """Run the segments from `start` to the end for several edited networks at once.

    Arguments:
        network: before any edit.
        start: position of the first segment to run.
        edits: one per edited network.
        given: the value that each edited network passes to the first segment. The list is emptied, so that these
            values do not take memory in addition to the stack.
        shared: the shared values of the batch.

    Returns:
        Logits [samples, classes] of each edited network.
    """
    n = len(given[0])
    stack = torch.cat(given) if len(given) > 1 else given[0]
    if len(given) > 1:
        shared = {node: value.repeat(len(given), *[1] * (value.ndim - 1)) for node, value in shared.items()}
    given.clear()
    for position in range(start, len(network.segments)):
        segment = network.segments[position]
        here = [
            (slice(i * n, (i + 1) * n), edit)
            for i, edit in enumerate(edits)
            if not edit.rows.keys().isdisjoint(segment.operations)
        ]
        if here:
            constants = {**network.constants, **shared}
            values = segment_values(network.program, segment, constants, stack, here, network.kernels, only_output=True)
            stack = values[segment.output]
        else:
            stack = network.run_segment(position, stack, shared)
    return list(torch.split(stack.float(), n))


def _runnable(
    program: Program, segments: Sequence[Segment], exact_constants: Mapping[fx.Node, Tensor], precision: Precision
) -> tuple[dict[fx.Node, Tensor], Kernels, list[SegmentFunction]]:
    """Constants, kernels and segment functions in a precision."""
    constants = {node: in_run_format(value, DTYPES[precision]) for node, value in exact_constants.items()}
    kernels = kernels_for(program.operations, constants)
    modules = [segment_module(program, segment, constants, kernels) for segment in segments]
    functions: list[SegmentFunction] = [
        fused_module(module, overwrites_input=segment.input.target is aten.relu.default)
        for segment, module in zip(segments, modules, strict=True)
    ]
    return constants, kernels, functions


def _check_logits(model: nn.Module, run: Callable[[Inputs], Tensor], example: Inputs) -> None:
    """Check that a way to run the network gives its logits, also for one sample alone.

    Arguments:
        model: the network, in evaluation mode.
        run: gives the logits of inputs [samples, ...].
        example: a few inputs, [samples, ...]; random ones are added to a tensor of numbers.
    """
    inputs, first = example, first_repeated(example, 1)
    if isinstance(example, Tensor) and example.is_floating_point():
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn((2, *example.shape[1:]), generator=generator).to(example.device)
        inputs = torch.cat([example, noise.to(example.dtype)])
    with torch.no_grad():
        expected = logits(model, inputs)
        given = torch.cat([run(inputs), run(first)]).float()
    expected = torch.cat([expected, expected[:1]])
    if given.shape != expected.shape or not torch.allclose(
        given, expected, rtol=0, atol=1e-4 * max(1.0, float(expected.abs().max())), equal_nan=True
    ):
        raise NotExportable("the exported program gives other logits than the network itself")


def _check_precision(run: Callable[[Inputs], Tensor], example: Inputs) -> None:
    try:
        with torch.no_grad():
            run(example)
    except RuntimeError as error:
        raise NotExportable(f"an intermediate value must be float32 ({first_line(error)})") from error


def _size_per_sample(node: fx.Node) -> int:
    """Numbers that a node's value has for one sample."""
    value = node.meta["val"]
    shapes = [v.shape for v in (value if isinstance(value, list | tuple) else [value])]
    return max((int(torch.Size(int(n) for n in shape if isinstance(n, int)).numel()) for shape in shapes), default=1)
