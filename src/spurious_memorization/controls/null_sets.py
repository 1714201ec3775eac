"""Null sets: random units of the layers from which the selected units come, for the same edit."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, count, islice

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ..edits.edit import Edit, checked_edits
from ..errors import UserError
from ..networks.checked import checked_network
from ..networks.names import Reach
from ..networks.units import Units, touched
from ..seeds import derived_seed
from .norms import stage_of, where_units_are

MAX_ENUMERATED = 999
"""If there are at most this number of null sets, each of them is used once."""


@dataclass(frozen=True, eq=False)
class Region:
    """Layers whose units are exchanged for each other.

    Arguments:
        tensors: names of their tensors.
        start: number of units before each tensor, and of all units, [tensors + 1].
        selected: the selected units in it, numbered over all its tensors, [units].
    """

    tensors: tuple[str, ...]
    start: NDArray[np.int64]
    selected: NDArray[np.int64]

    @property
    def n(self) -> int:
        """Number of its units."""
        return int(self.start[-1])


class NullSets:
    """Random sets that stand beside one or several selected sets.

    A null set is made by exchanging units at random within each layer. All selected sets undergo the same exchange. So
    what they have in common stays in common: a smaller set stays within a larger one, and the sets that two halves of
    the samples select keep their overlap. If the selected units are no better than random ones of their layers, the
    selected sets and the null sets are exchangeable. Then the rank of the selected set among any number of null sets is
    an exact Monte Carlo test. The selected units themselves can be drawn, too.

    If there are few different null sets, all of them are used, each once and in random order. Their rank then is an
    exact permutation test.

    Arguments:
        model: the network.
        sets: the selected sets, of one kind of unit.
        reach: where units are drawn from: the layer of the selected unit, its stage (in a transformer: its block), or
            the whole network.
        seed: of the draws.

    Raises:
        UserError: the network lacks a selected unit.
    """

    def __init__(self, model: nn.Module, sets: Sequence[Units], *, reach: Reach = "layer", seed: int = 0) -> None:
        for units in sets:
            touched(model, units)  # raises an error for units that the network lacks
        self.reach = reach
        self._sets = sets
        self._seed = seed
        self._tensors = {name: site.n for name, site in where_units_are(model, _joined(sets)).items()}
        self._regions = _regions(self._tensors, sets, reach)
        self._every = self._enumerated()

    @property
    def n(self) -> int | None:
        """Number of different null sets, without the selected sets; None if they are too many to use each."""
        return None if self._every is None else len(self._every)

    @property
    def tensors(self) -> list[str]:
        """Names of all tensors from which units are drawn."""
        return [name for region in self._regions for name in region.tensors]

    def draw(self, number: int) -> list[Units]:
        """The null sets of one number, in the order of the selected sets.

        Arguments:
            number: from 0; below `n` if that is not None.
        """
        if self._every is not None:
            return self._mapped(self._every[number])
        rng = np.random.default_rng([self._seed, 0xC0117201, number])
        return self._mapped(
            [rng.choice(region.n, len(region.selected), replace=False, shuffle=True) for region in self._regions]
        )

    def _mapped(self, drawn: Sequence[NDArray[np.int64]]) -> list[Units]:
        """The selected sets, with the selected units of each region replaced by those drawn."""
        return [self._of_set(units, drawn) for units in self._sets]

    def _of_set(self, units: Units, drawn: Sequence[NDArray[np.int64]]) -> Units:
        names = {name: place for place, name in enumerate(self._tensors)}
        place, index = np.empty(len(units), np.int64), np.empty(len(units), np.int64)
        for region, chosen in zip(self._regions, drawn, strict=True):
            here, numbers = _numbered(region, units)
            new = chosen[np.searchsorted(region.selected, numbers)]
            tensor = np.searchsorted(region.start, new, side="right") - 1
            place[here] = np.array([names[name] for name in region.tensors])[tensor]
            index[here] = new - region.start[tensor]
        return Units(units.kind, tuple(self._tensors), place, index, units.with_bias)

    def _enumerated(self) -> list[list[NDArray[np.int64]]] | None:
        """Every different exchange but the one that changes nothing, in random order; None if there are too many."""
        alike = [_alike(region, self._sets) for region in self._regions]
        for region, parts in zip(self._regions, alike, strict=True):
            if region.n > MAX_ENUMERATED + 1 and not (len(parts) == 1 and len(parts[0]) == region.n):
                return None  # they are at least as many as the units
        ways = [
            _ways(region.n, [len(part) for part in parts]) for region, parts in zip(self._regions, alike, strict=True)
        ]
        if math.prod(ways) > MAX_ENUMERATED + 1:
            return None
        every = list(_exchanges([(region.n, parts) for region, parts in zip(self._regions, alike, strict=True)]))
        own = [region.selected for region in self._regions]
        own_key = _key(own, alike)
        others = [one for one in every if _key(one, alike) != own_key]
        order = np.random.default_rng([self._seed, 0xE7]).permutation(len(others))
        return [others[place] for place in order]


def null_sets(
    model: nn.Module, edit: Edit | Units, n: int = 99, *, reach: Reach = "layer", seed: int = 0
) -> list[Edit]:
    """The same edit on `n` random sets of the same layers, with the same number of units per layer.

    Arguments:
        model: the network, which stays as it is.
        edit: the edit on the selected units; units without an edit are zeroed.
        n: number of null sets.
        reach: where units are drawn from: "layer", "stage" (in a transformer: the block) or "network".
        seed: of the draws.

    Returns:
        Edits whose `matched_to` names `edit`. There are fewer than `n`, with a warning, if the layers have fewer
        different sets.

    Raises:
        UserError: the network lacks a selected unit.

    Example:
        ```python
        edits = [sm.edits.zero(units), *sm.null_sets(model, sm.edits.zero(units), n=99)]
        ```
    """
    model = checked_network(model)
    (edit,) = checked_edits(Edit("zero", edit) if isinstance(edit, Units) else edit)
    drawn = NullSets(model, [edit.units], reach=reach, seed=seed)
    if drawn.n is not None and drawn.n < n:
        warnings.warn(f"only {drawn.n} of {n} null sets: the layers have no more different sets", stacklevel=2)
        n = drawn.n
    return [
        edit.on(drawn.draw(k)[0], matched_to=edit.digest(), seed=derived_seed(seed, "control", k, edit.seed))
        for k in range(n)
    ]


def sets_of_many_sizes(
    model: nn.Module, edit: Edit | Units, n: int = 199, *, reach: Reach = "layer", seed: int = 0
) -> list[Edit]:
    """The same edit on `n` random sets of other units of the same layers, of sizes from one unit to all units.

    None has as many units as `edit`, since such sets count as its null sets. Those that disturb the network about as
    much as `edit` are compared with it by `effects`. They are called damage-matched.

    Arguments:
        model: the network, which stays as it is.
        edit: the edit on the selected units; units without an edit are zeroed.
        n: number of sets.
        reach: where units are drawn from: "layer", "stage" (in a transformer: the block) or "network".
        seed: of the draws.

    Returns:
        Edits whose `matched_to` names `edit`.

    Raises:
        UserError: the network lacks a selected unit, or these layers have no set of another size.
    """
    model = checked_network(model)
    (edit,) = checked_edits(Edit("zero", edit) if isinstance(edit, Units) else edit)
    drawn = SetsOfManySizes(model, [edit.units], reach=reach, seed=seed)
    if drawn.most == 0 or drawn.most == len(edit.units) == 1:
        layers = ", ".join(drawn.tensors)
        raise UserError(f"sets of many sizes need units that are not selected: {drawn.most} of {layers} are left")
    numbered = ((k, drawn.draw(k)) for k in count())
    others = ((k, units) for k, units in numbered if len(units) != len(edit.units))
    return [
        edit.on(units, matched_to=edit.digest(), seed=derived_seed(seed, "damage", k, edit.seed))
        for k, units in islice(others, n)
    ]


class SetsOfManySizes:
    """Random sets of any size from the layers of selected sets, or from further away, without the selected units.

    Each layer, or each stage, gets the share of units that it has in the selected sets.

    Arguments:
        model: the network.
        sets: the selected sets, of one kind of unit.
        reach: where units are drawn from, as for `NullSets`.
        seed: of the draws.

    Raises:
        UserError: the network lacks a selected unit.
    """

    def __init__(self, model: nn.Module, sets: Sequence[Units], *, reach: Reach = "layer", seed: int = 0) -> None:
        for units in sets:
            touched(model, units)
        joined = _joined(sets)
        self._like = joined
        self._reach, self._seed = reach, seed
        selected = joined.by_name()
        regions = _regions({name: site.n for name, site in where_units_are(model, joined).items()}, sets, reach)
        self._names = tuple(name for region in regions for name in region.tensors)
        self._selected = [np.unique(selected.get(name, np.zeros(0, np.int64))) for name in self._names]
        n = np.concatenate([np.diff(region.start) for region in regions])
        self._free = n - [len(index) for index in self._selected]
        parts = []
        for region in regions:
            free = self._free[[self._names.index(name) for name in region.tensors]]
            chosen = sum(len(selected[name]) for name in region.tensors if name in selected)
            parts.append(chosen / len(joined) * free / max(1, free.sum()))
        share = np.concatenate(parts)
        self._share = share / share.sum() if share.any() else share

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of all tensors from which units are drawn."""
        return self._names

    @property
    def place(self) -> str:
        """Where units are drawn from, in words."""
        return {"layer": "the same layers", "stage": "the same stages", "network": "the whole network"}[self._reach]

    @property
    def most(self) -> int:
        """Number of units of all these layers that are not selected."""
        return int(self._free.sum())

    def draw(self, number: int, sizes: tuple[float, float] | None = None) -> Units:
        """The set of one number.

        Arguments:
            number: from 0.
            sizes: smallest and largest size. The size is drawn log-uniformly between them; from 1 to all units if not
                given.
        """
        rng = np.random.default_rng([self._seed, 0xDA3A6E, number])
        low, high = sizes or (1, self.most)
        size = int(np.clip(round(math.exp(rng.uniform(math.log(low), math.log(high)))), 1, self.most))
        taken = np.minimum(rng.multinomial(size, self._share), self._free)
        while (missing := size - int(taken.sum())) > 0:  # a layer was full: the others take its part
            room = self._free - taken
            taken += np.minimum(rng.multinomial(missing, room / room.sum()), room)
        parts = [
            _others(rng.choice(n, k, replace=False), selected)
            for n, k, selected in zip(self._free, taken, self._selected, strict=True)
        ]
        place = np.repeat(np.arange(len(self._names)), taken)
        return Units(self._like.kind, self._names, place, np.concatenate(parts), self._like.with_bias)


def _others(numbers: NDArray[np.int64], selected: NDArray[np.int64]) -> NDArray[np.int64]:
    """The units with these numbers among those that are not selected.

    Arguments:
        numbers: counted over the units that are not selected.
        selected: selected units, sorted.
    """
    left_before = selected - np.arange(len(selected))  # number of units before each selected one that are not selected
    return numbers + np.searchsorted(left_before, numbers, side="right")


def _joined(sets: Sequence[Units]) -> Units:
    """All units of several sets as one, with repetitions."""
    names = tuple(dict.fromkeys(name for units in sets for name in units.by_name()))
    number = {name: place for place, name in enumerate(names)}
    place = np.concatenate([np.array([number.get(name, -1) for name in u.names])[u.place] for u in sets])
    index = np.concatenate([units.index for units in sets])
    return Units(sets[0].kind, names, place, index, sets[0].with_bias)


def _regions(tensors: Mapping[str, int], sets: Sequence[Units], reach: Reach) -> list[Region]:
    """The regions that hold selected units."""

    def region_of(name: str) -> str:
        return {"layer": name, "stage": stage_of(name), "network": ""}[reach]

    joined = _joined(sets)
    found = []
    for chosen in dict.fromkeys(region_of(name) for name in joined.names):
        names = tuple(name for name in tensors if region_of(name) == chosen)
        start = np.cumsum([0, *(tensors[name] for name in names)])
        region = Region(names, start, np.zeros(0, np.int64))
        _, numbers = _numbered(region, joined)
        found.append(Region(names, start, np.unique(numbers)))
    return found


def _numbered(region: Region, units: Units) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which of the units are in a region, and their numbers over all its tensors."""
    offset = {name: int(start) for name, start in zip(region.tensors, region.start[:-1], strict=True)}
    of_place = np.array([offset.get(name, -1) for name in units.names], np.int64)[units.place]
    here = np.flatnonzero(of_place >= 0)
    return here, of_place[here] + units.index[here]


def _alike(region: Region, sets: Sequence[Units]) -> list[NDArray[np.int64]]:
    """Positions of the selected units of a region, divided by the sets that hold them: those in the same sets are
    alike."""
    member = np.array([np.isin(region.selected, _numbered(region, units)[1]) for units in sets])
    _, kind = np.unique(member, axis=1, return_inverse=True)
    kind = kind.ravel()
    return [np.flatnonzero(kind == number) for number in range(kind.max() + 1)]


def _ways(n: int, parts: Sequence[int]) -> int:
    """Number of ways to draw several disjoint sets of these sizes from n units."""
    ways = 1
    for size in parts:
        ways *= math.comb(n, size)
        n -= size
    return ways


def _exchanges(regions: Sequence[tuple[int, list[NDArray[np.int64]]]]) -> Iterator[list[NDArray[np.int64]]]:
    """Every different exchange: for each region, the new unit at each position of its selected units."""
    if not regions:
        yield []
        return
    (n, parts), *others = regions
    for chosen in _disjoint(range(n), [len(part) for part in parts]):
        new = np.empty(sum(map(len, parts)), np.int64)
        for part, units in zip(parts, chosen, strict=True):
            new[part] = units
        for rest in _exchanges(others):
            yield [new, *rest]


def _disjoint(units: Sequence[int], sizes: Sequence[int]) -> Iterator[list[tuple[int, ...]]]:
    """Every way to draw disjoint sets of these sizes."""
    if not sizes:
        yield []
        return
    for first in combinations(units, sizes[0]):
        left = [unit for unit in units if unit not in first]
        for rest in _disjoint(left, sizes[1:]):
            yield [first, *rest]


def _key(drawn: Sequence[NDArray[np.int64]], alike: Sequence[list[NDArray[np.int64]]]) -> tuple[tuple[int, ...], ...]:
    """The drawn units of each part, in no order."""
    return tuple(
        tuple(sorted(chosen[part].tolist())) for chosen, parts in zip(drawn, alike, strict=True) for part in parts
    )
