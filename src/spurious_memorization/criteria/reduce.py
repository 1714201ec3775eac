"""Reduce the values of each unit's parameters to one score."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ..networks.selection import Selection
from ..networks.units import Site, sites
from .scores import Scores


def reduce_units(
    model: nn.Module, select: Selection, values: Mapping[str, Tensor], reduce: Callable[[Tensor], Tensor]
) -> Scores:
    """Reduce the values of each unit, [..., values], to one score."""

    def numbers(site: Site) -> Tensor:
        if select.unit == "weight":
            return values[site.name].float()[..., None]
        return torch.cat([part.float() for part in site.numbers(values).values()], dim=1)

    found = {name: reduce(numbers(site)) for name, site in sites(model, select).items()}
    return Scores(found, select.unit, select.with_bias)


def l2_norm(values: Tensor) -> Tensor:
    return values.abs().squeeze(-1) if values.shape[-1] == 1 else values.square().sum(-1).sqrt()
