"""How much of a full pass each edited network needs, by counting multiplications."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import fx

from .changes import CHANNELWISE, takes_rows
from .program import LAYERS, aten, operand
from .segments import Segment

_PRODUCTS = {aten.matmul.default, aten.bmm.default, aten.mm.default}


def multiplications(node: fx.Node) -> int:
    """Multiplications of one operation for one sample; elementwise ones don't count."""
    output = node.meta["val"]
    if node.target in LAYERS:
        weight = operand(node, 1).meta.get("val")
        return _numbers(output.shape) * (1 if weight is None else weight.numel() // len(weight))
    if node.target in _PRODUCTS:
        return _numbers(output.shape) * int(operand(node, 0).meta["val"].shape[-1])
    if node.target is aten.scaled_dot_product_attention.default:
        query, key = (operand(node, i).meta["val"].shape for i in (0, 1))
        return 2 * _numbers(query) * int(key[-2])
    return 0


def full_work(segments: Sequence[Segment]) -> int:
    """Multiplications of a full pass for one sample."""
    return sum(multiplications(node) for segment in segments for node in segment.operations)


def edited_work(
    segments: Sequence[Segment],
    constants: Mapping[fx.Node, torch.Tensor],
    touched: Collection[fx.Node],
    *,
    few: bool,
) -> int:
    """Multiplications that an edit causes for one sample, beside those of the network before any edit.

    Arguments:
        touched: the operations that the edit concerns.
        few: it changes few channels of each.
    """
    reach: dict[fx.Node, bool] = {}  # value -> whether only few of its channels change
    total = 0
    for segment in segments:
        for node in segment.operations:
            changed = [reach[n] for n in node.all_input_nodes if n in reach]
            if node not in touched and not changed:
                continue
            if takes_rows(node, constants):
                reach[node] = few and not changed
                if changed != [True] and not reach[node]:
                    total += multiplications(node)
            else:
                reach[node] = node not in touched and all(changed) and node.target in CHANNELWISE
                total += 0 if reach[node] else multiplications(node)
    return total


def _numbers(shape: Sequence[int | torch.SymInt]) -> int:
    result = 1
    for n in shape:
        result *= n if isinstance(n, int) else 1
    return result
