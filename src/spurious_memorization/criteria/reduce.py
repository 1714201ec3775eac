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
    found = {
        name: reduce(values[name].float()[..., None] if select.unit == "weight" else _numbers_of(site, values))
        for name, site in sites(model, select).items()
    }
    return Scores(found, select.unit, select.with_bias)


def l2_norm(values: Tensor) -> Tensor:
    return values.abs().squeeze(-1) if values.shape[-1] == 1 else values.square().sum(-1).sqrt()


def _numbers_of(site: Site, values: Mapping[str, Tensor]) -> Tensor:
    parts = [
        values[name].float().flatten(1) if values[name].ndim > 1 else values[name].float()[:, None]
        for name in site.rows
    ]
    return torch.cat([part[rows].flatten(1) for part, rows in zip(parts, site.rows.values(), strict=True)], dim=1)
