"""Multiplications of a forward pass, and of what an edit changes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import fx

from ..operations import LAYERS, aten, n_groups, operand
from .channelwise import CHANNELWISE
from .prepared import has_rows
from .segments import Segment

_PRODUCTS = {aten.matmul.default, aten.bmm.default, aten.mm.default}


def multiplications(node: fx.Node) -> int:
    """Multiplications of one operation for one sample; elementwise operations do not count."""
    output = node.meta["val"]
    if node.target in LAYERS:
        weight = operand(node, 1).meta.get("val")
        return _size_per_sample(output.shape) * (1 if weight is None else weight.numel() // len(weight))
    if node.target in _PRODUCTS:
        return _size_per_sample(output.shape) * int(operand(node, 0).meta["val"].shape[-1])
    if node.target is aten.scaled_dot_product_attention.default:
        query, key = (operand(node, i).meta["val"].shape for i in (0, 1))
        return 2 * _size_per_sample(query) * int(key[-2])
    return 0


def full_pass_multiplications(segments: Sequence[Segment]) -> int:
    """Multiplications of a full forward pass of one sample."""
    return sum(multiplications(node) for segment in segments for node in segment.operations)


def edit_multiplications(
    segments: Sequence[Segment],
    constants: Mapping[fx.Node, torch.Tensor],
    edited: Collection[fx.Node],
    *,
    few: bool,
) -> int:
    """Multiplications that an edit causes for one sample, in addition to the network before any edit.

    Arguments:
        segments: the whole program.
        constants: its constants.
        edited: the operations that the edit changes.
        few: the edit changes few channels of each of them.
    """
    changed: dict[fx.Node, bool] = {}  # {value: whether only few of its channels change}
    total = 0
    for segment in segments:
        for node in segment.operations:
            sources = [changed[n] for n in node.all_input_nodes if n in changed]
            if node not in edited and not sources:
                continue
            if has_rows(node, constants):
                is_carried = node not in edited and sources == [True] and _is_depthwise(node)
                changed[node] = is_carried or (few and not sources)
                has_low_rank = sources == [True] and n_groups(node) == 1
                total += 0 if changed[node] or has_low_rank else multiplications(node)
            else:
                changed[node] = node not in edited and all(sources) and node.target in CHANNELWISE
                total += 0 if changed[node] else multiplications(node)
    return total


def _is_depthwise(layer: fx.Node) -> bool:
    """Whether a layer makes each output channel of one input channel, which no other output channel reads."""
    n = n_groups(layer)
    return n > 1 and all(value.meta["val"].shape[1] == n for value in (operand(layer, 0), layer))


def _size_per_sample(shape: Sequence[int | torch.SymInt]) -> int:
    result = 1
    for n in shape:
        result *= n if isinstance(n, int) else 1
    return result
