"""Batch norms in evaluation: folded into the convolution before them, or one factor and one offset per channel."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from ..operations import aten
from .program import NotExportable


def fold_batch_norms(graph: fx.Graph) -> None:
    """Fold each batch norm into the weight and bias of the convolution before it.

    That needs a convolution whose output nothing else reads. Any other batch norm becomes one factor and one offset
    per channel.

    Raises:
        NotExportable: statistics or parameters of a batch norm depend on the input.
    """
    for norm in list(graph.nodes):
        if norm.target is not aten._native_batch_norm_legit_no_training.default:
            continue
        before, scale, offset, mean, variance, _, epsilon = norm.args
        if any(isinstance(n, fx.Node) and n.op != "get_attr" for n in norm.args[1:5]):
            raise NotExportable("a batch norm's numbers depend on the input")
        with graph.inserting_before(norm):
            if before.target is aten.conv2d.default and len(before.users) == 1 and before.args[1].op == "get_attr":
                x, weight, bias, *rest = (*before.args, None) if len(before.args) == 2 else before.args
                new_weight = graph.call_function(folded_weight, (weight, scale, variance, epsilon))
                new_weight.meta = dict(weight.meta)
                new_bias = graph.call_function(folded_bias, (bias, scale, offset, mean, variance, epsilon))
                folded = graph.call_function(before.target, (x, new_weight, new_bias, *rest))
            else:
                factor = graph.call_function(norm_factor, (scale, variance, epsilon))
                new_bias = graph.call_function(folded_bias, (None, scale, offset, mean, variance, epsilon))
                folded = graph.call_function(channel_affine, (before, factor, new_bias))
        folded.meta = dict(before.meta)
        for output in list(norm.users):  # of its three results only the first is read
            output.replace_all_uses_with(folded)
            graph.erase_node(output)
        graph.erase_node(norm)


def folded_weight(weight: Tensor, scale: Tensor | None, variance: Tensor, epsilon: float) -> Tensor:
    """Weight [channels, ...] of a convolution with the batch norm after it: weight * factor."""
    factor = _factor(scale, variance, epsilon).to(weight)
    return weight * factor.reshape(-1, *[1] * (weight.ndim - 1))


def folded_bias(
    bias: Tensor | None,
    scale: Tensor | None,
    offset: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    epsilon: float,
) -> Tensor:
    """Bias [channels] of a convolution with the batch norm after it: (bias - mean) * factor + offset."""
    start = -_exact(mean) if bias is None else _exact(bias) - _exact(mean)
    result = start * _factor(scale, variance, epsilon)
    return (result if offset is None else result + _exact(offset)).to(mean)


def norm_factor(scale: Tensor | None, variance: Tensor, epsilon: float) -> Tensor:
    """The factor by which a batch norm multiplies each channel, [channels]: scale / sqrt(variance + epsilon)."""
    return _factor(scale, variance, epsilon).to(variance)


def _factor(scale: Tensor | None, variance: Tensor, epsilon: float) -> Tensor:
    inverse = (_exact(variance) + epsilon).rsqrt()
    return inverse if scale is None else _exact(scale) * inverse


def _exact(values: Tensor) -> Tensor:
    """In float64, on the CPU: some accelerators have no float64."""
    return values.cpu().double()


def channel_affine(x: Tensor, factor: Tensor, offset: Tensor) -> Tensor:
    """A batch norm that could not be folded: x [samples, channels, ...] * factor + offset, both [channels]."""
    shape = (-1, *[1] * (x.ndim - 2))
    return torch.addcmul(offset.reshape(shape), x, factor.reshape(shape))
