"""Pruning masks: the units that are pruned in a copy of a network."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ..criteria.gradients import gradient
from ..criteria.random_scores import random
from ..criteria.scores import Scores, count_of, top
from ..criteria.weight_norms import weight_norm
from ..datasets.samples import Samples
from ..datasets.sources import Batch
from ..errors import UserError
from ..networks.checked import checked_network
from ..networks.names import LossName
from ..networks.selection import Selection
from ..networks.units import Units, short_name, sites, touched

Mask = Literal["gradient", "magnitude-smallest", "magnitude-largest", "random", "none"]
"""How the units to prune are chosen."""


def pruned_units(
    model: nn.Module,
    mask: Mask,
    fraction: float,
    batch: Batch | Samples | None = None,
    *,
    select: Selection | None = None,
    loss: LossName = "cross_entropy",
    strictly_beyond: bool = False,
    seed: int = 0,
) -> Units:
    """The units that a mask prunes.

    Arguments:
        model: the network, which stays as it is.
        mask: "magnitude-smallest" and "magnitude-largest" by L2 norm, "gradient" by the largest gradients of the mean
            loss over the batch, "random", or "none".
        fraction: fraction of the units, rounded up.
        batch: samples for "gradient", usually the hardest ones.
        select: the units that are considered; by default every channel but those of the classifier head.
        loss: the loss whose gradient is taken.
        strictly_beyond: with "magnitude-largest", one unit fewer: only those larger than the last selected one.
        seed: of "random".

    Raises:
        UserError: a whole layer would be pruned, or "gradient" has no samples.

    Example:
        ```python
        hardest = sm.hardest_samples(model, data.train, n=200)
        pruned = sm.edits.edited(model, sm.edits.zero(sm.pruned_units(model, "gradient", 0.01, hardest)))
        ```
    """
    model, select = checked_network(model), select or Selection()
    n = 0
    if mask != "none":
        scores = _scores(model, mask, batch, select, loss, seed)
        n = count_of(scores, fraction) - (strictly_beyond and mask == "magnitude-largest")
    if n <= 0:
        return top(weight_norm(model, select=select), 1).first(0)
    units = top(scores, n, largest=mask != "magnitude-smallest")
    _check_whole_layers(model, units, select, mask, fraction)
    return units


def _scores(
    model: nn.Module, mask: Mask, batch: Batch | Samples | None, select: Selection, loss: LossName, seed: int
) -> Scores:
    match mask:
        case "gradient":
            if batch is None:
                raise UserError("mask gradient needs samples: pass a batch, such as the hardest samples")
            return gradient(model, batch, select=select, loss=loss)
        case "random":
            return random(model, select=select, seed=seed)
        case _:
            return weight_norm(model, select=select)


def parameter_masks(model: nn.Module, units: Units) -> dict[str, Tensor]:
    """{parameter: 0 where the units are, 1 elsewhere}, in the shape of the parameter. Parameters without any of the
    units are left out."""
    parameters, masks = dict(model.named_parameters()), {}
    for name, places in touched(model, units).items() if len(units) else ():
        mask = torch.ones(parameters[name].shape)
        if units.are_flat:
            mask.view(-1)[places] = 0
        else:
            mask[places] = 0
        masks[name] = as_mask(model, name, mask)
    return masks


def as_mask(model: nn.Module, name: str, mask: Tensor) -> Tensor:
    """A mask of zeros and ones, with the device, type and memory layout of its parameter."""
    return torch.empty_like(model.get_parameter(name), requires_grad=False).copy_(mask)


def _check_whole_layers(model: nn.Module, units: Units, select: Selection, mask: Mask, fraction: float) -> None:
    all_sites = sites(model, select)
    for name, index in units.by_name().items():
        if len(index) == all_sites[name].n:
            raise UserError(
                f"mask {mask} with fraction {fraction:g} would prune all {len(index)} {units.kind}s of "
                f"{short_name(name)}: choose a smaller fraction, or another mask"
            )
