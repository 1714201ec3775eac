"""Control sets: random units that match the selected ones in place and folded norm, for the same edit."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ..edits.edit import Edit, checked_edits
from ..networks.checked import checked_network
from ..networks.units import Units, touched
from ..seeds import derived_seed
from .norms import norms_of, stage_of, where_units_are

Reach = Literal["tensor", "stage", "network"]
REACHES: tuple[Reach, ...] = ("tensor", "stage", "network")


@dataclass(frozen=True, eq=False, kw_only=True)
class MatchedRankings:
    """Random rankings that match one or several selected rankings, position by position.

    Arguments:
        rankings: the controls; the first k units of each match the first k selected units.
        reach: how far from the selected unit's own tensor units had to be drawn.
        same_tensor: share of the controls' units that are in the selected unit's own tensor.
        norm_ratios: for each selected ranking, the median over the controls of this ratio: root-mean-square folded norm
            of the control's units over that of the selected units.
        log_norms: logarithms of the folded norms of the controls' units, [controls, positions], and of the selected
            units, [rankings, positions].
        is_own: whether a control's unit is in the selected unit's own tensor, [controls, positions].
    """

    rankings: Sequence[Units]
    reach: Reach
    same_tensor: float
    norm_ratios: tuple[float, ...]
    log_norms: tuple[NDArray[np.float64], NDArray[np.float64]]
    is_own: NDArray[np.bool_]

    def first(self, n: int) -> MatchedRankings:
        """The same for the first `n` units of each ranking."""
        of_controls, of_selected = (values[:, :n] for values in self.log_norms)
        return replace(
            self,
            rankings=[ranking.first(n) for ranking in self.rankings],
            same_tensor=float(self.is_own[:, :n].mean()) if len(self.rankings) else 0.0,
            norm_ratios=_ratios(of_controls, of_selected),
        )


def matched_controls(model: nn.Module, edit: Edit | Units, n: int = 99, *, seed: int = 0) -> list[Edit]:
    """The same edit on `n` random sets with the same number of units, from the same tensors and with similar norms.

    Arguments:
        model: the network, which stays as it is.
        edit: the edit on the selected units; units without an edit are zeroed.
        n: number of controls.
        seed: of the draws.

    Returns:
        Edits whose `matched_to` names `edit`. There are fewer than `n`, with a warning, if the network has too few
        other units.

    Raises:
        UserError: the network lacks a selected unit.

    Example:
        ```python
        edits = [sm.edits.zero(units), *sm.matched_controls(model, sm.edits.zero(units), n=99)]
        ```
    """
    model = checked_network(model)
    (edit,) = checked_edits(Edit("zero", edit) if isinstance(edit, Units) else edit)
    digest = edit.digest()
    drawn = matched_rankings(model, [edit.units], n, seed=seed).rankings
    if len(drawn) < n:
        warnings.warn(f"only {len(drawn)} of {n} controls: the network has no more units to draw from", stacklevel=2)
    return [
        edit.on(units, matched_to=digest, seed=derived_seed(seed, "control", number, edit.seed))
        for number, units in enumerate(drawn)
    ]


def matched_rankings(model: nn.Module, selected: Sequence[Units], n: int, *, seed: int = 0) -> MatchedRankings:
    """`n` random rankings that are matched to one or several selected rankings of the same tensors.

    At each position the n units nearest in folded norm to the selected unit are shuffled and dealt out, one to each
    control. They come from the selected unit's own tensor. If it has too few units, they come from the stage (in a
    transformer: the block), and then from the whole network. So each unit takes part only once per position, and a
    unit selected at random is equally likely to be the strongest among them. Distinct sets would not be enough: drawn
    repeatedly from few units, no control would show the effect of a single strong unit that is selected.

    Arguments:
        selected: rankings with the same tensor at each position. Controls match their mean log norm and contain none of
            their units.
        n: number of controls; fewer are returned if the network has too few other units.
        seed: of the draws.

    Raises:
        UserError: the network lacks a selected unit.
    """
    first = selected[0]
    for units in selected:
        touched(model, units)  # raises an error for units that the network lacks
    if first.kind == "weight":
        return _of_weights(model, selected, n, seed)
    there = where_units_are(model, first)
    norms = {name: values.flatten().numpy() for name, values in norms_of(model, there, first.kind).items()}
    tensors = list(there)
    place = np.repeat(np.arange(len(tensors)), [there[name].n for name in tensors])
    index = np.concatenate([np.arange(there[name].n) for name in tensors])
    log_norms = np.log(np.concatenate([norms[name] for name in tensors]) + 1e-12)
    stages = np.array([stage_of(name) for name in tensors])
    start = {name: int(s) for name, s in zip(tensors, np.cumsum([0, *(there[t].n for t in tensors[:-1])]), strict=True)}
    own = np.array([[start[name] + i for name, i in units] for units in selected])  # [rankings, positions]
    free = np.ones(len(place), bool)
    free[own.ravel()] = False
    n = min(n, int(free.sum())) if free.sum() >= 3 * len(first) else 0
    rng = np.random.default_rng([seed, 0xC0117201])
    chosen = np.empty((n, len(first)), np.int64)
    furthest = 0
    for position in range(len(first)):
        tensor = tensors.index(first.names[first.place[position]])
        level = np.where(place == tensor, 0, np.where(stages[place] == stages[tensor], 1, 2))
        distance = np.abs(log_norms - log_norms[own[:, position]].mean())
        candidates = np.flatnonzero(free)
        nearest = candidates[np.lexsort((candidates, distance[candidates], level[candidates]))]
        pool = nearest[: max(n, 2 * len(first))]
        furthest = max(furthest, int(level[pool].max(initial=0)))
        chosen[:, position] = _without_repeats(rng, pool, chosen[:, :position])
    rankings = [Units(first.kind, tuple(tensors), place[row], index[row], first.with_bias) for row in chosen]
    tensor_of = np.array([tensors.index(first.names[p]) for p in first.place])
    return MatchedRankings(
        rankings=rankings,
        reach=REACHES[furthest],
        same_tensor=float((place[chosen] == tensor_of).mean()) if n else 0.0,
        norm_ratios=_ratios(log_norms[chosen], log_norms[own]),
        log_norms=(log_norms[chosen], log_norms[own]),
        is_own=place[chosen] == tensor_of,
    )


def _without_repeats(rng: np.random.Generator, pool: NDArray[np.int64], before: NDArray[np.int64]) -> NDArray[np.int64]:
    """A different unit of the pool for each control, [controls]; none that the control already has.

    Arguments:
        before: units that the controls have already, [controls, positions].
    """
    drawn = rng.permutation(pool)
    n = len(before)
    while len(wrong := _wrong(before, drawn[:n])):
        for control in wrong:
            other = int(rng.integers(len(drawn)))
            drawn[control], drawn[other] = drawn[other], drawn[control]
    return drawn[:n]


def _wrong(before: NDArray[np.int64], drawn: NDArray[np.int64]) -> NDArray[np.int64]:
    """Controls that have a unit twice, or are the same set as an earlier control."""
    sets = np.sort(np.column_stack([before, drawn]), axis=1)
    is_first = np.zeros(len(drawn), bool)
    is_first[np.unique(sets, axis=0, return_index=True)[1]] = True
    return np.flatnonzero((before == drawn[:, None]).any(1) | ~is_first)


FEW_WEIGHTS = 64


def _of_weights(model: nn.Module, selected: Sequence[Units], n: int, seed: int) -> MatchedRankings:
    """Controls of single weights, drawn from the weights of the same tensor that are near a selected weight in norm.

    If few weights are selected, each weight takes part once per position, as channels do. If many are selected and a
    tensor has too few others near them, controls are drawn from all of its weights.
    """
    first = selected[0]
    there = {name: site for name, site in where_units_are(model, first).items() if name in first.by_name()}
    norms = {name: values.flatten().numpy() for name, values in norms_of(model, there, "weight").items()}
    own = np.array([units.index for units in selected])
    is_few = len(first) <= FEW_WEIGHTS
    places = {int(place): np.flatnonzero(first.place == place) for place in np.unique(first.place)}
    if is_few:
        left = {place: len(norms[first.names[place]]) - len(np.unique(own[:, here])) for place, here in places.items()}
        n = 0 if any(left[p] < 3 * len(here) for p, here in places.items()) else min(n, *left.values())
    drawn = np.empty((n, len(first)), np.int64)
    log_norms = np.empty((n + len(selected), len(first)))
    rng = np.random.default_rng([seed, 0xC0117201])
    for place, here in places.items():
        values = norms[first.names[place]]
        order = np.argsort(values, kind="stable")
        others = order[~np.isin(order, own[:, here])]
        if is_few:
            logs = np.log(values + 1e-12)
            for number, position in enumerate(here):
                distance = np.abs(logs[others] - logs[own[:, position]].mean())
                pool = others[np.argsort(distance, kind="stable")[: max(n, 2 * len(here))]]
                drawn[:, position] = _without_repeats(rng, pool, drawn[:, here[:number]])
        else:
            near = _near(np.searchsorted(values[others], values[own[:, here]].ravel()), max(n, len(here)), len(others))
            pool = others[near] if near.sum() >= len(here) else order
            for control in range(n):
                drawn[control, here] = rng.choice(pool, len(here), replace=False)
        log_norms[:, here] = np.log(values[np.concatenate([own[:, here], drawn[:, here]])] + 1e-12)
    rankings = [Units(first.kind, first.names, first.place, row, first.with_bias) for row in drawn]
    parts = log_norms[len(selected) :], log_norms[: len(selected)]
    return MatchedRankings(
        rankings=rankings,
        reach="tensor",
        same_tensor=1.0,
        norm_ratios=_ratios(*parts),
        log_norms=parts,
        is_own=np.ones(drawn.shape, bool),
    )


def _near(positions: NDArray[np.int64], width: int, n: int) -> NDArray[np.bool_]:
    """Which of n places are at most `width` away from one of these positions, [n]."""
    edges = np.zeros(n + 1, np.int64)
    np.add.at(edges, np.clip(positions - width, 0, n), 1)
    np.add.at(edges, np.clip(positions + width, 0, n), -1)
    return edges.cumsum()[:n] > 0


def _ratios(controls: NDArray[np.float64], selected: NDArray[np.float64]) -> tuple[float, ...]:
    """Median of the controls' root-mean-square norm over that of each selected set, from logarithms [sets, units]."""
    of_controls, of_selected = (np.sqrt(np.exp(2 * values).mean(1)) for values in (controls, selected))
    middle = float(np.median(of_controls)) if len(of_controls) else float("nan")
    return tuple(middle / float(value) for value in of_selected)
