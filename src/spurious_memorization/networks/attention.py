"""Attention heads: which rows of which layers give the queries, keys and values of each head.

They are read off the data flow. Two contractions with a softmax between them are attention, and how the second one
reads the output of a layer shows which rows are one head. Modules of which this shows too little are known by PyTorch's
definition, or by the names of their layers.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor, nn

from ..console import log
from .dataflow import LAYERS, Axis, DataFlow, Operation, View, data_flow

_SEPARATE_PROJECTIONS = (("q_proj", "k_proj", "v_proj"), ("q", "k", "v"), ("query", "key", "value"))
_Layers = Mapping[str, Mapping[str, Tensor]]
"""{weight: the parameters of its layer by their own names}."""

_reported: weakref.WeakSet[nn.Module] = weakref.WeakSet()


def attention_heads(model: nn.Module) -> dict[str, dict[str, Tensor]]:
    """The heads of a network: {attention module: {parameter: rows of each head along its first axis, [heads, rows]}}.

    A log line says how many modules were found, and how.
    """
    flow = data_flow(model)
    traced = {} if flow is None else _traced(model, flow)
    defined = {name: rows for name, module in model.named_modules() if (rows := _defined(name, module))}
    named = {
        name: rows
        for name, module in model.named_modules()
        if name not in traced and name not in defined and (rows := _named(name, module))
    }
    found = {**named, **defined, **traced}
    if found and model not in _reported:
        _reported.add(model)
        counts = {
            "tracing": len(traced),
            "nn.MultiheadAttention": len(defined),
            "the names of their layers": len(named),
        }
        log(f"attention modules with heads: {', '.join(f'{n} by {how}' for how, n in counts.items() if n)}")
    return {name: found[name] for name, _ in model.named_modules() if name in found}


def _traced(model: nn.Module, flow: DataFlow) -> dict[str, dict[str, Tensor]]:
    layers: _Layers = {
        f"{name}.weight": dict(module.named_parameters(recurse=False))
        for name, module in model.named_modules()
        if isinstance(module, LAYERS) and "weight" in module._parameters
    }
    found: dict[str, dict[str, Tensor]] = {}
    for operands in _attentions(flow):
        rows = _rows_of_heads(operands, layers)
        if rows:
            found.setdefault(_module_of(list(rows)), _with_biases(rows, layers))
    return found


def _attentions(flow: DataFlow) -> Iterator[list[tuple[Operation, int]]]:
    """Where queries, keys and values enter attention: (operation, number of its input) of each."""
    for operation in flow.operations:
        if "scaled_dot_product" in operation.name and len(operation.inputs) >= 3:
            yield [(operation, position) for position in range(3)]
        elif operation.kind == "bmm" and len(operation.inputs) == 2:
            scores = {id(source): source for source in _scores(operation.inputs[0])}
            if len(scores) == 1:
                (score,) = scores.values()
                yield [(score, 0), (score, 1), (operation, 1)]


def _scores(weights: Operation | str) -> Iterator[Operation]:
    """The products of two inputs from which a softmax made attention weights."""
    while isinstance(weights, Operation) and weights.inputs and "softmax" not in weights.name:
        if weights.mixes_channels:
            return
        weights = weights.inputs[0]
    if isinstance(weights, Operation) and weights.inputs:
        for source, _ in _reads(weights, 0):
            if source.kind == "bmm" and all(isinstance(x, Operation) for x in source.inputs):
                yield source


def _reads(operation: Operation, position: int) -> list[tuple[Operation, View]]:
    """The last operations that mixed channels before this input, each with the part of its output that is read."""
    found, seen, waiting = [], set(), [(operation, position)]
    while waiting:
        reader, place = waiting.pop()
        source = reader.inputs[place]
        if isinstance(source, str) or not source.inputs:
            continue
        if source.mixes_channels:
            found.append((source, reader.views[place]))
        elif id(source) not in seen:
            seen.add(id(source))
            waiting.extend((source, k) for k in range(len(source.inputs)))
    return found


@dataclass(frozen=True)
class _Read:
    """A part of a layer's output. The layer has `n_rows` rows, `row` numbers apart in the memory of its output."""

    weight: str
    n_rows: int
    row: int
    view: View

    def axes(self) -> list[Axis]:
        return self.view.axes_in(self.n_rows, self.row)

    def rows(self, n_heads: int, step: int) -> Tensor | None:
        """The rows of each head, [heads, rows]; `step` rows from head to head. None if heads are no axis of it."""
        of_heads = [axis for axis in self.axes() if (axis.size, axis.stride) == (n_heads, step)]
        if n_heads > 1 and len(of_heads) != 1:
            return None
        rows = torch.tensor([self.view.offset // self.row % self.n_rows])
        for axis in self.axes():
            if axis not in of_heads:
                rows = (rows[:, None] + torch.arange(axis.size) * axis.stride).flatten()
        return torch.arange(n_heads)[:, None] * step + rows


def _rows_of_heads(operands: list[tuple[Operation, int]], layers: _Layers) -> dict[str, Tensor]:
    """{weight: rows of each head, [heads, rows]}; empty if the views don't show them."""
    reads = [_layer_reads(*operand, layers) for operand in operands]
    if not all(reads):
        return {}
    operation, position = operands[2]
    width = operation.views[position].shape[-1]
    values = reads[2][0]
    axes = values.axes()
    if len(axes) not in (1, 2) or axes[-1] != Axis(len(values.view.shape) - 1, width, 1):
        return {}
    of_heads = axes[:-1]
    n_heads, step = (of_heads[0].size, of_heads[0].stride) if of_heads else (1, 0)
    parts: dict[str, list[Tensor]] = {}
    counts = []
    for of_operand in reads:
        pieces = [read.rows(n_heads, step) for read in of_operand]
        known = [piece for piece in pieces if piece is not None]
        if len(known) < len(pieces):
            return {}
        parts.setdefault(of_operand[0].weight, []).append(_union(known))
        counts.append(parts[of_operand[0].weight][-1].shape[1])
    if counts[0] != counts[1]:  # several heads of queries share one of keys
        return {}
    return {weight: _union(pieces) for weight, pieces in parts.items()}


def _layer_reads(operation: Operation, position: int, layers: _Layers) -> list[_Read]:
    """The parts of a layer's output that give an operand. Empty if they are of several layers."""
    reads = [
        _Read(name, len(layers[name]["weight"]), _row(source), view)
        for source, view in _reads(operation, position)
        for name in source.inputs
        if isinstance(name, str) and name in layers
    ]
    return reads if len({read.weight for read in reads}) == 1 else []


def _row(layer: Operation) -> int:
    """Distance of two rows in the memory of a layer's output: the positions of a convolution, or 1."""
    return math.prod(layer.shape[2:]) if layer.kind == "convolution" else 1


def _union(pieces: list[Tensor]) -> Tensor:
    return torch.stack([torch.unique(torch.cat([piece[head] for piece in pieces])) for head in range(len(pieces[0]))])


def _module_of(weights: list[str]) -> str:
    """The module that has all of these layers: "blocks.0.attn" for "blocks.0.attn.qkv.weight"."""
    paths = [name.split(".")[:-2] for name in weights]
    same = takewhile(lambda parts: len({*parts}) == 1, zip(*paths, strict=False))
    return ".".join(parts[0] for parts in same)


def _with_biases(rows: Mapping[str, Tensor], layers: _Layers) -> dict[str, Tensor]:
    return {
        f"{weight.removesuffix('weight')}{part}": of_heads
        for weight, of_heads in rows.items()
        for part in layers[weight]
    }


def _defined(name: str, module: nn.Module) -> dict[str, Tensor]:
    """Heads of PyTorch's own attention. Its bias is one for queries, keys and values, its weight may be three."""
    if not isinstance(module, nn.MultiheadAttention):
        return {}
    fused = _fused(3 * module.embed_dim, module.num_heads)
    separate = torch.arange(module.embed_dim).reshape(module.num_heads, -1)
    prefix = f"{name}." if name else ""
    return {
        f"{prefix}{part}": fused if part.startswith("in_proj_") else separate
        for part, _ in module.named_parameters(recurse=False)
        if "proj_" in part
    }


def _named(name: str, module: nn.Module) -> dict[str, Tensor]:
    """Heads of a module that states their number and whose layers have one of the usual names."""
    n_heads = getattr(module, "num_heads", None) or getattr(module, "num_attention_heads", None)
    if not isinstance(n_heads, int):
        return {}
    parameters = dict(module.named_parameters())
    prefix = f"{name}." if name else ""
    if "qkv.weight" in parameters:
        fused = _fused(len(parameters["qkv.weight"]), n_heads)
        return {f"{prefix}{part}": fused for part in ("qkv.weight", "qkv.bias") if part in parameters}
    for layers in _SEPARATE_PROJECTIONS:
        sizes = {len(parameters.get(f"{layer}.weight", ())) for layer in layers}
        if len(sizes) == 1 and 0 not in sizes:
            rows = torch.arange(sizes.pop()).reshape(n_heads, -1)
            parts = [f"{layer}.{part}" for layer in layers for part in ("weight", "bias")]
            return {f"{prefix}{part}": rows for part in parts if part in parameters}
    return {}


def _fused(n_rows: int, n_heads: int) -> Tensor:
    """Rows of each head in one layer for all queries, all keys and all values."""
    return torch.arange(n_rows).reshape(3, n_heads, -1).transpose(0, 1).reshape(n_heads, -1)
