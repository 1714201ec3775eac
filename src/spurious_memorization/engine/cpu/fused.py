"""A convolution together with the sum and the activation behind it, in one pass over its output."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import fx

from ..prefix.program import aten, operand

mkldnn = torch.ops.mkldnn


def fused(module: fx.GraphModule) -> fx.GraphModule:
    """The module with each relu done by the convolution before it, and a sum between the two as well, where oneDNN
    carries out convolutions; the module given is changed."""
    if not all(buffer.device.type == "cpu" for buffer in module.buffers()) or not _is_possible():
        return module
    for relu in list(module.graph.nodes):
        if relu.target is not aten.relu.default:
            continue
        before = operand(relu, 0)
        conv, other = (before, None) if _is_convolution(before) else _summed(before)
        if conv is None or len(before.users) > 1 or len(conv.users) > 1:
            continue
        with module.graph.inserting_before(relu):
            if conv.op == "call_module":
                given = (conv.args[0], other)
                together = module.graph.call_module(str(conv.target), given, {"relu": True})
            elif other is None:
                given = (*_convolution(conv), "relu", [], "")
                together = module.graph.call_function(mkldnn._convolution_pointwise.default, given)
            else:
                x, *rest = _convolution(conv)
                given = (x, other, *rest, "add", 1.0, "relu", [], "")
                together = module.graph.call_function(mkldnn._convolution_pointwise.binary, given)
        together.meta = dict(relu.meta)
        relu.replace_all_uses_with(together)
        for node in (relu, *((before,) if other is not None else ()), conv):
            module.graph.erase_node(node)
    module.recompile()
    return module


@cache
def _is_possible() -> bool:
    """Whether PyTorch's own operation for this, which is no part of its public interface, is there and does what is
    expected of it."""
    x, weight = torch.randn(1, 2, 4, 4), torch.randn(3, 2, 3, 3)
    other, geometry = torch.randn(1, 3, 4, 4), ([1, 1], [1, 1], [1, 1], 1)
    try:
        alone = mkldnn._convolution_pointwise.default(x, weight, None, *geometry, "relu", [], "")
        both = mkldnn._convolution_pointwise.binary(x, other, weight, None, *geometry, "add", 1.0, "relu", [], "")
    except (AttributeError, RuntimeError, TypeError):
        return False
    plain = torch.conv2d(x, weight, padding=1)
    return torch.allclose(alone, plain.relu(), atol=1e-5) and torch.allclose(both, (plain + other).relu(), atol=1e-5)


def _summed(add: Any) -> tuple[fx.Node | None, fx.Node | None]:
    """The convolution in a sum of two equal shapes, and the other value."""
    if add.target is not aten.add.Tensor or add.kwargs or not all(isinstance(n, fx.Node) for n in add.args):
        return None, None
    first, second = add.args
    for conv, other in ((first, second), (second, first)):
        if _is_convolution(conv) and "val" in other.meta:
            return (conv, other) if conv.meta["val"].shape == other.meta["val"].shape else (None, None)
    return None, None


def _is_convolution(node: fx.Node) -> bool:
    return node.target is aten.conv2d.default or node.op == "call_module"


def _convolution(conv: fx.Node) -> tuple[Any, ...]:
    """Input, weight, bias, padding, stride, dilation and groups."""
    defaults: tuple[Any, ...] = (None, [1, 1], [0, 0], [1, 1], 1)
    given: tuple[Any, ...] = conv.args
    x, weight, bias, stride, padding, dilation, groups = (*given, *defaults[len(given) - 2 :])
    return (x, weight, bias, padding, stride, dilation, groups)
