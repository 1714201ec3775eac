"""Criteria: each gives a score to every unit of a network."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ..data.samples import Samples
from ..data.sources import Batch
from ..losses import LOSSES, LossName
from ..networks.forward import device_of, logits, moved, working_copy
from ..units import Selection, Site, sites
from .scores import Scores

Criterion = Callable[..., Mapping[str, Tensor]]


def magnitude(model: nn.Module, batch: Batch | Samples | None = None, *, select: Selection | None = None) -> Scores:
    """The L2 norm of each unit's weights; for a single weight its absolute value (You et al. 2025, "largest neuron").

    Arguments:
        model: the network, which stays as it is.
        batch: not used; every criterion takes it.
        select: the units to score; every channel but the classifier head's if not given.

    Returns:
        Scores of every unit.

    Raises:
        UserError: the selection leaves no unit.

    Example:
        ```python
        units = sm.top(sm.magnitude(model), 3)
        ```
    """
    parameters = {name: value.detach().cpu() for name, value in model.named_parameters()}
    return _reduced(model, select or Selection(), parameters, _norm)


def gradient(
    model: nn.Module,
    batch: Batch | Samples,
    *,
    select: Selection | None = None,
    loss: LossName = "cross_entropy",
) -> Scores:
    """The L2 norm of each unit's gradient of the mean loss over the batch, in evaluation mode (You et al. 2025, "most
    activated neuron").

    Arguments:
        model: the network, which stays as it is.
        batch: the samples, usually the worst of one group.
        select: the units to score; every channel but the classifier head's if not given.
        loss: "cross_entropy", or "cross_entropy_on_probabilities" (softmax twice, as in the research code).

    Returns:
        Scores of every unit.

    Raises:
        UserError: the selection leaves no unit, or a picture is missing or broken.

    Example:
        ```python
        scores = sm.gradient(model, sm.worst(model, data.train, group="waterbird on land"))
        ```
    """
    slopes = gradients(model, batch, loss)
    return _reduced(model, select or Selection(), slopes, _norm)


def taylor(
    model: nn.Module,
    batch: Batch | Samples,
    *,
    select: Selection | None = None,
    loss: LossName = "cross_entropy",
) -> Scores:
    """The absolute value of the sum, over each unit, of weight times gradient: the first-order estimate of what
    zeroing the unit does to the mean loss (Molchanov et al. 2019, eq. 8, before squaring).

    Arguments:
        model: the network, which stays as it is.
        batch: the samples, usually the worst of one group.
        select: the units to score; every channel but the classifier head's if not given.
        loss: as for `gradient`.

    Returns:
        Scores of every unit.

    Raises:
        UserError: the selection leaves no unit, or a picture is missing or broken.
    """
    slopes = gradients(model, batch, loss)
    parameters = {name: value.detach().cpu() for name, value in model.named_parameters()}
    products = {name: parameters[name] * slopes[name] for name in slopes}
    return _reduced(model, select or Selection(), products, lambda values: values.sum(-1).abs())


def random(
    model: nn.Module, batch: Batch | Samples | None = None, *, select: Selection | None = None, seed: int = 0
) -> Scores:
    """Uniform random scores, the same for the same network layout, selection and seed.

    Arguments:
        model: the network, which stays as it is.
        batch: not used; every criterion takes it.
        select: the units to score; every channel but the classifier head's if not given.
        seed: of the draws.

    Returns:
        Scores of every unit, from 0 to 1.

    Raises:
        UserError: the selection leaves no unit.
    """
    select = select or Selection()
    generator = torch.Generator().manual_seed(seed)
    values = {name: torch.rand(site.shape, generator=generator) for name, site in sites(model, select).items()}
    return Scores(values, select.unit, select.with_bias)


@torch.enable_grad()
def gradients(model: nn.Module, batch: Batch | Samples, loss: LossName = "cross_entropy") -> dict[str, Tensor]:
    """Gradient of the mean loss over the batch with respect to every parameter, in evaluation mode, on the CPU."""
    network = working_copy(model)
    device = device_of(network)
    parameters = {name: value.requires_grad_() for name, value in network.named_parameters()}
    sums = {name: torch.zeros_like(value) for name, value in parameters.items()}
    n = 0
    for part in batch.batches(200) if isinstance(batch, Samples) else [batch]:
        output = logits(network, moved(part.inputs, device))
        total = LOSSES[loss](output, part.y.to(device)).sum()
        slopes = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
        for name, slope in zip(parameters, slopes, strict=True):
            if slope is not None:
                sums[name] += slope
        n += len(part.y)
    return {name: (value / n).cpu() for name, value in sums.items()}


def derived_seed(seed: int, *parts: object) -> int:
    """A seed of its own for one use, derived from the settings' seed."""
    digest = hashlib.sha256(repr((seed, *parts)).encode()).digest()
    return int.from_bytes(digest[:6], "big")


def _reduced(
    model: nn.Module, select: Selection, values: Mapping[str, Tensor], reduce: Callable[[Tensor], Tensor]
) -> Scores:
    """Reduce the numbers of each unit, [..., numbers], to one score."""
    found = {
        name: reduce(values[name].float()[..., None] if select.unit == "weight" else _numbers(site, values))
        for name, site in sites(model, select).items()
    }
    return Scores(found, select.unit, select.with_bias)


def _norm(values: Tensor) -> Tensor:
    return values.abs().squeeze(-1) if values.shape[-1] == 1 else values.square().sum(-1).sqrt()


def _numbers(site: Site, values: Mapping[str, Tensor]) -> Tensor:
    parts = [
        values[name].float().flatten(1) if values[name].ndim > 1 else values[name].float()[:, None]
        for name in site.rows
    ]
    return torch.cat([part[rows].flatten(1) for part, rows in zip(parts, site.rows.values(), strict=True)], dim=1)
