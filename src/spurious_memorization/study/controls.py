"""Controls: the same edit on units drawn at random from the same tensors."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ..criteria.criteria import derived_seed
from ..edits.edit import Edit
from ..errors import UserError
from ..units import Selection, Site, Units, sites, touched


def random_controls(model: nn.Module, edit: Edit, n: int = 99, *, seed: int = 0) -> list[Edit]:
    """The same edit on `n` random sets of as many units from the same tensors.

    Arguments:
        model: the network.
        edit: the edit on the selected units.
        n: number of controls.
        seed: of the draws.

    Returns:
        Edits that name `edit` as what they are matched to; fewer than `n` where no more distinct sets exist, with a
        warning.

    Example:
        ```python
        edits = [sm.zero(units), *sm.random_controls(model, sm.zero(units), n=99)]
        ```
    """
    digest = edit.digest()
    return [
        edit.on(units, matched_to=digest, seed=derived_seed(seed, "control", number, edit.seed))
        for number, units in enumerate(random_rankings(model, edit.units, n, seed=seed))
    ]


def random_rankings(model: nn.Module, selected: Units, n: int, *, seed: int = 0) -> list[Units]:
    """`n` different random rankings of the same tensors in the same order as the selected units, so that the first k
    units of each match the first k selected ones; none is the selected set itself.

    Raises:
        UserError: the network lacks a selected unit.
    """
    there = _sites_of(model, selected)
    itself = selected.digest()
    found: dict[str, Units] = {}
    for attempt in range(20 * n):
        if len(found) == n:
            break
        drawn = random_ranking(there, selected, [seed, attempt])
        if (digest := drawn.digest()) != itself:
            found.setdefault(digest, drawn)
    if len(found) < n:
        warnings.warn(
            f"only {len(found)} of {n} controls: the tensors have no more distinct sets of {len(selected)} units",
            stacklevel=2,
        )
    return list(found.values())


def _sites_of(model: nn.Module, units: Units) -> dict[str, Site]:
    """Where controls of these units can be drawn: the tensors that hold them."""
    touched(model, units)  # refuses units that the network lacks
    if units.kind == "weight":
        parameters = dict(model.named_parameters())
        return {name: Site(name, tuple(parameters[name].shape), {}) for name in units.by_name()}
    every = sites(model, Selection(unit=units.kind, with_bias=units.with_bias))
    return {name: every[name] for name in units.by_name()}


def random_ranking(there: Mapping[str, Site], selected: Units, seed: list[int]) -> Units:
    """A random ranking of the same tensors in the same order, so that its first k units match the first k selected.

    Units are drawn without replacement from those that are not selected; where a tensor has too few of these, from
    all of its units.

    Raises:
        UserError: a tensor has fewer units than are selected of it.
    """
    rng = np.random.default_rng(seed)
    index = np.empty_like(selected.index)
    for place in np.unique(selected.place):
        here = selected.place == place
        site = there[selected.names[place]]
        index[here] = _drawn(rng, site, selected.index[here])
    return Units(selected.kind, selected.names, selected.place, index, selected.with_bias)


def _drawn(rng: np.random.Generator, site: Site, selected: NDArray[np.int64]) -> NDArray[np.int64]:
    n = len(selected)
    if n > site.n:
        raise UserError(f"{site.name} has {site.n} units, {n} controls can't be drawn from it")
    if site.n < 2 * n:
        return rng.permutation(site.n)[:n].astype(np.int64)
    if site.n > 100_000:  # a draw without listing the whole tensor
        candidates = rng.choice(site.n, size=2 * n, replace=False, shuffle=True)
    else:
        candidates = rng.permutation(site.n)
    others: NDArray[np.int64] = candidates[~np.isin(candidates, selected)].astype(np.int64)
    return others[:n]
