"""Folded norms: the weight norm of each unit times the factor of the batch norm behind it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..networks.names import UnitKind
from ..networks.norm_factors import norm_factors
from ..networks.selection import Selection
from ..networks.units import Site, Units, sites

LEAST = 1e-3
"""Norms that are smaller, relative to the layer, count as equal: units without weight."""


def folded_norms(model: nn.Module, unit: UnitKind = "channel", *, select: Selection | None = None) -> dict[str, Tensor]:
    """L2 norm of every unit's weights, times the factor of the batch norm behind its layer. Biases do not count.

    A batch norm is behind a layer if it takes the layer's output in the forward pass. Without a batch norm the folded
    norm is the plain norm.

    Arguments:
        model: the network.
        unit: kind of the units.
        select: which of them; if not given, all units of the kind `unit` except those of the classifier head.

    Returns:
        {tensor name: norms}, of the shapes of `Scores`; float64.
    """
    select = select or Selection(unit=unit)
    return norms_of(model, sites(model, select), select.unit)


def norms_of(model: nn.Module, there: Mapping[str, Site], unit: UnitKind) -> dict[str, Tensor]:
    """Folded norms of the units of these sites, as for `folded_norms`."""
    factors = norm_factors(model)
    parameters = {name: value.detach().cpu().double() for name, value in model.named_parameters()}

    def scaled(name: str) -> Tensor:
        value, factor = parameters[name], factors.get(name)
        return value if factor is None else value * factor.reshape(-1, *[1] * (value.ndim - 1))

    if unit == "weight":
        return {name: scaled(name).abs() for name in there}
    found = {}
    for name, site in there.items():
        numbers = site.numbers({parameter: scaled(parameter) for parameter in site.held})
        squares = [of.square().sum(1) for parameter, of in numbers.items() if parameters[parameter].ndim > 1]
        found[name] = torch.stack(squares).sum(0).sqrt()
    return found


def norms_of_units(model: nn.Module, units: Units) -> NDArray[np.float64]:
    """Folded norm of each of these units, [units]."""
    there = where_units_are(model, units)
    named = {name: there[name] for name in units.by_name()}
    norms = {name: values.flatten().numpy() for name, values in norms_of(model, named, units.kind).items()}
    return np.array([norms[name][index] for name, index in units])


def log_norm(relative: Mapping[str, NDArray[np.float64]], units: Units) -> float:
    """Logarithm of the root mean square of the relative norms of a set's units.

    Arguments:
        relative: from `relative_norms`.
        units: the set.
    """
    norms = np.concatenate([relative[name][index] for name, index in units.by_name().items()])
    return float(np.log(np.sqrt(np.square(norms).mean()) + LEAST))


def relative_norms(model: nn.Module, units: Units, tensors: Iterable[str]) -> dict[str, NDArray[np.float64]]:
    """Folded norms of all units of each layer, divided by their root mean square in the layer.

    Arguments:
        model: the network.
        units: some of the units, of the kind that is wanted.
        tensors: names of the tensors.

    Returns:
        {tensor name: relative norms, [units]}.
    """
    everywhere = where_units_are(model, units)
    there = {name: everywhere[name] for name in tensors}
    norms = {name: values.flatten().numpy() for name, values in norms_of(model, there, units.kind).items()}
    return {name: of / max(float(np.sqrt(np.square(of).mean())), LEAST) for name, of in norms.items()}


def where_units_are(model: nn.Module, units: Units) -> dict[str, Site]:
    """Every tensor with units of this kind, including the tensors of these units."""
    if units.kind != "weight":
        return sites(model, Selection(unit=units.kind, with_bias=units.with_bias))
    parameters = dict(model.named_parameters())
    named = {name: Site(name, tuple(parameters[name].shape), {}) for name in units.by_name()}
    return {**sites(model, Selection(unit="weight")), **named}


def stage_of(tensor: str) -> str:
    """The stage of a convolutional network, or the block of a transformer, to which a tensor belongs.

    For "layer3.0.conv2.weight" it is "layer3", for "blocks.5.attn.qkv.weight" it is "blocks.5", for
    "visual.transformer.resblocks.5.attn" it is "visual.transformer.resblocks.5".
    """
    parts = tensor.split(".")
    number = next((place for place, part in enumerate(parts) if place and part.isdecimal()), None)
    if number is None:
        return parts[0]
    return ".".join(parts[: number if re.search(r"\d", parts[number - 1]) else number + 1])
