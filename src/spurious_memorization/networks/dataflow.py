"""Data flow of a network: which operations lead from the parameters to the logits. It is recorded in one forward pass.

The pass runs on PyTorch's meta device, which computes shapes and no values, so it costs little time and no memory. A
network that needs values runs on its own device instead.
"""

from __future__ import annotations

import inspect
import math
import time
import warnings
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .checked import copied_network
from .forward import logits_in

SIZES = (224, 32, 28, 64, 16, 96, 128, 256, 299, 384, 448, 512, 8, 48, 40, 24, 160, 192, 336, 518)
"""Image sizes that are tried first for a network that does not state one."""

MAX_SIZE = 1025
"""Larger inputs are not tried."""

TOKENS = "input_ids"
"""The argument under which networks of text take the numbers of tokens, [samples, tokens]."""

MANY_TOKENS, FEW_TOKENS = 16, 4
"""Numbers of tokens that are tried."""

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
"""Layers that have channels."""

MAX_SECONDS = 3.0
"""After this time no further input size is tried on a device."""

MAX_EQUAL_ERRORS = 100
"""If the network fails this often with the same message, its reason is not the size of the input."""

MAX_NUMBERS = 400_000
"""Largest input that is tried where values are computed."""

CONTRACTIONS = frozenset(
    ("convolution", "linear", "mm", "bmm", "addmm", "baddbmm", "addbmm", "mv", "addmv", "dot", "cdist_forward")
)
"""Operations that mix the channels of their input. They open a new layer."""


@dataclass(frozen=True)
class Axis:
    """An axis of a tensor that runs within the rows of a layer.

    Arguments:
        axis: its number in the tensor.
        size: its length.
        stride: rows from one entry to the next.
    """

    axis: int
    size: int
    stride: int


@dataclass(frozen=True)
class View:
    """How a tensor lies in its memory: shape, strides and start, in numbers."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int

    def axes_in(self, n_rows: int, row: int) -> list[Axis]:
        """The axes that run within `n_rows` rows, which lie `row` numbers apart; not those within or beyond them."""
        return [
            Axis(axis, size, stride // row)
            for axis, (size, stride) in enumerate(zip(self.shape, self.strides, strict=True))
            if size > 1 and row <= stride < n_rows * row
        ]


@dataclass(frozen=True, eq=False)
class Operation:
    """One operation of the pass.

    Arguments:
        name: of the operation in ATen, without namespace and overload, such as "convolution".
        arguments: in order. A tensor stands for the operation that made it, or is the name of a parameter or buffer. It
            is None if it is neither. What has no arguments, and is called "input", is the network's input.
        inputs: the operations and names among all of its tensors.
        views: how each of `inputs` is read.
        shape: of its first result.
    """

    name: str
    arguments: tuple[Any, ...]
    inputs: tuple[Operation | str, ...]
    views: tuple[View, ...] = ()
    shape: tuple[int, ...] = ()

    @property
    def kind(self) -> str:
        """The name, the same for an operation in place."""
        return self.name.strip("_")

    @property
    def mixes_channels(self) -> bool:
        return self.kind in CONTRACTIONS or "scaled_dot_product" in self.name or "_linear" in self.name


@dataclass(frozen=True, eq=False)
class DataFlow:
    """What one forward pass in evaluation mode did.

    Arguments:
        operations: in order.
        input: stands for the network's input.
        result: the operation that gave the logits.
        n_outputs: number of logits.
        is_complete: whether every tensor but the input was made by an operation. The data may have left PyTorch
            otherwise, as with NumPy.
    """

    operations: tuple[Operation, ...]
    input: Operation
    result: Operation
    n_outputs: int
    is_complete: bool

    def used(self) -> set[str]:
        """Names of the parameters and buffers on which the logits depend, as far as that is known."""
        if not self.is_complete:
            return {source for operation in self.operations for source in operation.inputs if isinstance(source, str)}
        found, seen, waiting = set(), {id(self.result)}, [self.result]
        while waiting:
            for source in waiting.pop().inputs:
                if isinstance(source, str):
                    found.add(source)
                elif id(source) not in seen:
                    seen.add(id(source))
                    waiting.append(source)
        return found

    def last_layer(self) -> set[str]:
        """Names of the parameters and buffers from which some path to the logits mixes channels only once."""
        found, seen = set(), {(id(self.result), False)}
        waiting = [(self.result, False)]
        while waiting:
            operation, before = waiting.pop()
            if operation.mixes_channels and before:
                continue
            mixed = before or operation.mixes_channels
            for source in operation.inputs:
                if isinstance(source, str):
                    if mixed:
                        found.add(source)
                elif (id(source), mixed) not in seen:
                    seen.add((id(source), mixed))
                    waiting.append((source, mixed))
        return found


def data_flow(model: nn.Module) -> DataFlow | None:
    """Record the data flow of a network in evaluation mode. The network stays as it is.

    The input size is the network's own, if it states one, or else the first size that its forward pass accepts. The
    result is remembered until a layer of the network is replaced.

    Returns:
        The data flow. None if no input was found that the network accepts.
    """
    structure = tuple((name, id(module)) for name, module in model.named_modules()) + tuple(
        tuple(value.shape) for value in model.parameters()
    )
    remembered = _remembered.get(model)
    if remembered is None or remembered[0] != structure:
        remembered = _remembered[model] = structure, _first_flow(model)
    return remembered[1]


_remembered: weakref.WeakKeyDictionary[nn.Module, tuple[tuple[Any, ...], DataFlow | None]] = weakref.WeakKeyDictionary()


def _first_flow(model: nn.Module) -> DataFlow | None:
    for device in ("meta", None):
        network, started, refusals = _copied(model, device), time.monotonic(), Counter[str]()
        for shape in _input_shapes(network):
            if time.monotonic() - started > MAX_SECONDS:
                break
            if device is None and math.prod(shape) > MAX_NUMBERS:
                continue
            try:
                return _recorded(network, shape, device)
            except _NotFollowed:
                return None
            except _NotAccepted as refusal:
                refusals[str(refusal)] += 1
                if refusals[str(refusal)] == MAX_EQUAL_ERRORS:
                    break
    return None


class _NotAccepted(Exception):  # noqa: N818
    """The network does not accept the input, or gives no logits for it. The message says why."""


class _NotFollowed(Exception):  # noqa: N818
    """The network accepts the input, but no operation gave its logits: they come from outside of PyTorch."""


@dataclass(eq=False)
class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every operation. A tensor is known by its memory, so that views and operations in place are followed."""

    names: dict[int, str]
    made: dict[int, Operation]
    is_complete: bool = True
    operations: list[Operation] = field(default_factory=list)
    kept: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        leaves = tree_leaves((args, kwargs))
        given = [_memory(x) for x in leaves if isinstance(x, Tensor)]
        result = func(*args, **(kwargs or {}))
        outputs = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
        in_place = func._schema.is_mutable
        written = [x for x in outputs if in_place or _memory(x) not in given]
        if written:
            reads = [(self._source(x), _view(x)) for x in leaves if isinstance(x, Tensor)]
            known = [(source, view) for source, view in reads if source is not None]
            operation = Operation(
                func._schema.name.split("::")[1],
                tuple(self._source(x) if isinstance(x, Tensor) else x for x in args),
                tuple(source for source, _ in known),
                tuple(view for _, view in known),
                tuple(written[0].shape),
            )
            self.operations.append(operation)
            for output in written:
                self.made[_memory(output)] = operation
                self.kept.append(output.untyped_storage())  # otherwise new tensors could get the same memory
        return result

    def _source(self, tensor: Tensor) -> Operation | str | None:
        memory = _memory(tensor)
        source = self.made.get(memory) or self.names.get(memory)
        self.is_complete &= source is not None
        return source


def _memory(tensor: Tensor) -> int:
    address: int = tensor.untyped_storage()._cdata
    return address


def _view(tensor: Tensor) -> View:
    return View(tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset()))


def _recorded(network: nn.Module, shape: Sequence[int], device: str | None) -> DataFlow:
    first = next(network.parameters(), None)
    where = device or (first.device if first is not None else "cpu")
    kind = first.dtype if first is not None and first.is_floating_point() else torch.float32
    names = {_memory(value): name for name, value in (*network.named_buffers(), *network.named_parameters())}
    given = Operation("input", (), ())
    by_name = _token_names(network)
    if by_name:
        example = {name: torch.ones(tuple(shape), dtype=torch.long, device=where) for name in by_name}
    else:
        example = {"": torch.zeros(tuple(shape), dtype=kind, device=where)}
    recorder = _Recorder(names, dict.fromkeys(map(_memory, example.values()), given))
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.random.fork_rng(devices=[]))
        if device:
            stack.enter_context(torch.device(device))
        stack.enter_context(recorder)
        try:
            output = network(**example) if by_name else network(example[""])
        except Exception as error:  # the network's own code can raise anything for an input that it does not accept
            raise _NotAccepted(str(error)) from error
    output = logits_in(output)
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != shape[0]:
        raise _NotAccepted("no logits")
    result = recorder.made.get(_memory(output))
    if result is None:
        raise _NotFollowed
    return DataFlow(tuple(recorder.operations), given, result, output.shape[1], recorder.is_complete)


def _copied(model: nn.Module, device: str | None) -> nn.Module:
    """A copy in evaluation mode. On the meta device it needs no memory: its tensors have shapes and no values."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        for value in vars(module).values():  # kept activations can't be copied
            if isinstance(value, Tensor):
                memo[id(value)] = value.detach() if device is None else torch.empty_like(value, device=device)
    if device is not None:
        for value in model.parameters():
            memo[id(value)] = nn.Parameter(torch.empty_like(value, device=device), requires_grad=False)
        for value in model.buffers():
            memo[id(value)] = torch.empty_like(value, device=device)
    return copied_network(model, memo).eval()


def _input_shapes(model: nn.Module) -> Iterator[tuple[int, ...]]:
    """Input shapes that a network may accept, the likely ones first."""
    if _token_names(model):
        yield 2, MANY_TOKENS
        yield 2, FEW_TOKENS
        return
    given = getattr(model, "pretrained_cfg", None) or {}
    own = tuple(given.get("input_size") or ())
    embedding = getattr(getattr(model, "patch_embed", None), "img_size", None)
    config_size = getattr(getattr(model, "config", None), "image_size", None)
    layers = [m for m in model.modules() if isinstance(m, LAYERS)]
    convolutions = [layer.in_channels for layer in layers if isinstance(layer, nn.Conv2d)]
    planes = [*own[:1], *convolutions, 3][0]
    if embedding is not None:
        yield 2, planes, *((embedding, embedding) if isinstance(embedding, int) else tuple(embedding))
    if isinstance(config_size, int):
        yield 2, planes, config_size, config_size
    if own:
        yield 2, *own
    kinds = dict.fromkeys([*((2, planes) for _ in own[:1]), *map(_input_kind, layers), (2, planes)])
    for sizes in (SIZES, range(1, MAX_SIZE)):  # any layer may be the first one, in whatever order they were made
        yield from (
            (2, channels, *[size] * n_axes) for n_axes, channels in kinds for size in (sizes if n_axes else [1])
        )


def _token_names(model: nn.Module) -> list[str]:
    """Names of the inputs of a network of text: the token ids and what its forward can't do without. Otherwise none."""
    parameters = inspect.signature(model.forward).parameters.values()
    if TOKENS not in {parameter.name for parameter in parameters}:
        return []
    plain = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    needed = [p.name for p in parameters if p.default is inspect.Parameter.empty and p.kind in plain]
    return [*dict.fromkeys([TOKENS, *needed])]


def _input_kind(layer: nn.Module) -> tuple[int, int]:
    """Number of axes behind the channels, and number of channels, that a layer's input may have."""
    if isinstance(layer, nn.Linear):
        return 0, layer.in_features
    assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    return len(layer.kernel_size), layer.in_channels
