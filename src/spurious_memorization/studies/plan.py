"""The plan of a study: every edited network. The selected sets come first, then their controls."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor, nn

from ..controls.matched_sets import MatchedRankings, matched_rankings
from ..controls.norms import norms_of_units
from ..edits.edit import Edit, EditSpec
from ..networks.units import Units
from ..resources import check_memory
from ..seeds import derived_seed
from .selection import SelectedUnits

UNITS_LISTED = 64

BYTES_PER_VARIANT = 1500
"""A variant, its edit and its row of the table, without its units."""

BYTES_PER_UNIT = 16

SIMILAR = 1.5
"""Rankings whose folded norms differ by less than this factor at each position share their controls."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Pool:
    """The controls that one or several rankings share.

    Arguments:
        units: of every control, for each size.
        halves: the halves of the samples on which they are measured.
        matched: how well they match.
        place: position of each ranking among those that share the controls.
    """

    units: Mapping[int | float, Sequence[Units]]
    halves: frozenset[int]
    matched: Mapping[int | float, MatchedRankings]
    place: Mapping[int, int]


@dataclass(frozen=True, eq=False, kw_only=True)
class Variant:
    """One edited network of a study.

    Arguments:
        edit: what is done to the network.
        family: "selected", or "random" for a control.
        selected_set: number of the selected set (criterion, group, size and edit); -1 for a control.
        pool: number of the pool of controls with which a tested set is compared, or to which a control belongs; -1 for
            none.
        halves: the halves of the samples on which it is measured.
        half: the half on which its units were selected; None for all samples.
        size: as in the settings, a count or a fraction.
        repeat: of a random edit, from 0.
        control: number of the control; -1 for a selected set.
        norm_ratio: of the controls to a tested set; nan otherwise.
        same_tensor: share of the controls' units that are in the set's own tensors; nan otherwise.
        criterion, group, rule: how the units were selected.
    """

    edit: Edit
    family: str
    selected_set: int = -1
    pool: int
    halves: frozenset[int]
    half: int | None = None
    size: int | float
    repeat: int
    control: int = -1
    norm_ratio: float = math.nan
    same_tensor: float = math.nan
    criterion: str
    group: str | None
    rule: str

    @property
    def part(self) -> str:
        """Name of the part in which it is measured: the family and, if it is only one, the half of the samples."""
        return self.family if len(self.halves) == 2 else f"{self.family}_{min(self.halves)}"


def plan(
    model: nn.Module,
    ranked: Sequence[SelectedUnits],
    specs: Sequence[EditSpec],
    tensors: Mapping[str, Mapping[str, Tensor]],
    *,
    repeats: int,
    controls: int,
    seed: int,
) -> list[Variant]:
    """Every edited network of a study, the selected sets first.

    Controls are whole random rankings: control k of size 2 contains control k of size 1. Rankings with the same tensors
    and similar norms share their controls. All edits share them, too.

    Arguments:
        ranked: the selected units of each ranking.
        specs: the edits.
        tensors: for each edit (by its text), the tensors that it puts in.
        repeats: of random edits.
        controls: number of random rankings per pool.
        seed: of all draws.
    """
    pools = pools_of(model, ranked, controls, seed) if controls else []
    pool_of = {ranking: number for number, pool in enumerate(pools) for ranking in pool.place}
    numbers: dict[tuple[str, str | None, int | float, str], int] = {}
    selected = []

    def edits(units: Units, spec: EditSpec, *use: object) -> Iterator[tuple[int, Edit]]:
        for repeat in range(repeats if spec.is_random else 1):
            draw = derived_seed(seed, *use, repeat)
            yield repeat, Edit(spec.kind, units, spec.parameters, tensors.get(str(spec), {}), draw)

    for place, ranking in enumerate(ranked):
        for (size, units), spec in product(ranking.units.items(), specs):
            key = (ranking.criterion, ranking.group, size, str(spec))
            number = numbers.setdefault(key, len(numbers))
            pool = pool_of.get(place, -1)
            ratio = same = math.nan
            if pool >= 0:
                matched = pools[pool].matched[size]
                ratio, same = matched.norm_ratios[pools[pool].place[place]], matched.same_tensor
            selected += [
                Variant(
                    edit=edit,
                    family="selected",
                    selected_set=number,
                    pool=pool,
                    halves=ranking.measured_halves,
                    half=ranking.half,
                    size=size,
                    repeat=repeat,
                    norm_ratio=ratio,
                    same_tensor=same,
                    criterion=ranking.criterion,
                    group=ranking.group,
                    rule=ranking.rule[size],
                )
                for repeat, edit in edits(units, spec, "edit")
            ]
    matched_to = {(v.pool, v.size, str(v.edit)): v.edit.digest() for v in reversed(selected) if v.pool >= 0}
    drawn = [
        Variant(
            edit=edit.on(edit.units, matched_to=matched_to[number, size, str(spec)]),
            family="random",
            pool=number,
            halves=pool.halves,
            size=size,
            repeat=repeat,
            control=control,
            criterion="random",
            group=None,
            rule=f"random, matched, from the {pool.matched[size].reach}",
        )
        for number, pool in enumerate(pools)
        for (size, sets), spec in product(pool.units.items(), specs)
        for control, units in enumerate(sets)
        for repeat, edit in edits(units, spec, "control", control)
    ]
    return selected + drawn


def pools_of(model: nn.Module, ranked: Sequence[SelectedUnits], n: int, seed: int) -> list[Pool]:
    """The controls of all tested rankings."""
    shared: list[list[int]] = []
    log_norms = [_log_norms(model, ranking) if ranking.is_tested else np.zeros(0) for ranking in ranked]
    for place, ranking in enumerate(ranked):
        if not ranking.is_tested:
            continue
        candidates = (members for members in shared if _same_tensors(ranked[members[0]], ranking))
        near = (m for m in candidates if np.abs(log_norms[m[0]] - log_norms[place]).max() < np.log(SIMILAR))
        members = next(near, None)
        if members is None:
            shared.append([place])
        else:
            members.append(place)
    return [_pool(model, ranked, members, n, seed) for members in shared]


def _pool(model: nn.Module, ranked: Sequence[SelectedUnits], members: Sequence[int], n: int, seed: int) -> Pool:
    first = ranked[members[0]]
    largest = first.largest
    matched: dict[int | float, MatchedRankings] = {}
    units: dict[int | float, Sequence[Units]] = {}
    is_nested = all(_is_prefix(of_size, largest) for of_size in first.units.values())
    whole = matched_rankings(model, [ranked[m].largest for m in members], n, seed=seed) if is_nested else None
    for size, of_size in first.units.items():
        here = whole or matched_rankings(model, [ranked[m].units[size] for m in members], n, seed=seed)
        matched[size] = here.first(len(of_size))
        units[size] = matched[size].rankings
    halves = frozenset().union(*(ranked[m].measured_halves for m in members))
    place = {member: position for position, member in enumerate(members)}
    return Pool(units=units, halves=halves, matched=matched, place=place)


def _same_tensors(one: SelectedUnits, other: SelectedUnits) -> bool:
    """Whether two rankings name the same tensors at each position, for each size."""
    return one.units.keys() == other.units.keys() and all(
        len(units) == len(other.units[size]) and _tensors(units) == _tensors(other.units[size])
        for size, units in one.units.items()
    )


def _tensors(units: Units) -> list[str]:
    return [units.names[place] for place in units.place]


def _log_norms(model: nn.Module, ranking: SelectedUnits) -> NDArray[np.float64]:
    """Logarithm of the folded norm of each of a ranking's units."""
    return np.log(norms_of_units(model, ranking.largest) + 1e-12)


def variants_frame(variants: Sequence[Variant], *, epoch: int, selected_on: str, precision: str) -> pd.DataFrame:
    """`variants.parquet`: one row per edited network, numbered in the order of the plan."""
    rows = [
        {
            "variant": number,
            "family": v.family,
            "selected_set": v.selected_set,
            "pool": v.pool,
            "criterion": v.criterion,
            "group": v.group,
            "selected_on": selected_on,
            "size": str(v.size) if isinstance(v.size, int) else f"{v.size:%}",
            "kind": v.edit.kind,
            "parameters": json.dumps(dict(v.edit.parameters)),
            "unit": v.edit.units.kind,
            "n_units": len(v.edit.units),
            "units": str(v.edit.units) if len(v.edit.units) <= UNITS_LISTED else None,
            "rule": v.rule,
            "digest": v.edit.units.digest(),
            "seed": v.edit.seed,
            "epoch": epoch,
            "fold": -1 if v.half is None else v.half,
            "repeat": v.repeat,
            "control": v.control,
            "matched_to": v.edit.matched_to,
            "norm_ratio": v.norm_ratio,
            "same_tensor": v.same_tensor,
            "precision": precision,
        }
        for number, v in enumerate(variants)
    ]
    return pd.DataFrame(rows)


def _is_prefix(units: Units, longer: Units) -> bool:
    head = longer.first(len(units))
    return (
        units.names == head.names
        and np.array_equal(units.place, head.place)
        and np.array_equal(units.index, head.index)
    )


def check_plan(ranked: Sequence[SelectedUnits], specs: Sequence[EditSpec], *, repeats: int, controls: int) -> None:
    """Check that all edited networks of a plan, which are listed at once, fit into memory.

    The estimate assumes that all rankings share their controls, so that it refuses nothing that fits.

    Raises:
        UserError: they do not fit.
    """
    per_set = sum(repeats if spec.is_random else 1 for spec in specs)
    own = sum(len(ranking.units) for ranking in ranked)
    drawn = [ranking.units.values() for ranking in ranked if ranking.is_tested][:1]
    n = per_set * (own + controls * sum(map(len, drawn)))
    of_units = controls * sum(BYTES_PER_UNIT * len(units) for of_size in drawn for units in of_size)
    what = f"the {n:,} edited networks of this study"
    check_memory(n * BYTES_PER_VARIANT + of_units, what, "ask for fewer with --size, --controls or --repeats")
