"""The factor by which the batch norm behind each layer multiplies its channels, read from the network's data flow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from .dataflow import DataFlow, Operation, data_flow

COPIES = frozenset(("clone", "to_copy", "copy", "contiguous", "dropout", "native_dropout", "repeat"))
"""Operations that change no value in evaluation."""

ROOTS = frozenset(("sqrt", "rsqrt", "pow"))
"""A batch norm that is written out takes a root of its variances. Other numbers that scale channels are no norm."""

_CALCULATIONS: Mapping[str, Callable[..., Any]] = {
    name: getattr(torch, name)
    for name in ("add", "sub", "rsub", "mul", "div", "neg", "abs", "exp", "clamp", "clamp_min", "reciprocal", *ROOTS)
}


@dataclass(frozen=True)
class _Scaled:
    """A value that is a layer's output times a factor, plus constants.

    Arguments:
        names: of the layer's weight and bias.
        factor: of each channel, [channels] or one number.
        is_norm: whether a batch norm took part.
    """

    names: tuple[str, ...]
    factor: Tensor
    is_norm: bool = False


def norm_factors(model: nn.Module) -> dict[str, Tensor]:
    """{name of a layer's weight or bias: factor by which the batch norm behind the layer multiplies each channel}.

    The batch norm may be PyTorch's, or written out under any name, such as `FrozenBatchNorm2d`. It must take the
    layer's output itself.

    Returns:
        Factors with their signs, float64, [channels]. There are none if the network can't be traced.
    """
    flow = data_flow(model)
    if flow is None:
        return {}
    named = (*model.named_parameters(), *model.named_buffers())
    parameters = {name: value.detach() for name, value in named}
    found = {}
    for scaled in _scaled_outputs(flow, _Constants(parameters)):
        for name in scaled.names if scaled.is_norm else ():
            channels = parameters[name].shape[:1].numel()
            if scaled.factor.numel() in (1, channels):
                found[name] = scaled.factor.expand(channels)
    return found


def _scaled_outputs(flow: DataFlow, constants: _Constants) -> Iterator[_Scaled]:
    """Every value that is a layer's output but for factors and constants, in order."""
    scaled: dict[int, _Scaled] = {}
    varying = {id(flow.input)}
    for operation in flow.operations:
        sources = [source for source in operation.inputs if isinstance(source, Operation) and id(source) in varying]
        if not sources:
            continue
        varying.add(id(operation))
        if operation.mixes_channels:
            names = tuple(source for source in operation.inputs if isinstance(source, str))
            now = _Scaled(names, torch.ones(1, dtype=torch.float64)) if names else None
        else:
            before = scaled.get(id(sources[0])) if len(sources) == 1 else None
            now = before and _after(operation, sources[0], before, constants)
        if now is not None:
            scaled[id(operation)] = now
            yield now


def _after(operation: Operation, source: Operation, before: _Scaled, constants: _Constants) -> _Scaled | None:
    """What an operation makes of a scaled output; None if it is more than a factor and a constant."""
    arguments, is_first = operation.arguments, operation.arguments[0] is source
    other = arguments[1] if is_first and len(arguments) > 1 else arguments[0]
    match operation.kind:
        case kind if kind in COPIES:
            return before
        case kind if "batch_norm" in kind:
            return _times(before, constants.batch_norm(operation), is_norm=True)
        case "add" | "sub" if is_first:
            bias = (other,) if isinstance(other, str) and not before.is_norm else ()
            return replace(before, names=(*before.names, *bias))
        case "mul" | "add" | "sub" | "div" if other is source:
            return None
        case "add":
            return before
        case "sub":
            return replace(before, factor=-before.factor)
        case "mul":
            return _times(before, constants.value(other), is_norm=constants.has_root(other))
        case "div" if is_first:
            divisor = constants.value(other)
            return _times(before, None if divisor is None else 1 / divisor, is_norm=constants.has_root(other))
        case "addcmul" if arguments[1] is source:
            return _times(before, constants.value(arguments[2]), is_norm=constants.has_root(arguments[2]))
        case _:
            return None


def _times(before: _Scaled, factor: Tensor | None, *, is_norm: bool) -> _Scaled | None:
    if factor is None or (factor.numel() != before.factor.numel() and 1 not in (factor.numel(), before.factor.numel())):
        return None
    return replace(before, factor=before.factor * factor, is_norm=before.is_norm or is_norm)


@dataclass(frozen=True)
class _Constants:
    """Values that depend on parameters and buffers alone. They are computed as flat vectors in float64."""

    parameters: Mapping[str, Tensor]

    def value(self, source: Any) -> Tensor | None:
        """The value of a name, a number, or an operation of such. None if it is something else."""
        match source:
            case str() if source in self.parameters:
                return self.parameters[source].cpu().double().flatten()
            case bool():
                return None
            case int() | float():
                return torch.tensor([source], dtype=torch.float64)
            case Operation() if source.kind in COPIES:
                return self.value(source.arguments[0])
            case Operation() if source.kind in _CALCULATIONS:
                values = [self.value(argument) for argument in source.arguments]
                try:
                    result: Tensor = _CALCULATIONS[source.kind](*values)
                except (RuntimeError, TypeError):  # its parts have other shapes, or one of them is not known
                    return None
                return result
            case _:
                return None

    def has_root(self, source: Any) -> bool:
        """Whether a root takes part in a value."""
        if not isinstance(source, Operation):
            return False
        return source.kind in ROOTS or any(map(self.has_root, source.arguments))

    def batch_norm(self, operation: Operation) -> Tensor | None:
        """Weight / sqrt(variance + epsilon), from (input, weight, bias, mean, variance, ..., epsilon, ...)."""
        _, weight, _, _, variance, *others = operation.arguments
        of_weight, of_variance = self.value(1.0 if weight is None else weight), self.value(variance)
        epsilon = [number for number in others if isinstance(number, float)][-1:]
        if of_weight is None or of_variance is None or not epsilon:
            return None
        return of_weight * (of_variance + epsilon[0]).rsqrt()
