"""A convolution together with the sum and the activation after it, in one pass over its output.

PyTorch's own operation for this is not part of its public interface. `_is_available` checks it before its first use.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, fx

from ..operations import aten, operand

mkldnn = torch.ops.mkldnn


def fuse(module: fx.GraphModule, *, overwrites_input: bool = False) -> fx.GraphModule:
    """Let each convolution compute the relu after it, and the sum between the two as well, if there is one.

    The result is written over the other value of the sum if nothing else reads that value afterwards. This needs less
    memory traffic. The module stays as it is on another device than a CPU, and where PyTorch's operation is not
    available.

    Arguments:
        module: is changed. A submodule in it is a convolution whose forward takes a value to add and `relu`.
        overwrites_input: whether the module may write over its first argument, [rows, ...].
    """
    if not all(buffer.device.type == "cpu" for buffer in module.buffers()) or not _is_available():
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
                how: tuple[Any, ...] = (*rest, "add", 1.0, "relu", [], "")
                if _is_free(other, conv, overwrites_input=overwrites_input):
                    together = module.graph.call_function(_summed_over, (x, other, *how))
                else:
                    together = module.graph.call_function(mkldnn._convolution_pointwise.binary, (x, other, *how))
        together.meta = dict(relu.meta)
        relu.replace_all_uses_with(together)
        for node in (relu, *((before,) if other is not None else ()), conv):
            module.graph.erase_node(node)
    module.recompile()
    return module


@cache
def _is_available() -> bool:
    """Whether PyTorch has the fused operation, and its results are right on a small example."""
    generator = torch.Generator().manual_seed(0)
    x, weight, other = (torch.randn(n, generator=generator) for n in ((1, 2, 4, 4), (3, 2, 3, 3), (1, 3, 4, 4)))
    geometry = ([1, 1], [1, 1], [1, 1], 1)
    plain = torch.conv2d(x, weight, padding=1)
    try:
        alone = mkldnn._convolution_pointwise.default(x, weight, None, *geometry, "relu", [], "")
        how: tuple[Any, ...] = (weight, None, *geometry, "add", 1.0, "relu", [], "")
        both = mkldnn._convolution_pointwise.binary(x, other, *how)
        over = _summed_over(x, other.clone(memory_format=torch.channels_last), *how)
        expected = ((alone, plain.relu()), (both, (plain + other).relu()), (over, (plain + other).relu()))
        return all(torch.allclose(found, right, atol=1e-5) for found, right in expected)
    except (AttributeError, RuntimeError, TypeError):
        return False


def _summed_over(x: Tensor, other: Tensor, *how: Any) -> Tensor:
    """A convolution, the sum with another value and a relu, written over that value.

    Only a value whose channels come last is written over. In bf16, PyTorch 2.14 fails on others.
    """
    if other.is_contiguous(memory_format=torch.channels_last):
        written: Tensor = mkldnn._convolution_pointwise_.binary(other, x, *how)
        return written
    apart: Tensor = mkldnn._convolution_pointwise.binary(x, other, *how)
    return apart


def _summed(add: Any) -> tuple[fx.Node | None, fx.Node | None]:
    """The convolution in a sum of two values of equal shape, and the other value; twice None where there is none.

    PyTorch 2.11 fails on sums of images with a single pixel, so these count as none.
    """
    if add.target is not aten.add.Tensor or add.kwargs or not all(isinstance(n, fx.Node) for n in add.args):
        return None, None
    first, second = add.args
    for conv, other in ((first, second), (second, first)):
        if _is_convolution(conv) and "val" in other.meta:
            shape = conv.meta["val"].shape
            return (conv, other) if shape == other.meta["val"].shape and shape[2:] != (1, 1) else (None, None)
    return None, None


def _is_free(other: fx.Node, conv: fx.Node, *, overwrites_input: bool) -> bool:
    """Whether the sum of a convolution and another value may be written over that value.

    The value must have memory of its own: it is the result of a convolution, or the input if that may be overwritten.
    Besides the sum, only convolutions before this one may read it, since their results share no memory with it.
    """
    (add,) = conv.users
    nodes = list(conv.graph.nodes)
    is_own = _computes(other) or (overwrites_input and other is nodes[0])
    readers = [node for node in other.users if node is not add]
    return is_own and all(_computes(node) and nodes.index(node) < nodes.index(conv) for node in readers)


def _computes(node: fx.Node) -> bool:
    """Whether a node is a convolution, alone or together with what follows it."""
    fused = (mkldnn._convolution_pointwise.default, mkldnn._convolution_pointwise.binary, _summed_over)
    return _is_convolution(node) or node.target in fused


def _is_convolution(node: fx.Node) -> bool:
    return node.target is aten.conv2d.default or node.op == "call_module"


def _convolution(conv: fx.Node) -> tuple[Any, ...]:
    """Input, weight, bias, padding, stride, dilation and groups, in the order of the fused operation."""
    defaults: tuple[Any, ...] = (None, [1, 1], [0, 0], [1, 1], 1)
    given: tuple[Any, ...] = conv.args
    x, weight, bias, stride, padding, dilation, groups = (*given, *defaults[len(given) - 2 :])
    return (x, weight, bias, padding, stride, dilation, groups)
