"""Running statistics of batch norm, for training steps that pass a network several times."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def statistics(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the running statistics of every batch norm, by buffer name.

    If they replace the network's own statistics in a pass, they take the updates, and the network's own stay unchanged.
    """
    return {
        f"{name}.{buffer}": getattr(module, buffer).clone()
        for name, module in _norms(model).items()
        for buffer in STATISTICS
    }


def repeat_first_pass(model: nn.Module, before: Mapping[str, Tensor], after_first: Mapping[str, Tensor]) -> None:
    """Update the statistics after two passes as if a third pass with the first pass's batch and weights had followed.

    A pass with batch statistics s moves r to (1 - m) r + m s. The first pass moved r0 to r1, the second moved on to r2;
    since m s = r1 - (1 - m) r0, the third ends at (1 - m) r2 + m s = r1 + (1 - m) (r2 - r0).

    Arguments:
        before, after_first: results of `statistics` before and after the first pass.
    """
    for name, module in _norms(model).items():
        count = module.num_batches_tracked
        if count is None:
            continue
        for buffer in ("running_mean", "running_var"):
            now = getattr(module, buffer).data  # outside autograd, which has kept the values of the passes
            old, first = before[f"{name}.{buffer}"], after_first[f"{name}.{buffer}"]
            if module.momentum is None:  # a plain mean over all passes: m is 1 over their number
                n = int(before[f"{name}.num_batches_tracked"])
                of_batch = old + (n + 1) * (first - old)
                now += (of_batch - now) / (n + 3)
            else:
                now.copy_(first + (1 - module.momentum) * (now - old))
        count += 1


def _norms(model: nn.Module) -> dict[str, _BatchNorm]:
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    }
