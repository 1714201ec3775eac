"""Criteria from the gradient of the loss: `gradient` and `taylor`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..datasets.samples import Samples
from ..datasets.sources import Batch
from ..datasets.tensors import as_batch
from ..networks.checked import checked_network
from ..networks.forward import outside_inference_mode, working_copy
from ..networks.losses import LOSSES
from ..networks.names import LossName
from ..networks.outputs import logits_by_batch
from ..networks.selection import Selection
from .reduce import l2_norm, reduce_units
from .scores import Scores


def gradient(
    model: nn.Module,
    batch: Batch | Samples,
    *,
    select: Selection | None = None,
    loss: LossName = "cross_entropy",
) -> Scores:
    """L2 norm of the gradient of each unit's weights; the gradient of the mean loss over the batch.

    The network is in evaluation mode. You et al. (2025) call the largest one the "most activated neuron".

    Arguments:
        model: the network, which stays as it is.
        batch: the samples, usually the hardest samples of one group.
        select: the units to score; by default every channel except those of the classifier head.
        loss: "cross_entropy", or "cross_entropy_on_probabilities" (softmax twice, as in the research code).

    Returns:
        Scores of every unit.

    Raises:
        UserError: the selection leaves no unit, or an image is missing or broken.

    Example:
        ```python
        scores = sm.criteria.gradient(model, sm.hardest_samples(model, data.train, group="waterbird on land"))
        ```
    """
    model = checked_network(model)
    slopes = gradients(model, batch, loss)
    return reduce_units(model, select or Selection(), slopes, l2_norm)


def taylor(
    model: nn.Module,
    batch: Batch | Samples,
    *,
    select: Selection | None = None,
    loss: LossName = "cross_entropy",
) -> Scores:
    """Absolute value of the sum of weight times gradient over each unit.

    It estimates, to first order, how zeroing the unit changes the mean loss (Molchanov et al. 2019, eq. 8, before
    squaring).

    Arguments:
        model: the network, which stays as it is.
        batch: the samples, usually the hardest samples of one group.
        select: the units to score; by default every channel except those of the classifier head.
        loss: as for `gradient`.

    Returns:
        Scores of every unit.

    Raises:
        UserError: the selection leaves no unit, or an image is missing or broken.
    """
    model = checked_network(model)
    slopes = gradients(model, batch, loss)
    parameters = {name: value.detach().cpu() for name, value in model.named_parameters()}
    products = {name: parameters[name] * slopes[name] for name in slopes}
    return reduce_units(model, select or Selection(), products, lambda values: values.sum(-1).abs())


@outside_inference_mode
@torch.enable_grad()
def gradients(model: nn.Module, batch: Batch | Samples, loss: LossName = "cross_entropy") -> dict[str, Tensor]:
    """Gradient of the mean loss over the batch with respect to every parameter, in evaluation mode, on the CPU."""
    network, batch = working_copy(model), as_batch(batch)
    parameters = {name: value.requires_grad_() for name, value in network.named_parameters()}
    sums = {name: torch.zeros_like(value) for name, value in parameters.items()}
    n = 0
    for part, output in logits_by_batch(network, batch):
        total = LOSSES[loss](output, part.y.to(output.device)).sum()
        slopes = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
        for name, slope in zip(parameters, slopes, strict=True):
            if slope is not None:
                sums[name] += slope
        n += len(part.y)
    return {name: (value / n).cpu() for name, value in sums.items()}
