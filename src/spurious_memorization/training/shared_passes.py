"""Passes of a network of which each process computes a part, as one process would compute them all.

Without other processes (`together`), these are plain passes.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..datasets.sources import Inputs
from ..networks.features import features_and_logits
from ..networks.forward import logits
from ..together import this_share, whole


def logits_of_all(model: nn.Module, inputs: Inputs, n: int, changed: Mapping[str, Tensor] | None = None) -> Tensor:
    """Logits of a whole batch, [n, classes]; see `networks.forward.logits`.

    Arguments:
        model: the network.
        inputs: this process's part of the batch.
        n: number of samples of the whole batch.
        changed: tensors that replace the network's own.
    """
    with batch_norm_of_all(n):
        found = logits(model, inputs, changed)
    return whole(found, n)


def features_and_logits_of_all(
    model: nn.Module, inputs: Inputs, n: int, changed: Mapping[str, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Features [n, features] and logits [n, classes] of a whole batch; see `networks.features.features_and_logits`.

    Arguments:
        model, inputs, n, changed: as for `logits_of_all`.
    """
    with batch_norm_of_all(n):
        features, found = features_and_logits(model, inputs, changed)
    return whole(features, n), whole(found, n)


def rows_of_all(inputs: Inputs, n: int, chosen: Tensor) -> Inputs:
    """These rows of a whole batch.

    Arguments:
        inputs: this process's part of the batch.
        n: number of samples of the whole batch.
        chosen: positions in the whole batch.
    """
    if isinstance(inputs, Mapping):
        return {name: whole(values, n)[chosen] for name, values in inputs.items()}
    return whole(inputs, n)[chosen]


def batch_norm_of_all(n: int) -> AbstractContextManager[object]:
    """A context in which batch norm in training mode takes its statistics from a whole batch of n samples.

    `torch.nn.SyncBatchNorm` would change the network's modules, and works on GPUs only.
    """
    return _BatchNormOfAll(this_share().copies(n)) if this_share().of > 1 else nullcontext()


class _BatchNormOfAll(TorchFunctionMode):
    """Replaces batch norm, whatever module calls it.

    Arguments:
        copies: how many processes compute each sample.
    """

    def __init__(self, copies: int) -> None:
        super().__init__()
        self._copies = copies

    def __torch_function__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), named: dict[str, Any] | None = None
    ) -> Any:
        named = named or {}
        if function is F.batch_norm:
            return self._batch_norm(*arguments, **named)
        if function is torch.batch_norm:
            x, weight, bias, mean, variance, *others = arguments
            return self._batch_norm(x, mean, variance, weight, bias, *others[:3])
        return function(*arguments, **named)

    def _batch_norm(
        self,
        x: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        """As `torch.nn.functional.batch_norm`."""
        if not training:
            return F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
        values, n_channels = x.to(torch.promote_types(x.dtype, torch.float32)), x.shape[1]
        shape = [1, -1] + [1] * (x.ndim - 2)
        variance, mean = torch.var_mean(values, [0, *range(2, x.ndim)], correction=0)
        count = mean.new_full((1,), x.numel() / n_channels)
        of_all = whole(torch.cat([mean, variance, count])[None], this_share().of)  # [processes, 2 channels + 1]
        means, variances, counts = torch.split(of_all, [n_channels, n_channels, 1], dim=1)
        n = counts.sum() / self._copies
        if x.numel() == n_channels and n <= 1:
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {x.shape}")
        shares = counts / counts.sum()
        mean = (shares * means).sum(0)
        variance = (shares * (variances + (means - mean) ** 2)).sum(0)
        with torch.no_grad():
            if running_mean is not None:
                running_mean.mul_(1 - momentum).add_(mean, alpha=momentum)
            if running_var is not None:
                running_var.mul_(1 - momentum).add_(variance * (momentum * n / (n - 1)))
        scale = torch.rsqrt(variance + eps) if weight is None else weight * torch.rsqrt(variance + eps)
        normed: Tensor = (values - mean.view(shape)) * scale.view(shape)
        return (normed if bias is None else normed + bias.view(shape)).to(x.dtype)
