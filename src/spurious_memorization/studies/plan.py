"""The plan of a study: every edited network. The selected sets come first, then random sets in rounds."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor, nn

from ..controls.norms import log_norm, relative_norms
from ..controls.null_sets import NullSets, SetsOfManySizes
from ..edits.edit import Edit, EditSpec
from ..lazy_sequences import LazySequence
from ..networks.names import Reach
from ..networks.units import Units
from ..resources import check_memory
from ..seeds import derived_seed
from .selection import SelectedUnits

UNITS_LISTED = 64

BYTES_PER_VARIANT = 150
"""What a study keeps of each edited network while it measures."""

BYTES_PER_UNIT = 16


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Variant:
    """One edited network of a study.

    Arguments:
        edit: what is done to the network.
        family: "selected"; "random" for a null set; "damage" for a random set of any size, which may match the damage
            of a selected set.
        selected_set: number of the selected set (criterion, group, size and edit) to which it belongs; -1 for a null
            set, which belongs to all sets of its pool.
        pool: number of the pool of null sets with which a tested set is compared, or to which a null set belongs; -1
            for none.
        halves: the halves of the samples on which it is measured.
        half: the half on which its units were selected; None for all samples.
        size: as in the settings, a count or a fraction; a count for a random set of any size.
        repeat: of a random edit, from 0.
        control: number of the random set; -1 for a selected set.
        log_norm: logarithm of the set's relative folded norm; nan where it is not needed.
        criterion, group, rule: how the units were selected.
        drawn: number of the round in which a random set was drawn, from 0; -1 for a selected set.
    """

    edit: Edit
    family: str
    selected_set: int = -1
    pool: int = -1
    halves: frozenset[int]
    half: int | None = None
    size: int | float
    repeat: int
    control: int = -1
    log_norm: float = math.nan
    criterion: str
    group: str | None
    rule: str
    drawn: int = -1

    @property
    def part(self) -> str:
        """Name of the part in which it is measured: its family, its half of the samples if it is only one, and, for
        random sets, what they stand beside and the round in which they were drawn."""
        half = "" if len(self.halves) == 2 else f"_{min(self.halves)}"
        beside = f"_set_{self.selected_set}" if self.family == "damage" else ""
        drawn = "" if self.drawn < 0 else f"_round_{self.drawn:02d}"
        return f"{self.family}{half}{beside}{drawn}"


class Pool:
    """The null sets of one ranking. They are shared by all its sizes and edits, and by both halves of the samples.

    Arguments:
        model: the network.
        rankings: the tested rankings of one criterion and group: one per half, or one for all samples.
        number: of the pool.
        reach: where null sets are drawn from.
        seed: of the draws.
    """

    def __init__(
        self, model: nn.Module, rankings: Sequence[SelectedUnits], *, number: int, reach: Reach, seed: int
    ) -> None:
        self.rankings = rankings
        self.number = number
        self.reach = reach
        self._sets = [(ranking, size) for ranking in rankings for size in ranking.units]
        self._null = NullSets(model, [ranking.units[size] for ranking, size in self._sets], reach=reach, seed=seed)
        self._norms = relative_norms(model, rankings[0].largest, self._null.tensors)

    @property
    def n(self) -> int | None:
        """Number of different null sets; None if they are too many to use each."""
        return self._null.n

    @property
    def n_sets(self) -> int:
        """Number of sets that stand beside each other in one draw: one for each ranking and size."""
        return len(self._sets)

    def log_norm(self, units: Units) -> float:
        """Logarithm of the relative folded norm of a set of these layers."""
        return log_norm(self._norms, units)

    def draw(self, control: int) -> Iterator[tuple[SelectedUnits, int | float, Units]]:
        """One null set for each ranking and size."""
        for (ranking, size), units in zip(self._sets, self._null.draw(control), strict=True):
            yield ranking, size, units


def pools_of(model: nn.Module, ranked: Sequence[SelectedUnits], *, reach: Reach, seed: int) -> list[Pool]:
    """The pools of null sets of all tested rankings, one per criterion and group."""
    together: dict[tuple[str, str | None], list[SelectedUnits]] = {}
    for ranking in ranked:
        if ranking.is_tested:
            together.setdefault((ranking.criterion, ranking.group), []).append(ranking)
    return [
        Pool(model, rankings, number=number, reach=reach, seed=seed)
        for number, rankings in enumerate(together.values())
    ]


@dataclass(frozen=True, eq=False, kw_only=True)
class Edits:
    """The edits of a study, to be made on any units.

    Arguments:
        specs: kinds and parameters.
        tensors: for each of them (by its text), the tensors that it puts in.
        repeats: of random edits.
        seed: of all draws.
    """

    specs: Sequence[EditSpec]
    tensors: Mapping[str, Mapping[str, Tensor]]
    repeats: int
    seed: int

    def n_repeats(self, spec: EditSpec) -> int:
        """How often an edit is made on the same units."""
        return self.repeats if spec.is_random else 1

    def on(
        self, units: Units, spec: EditSpec, *use: object, matched_to: str | None = None
    ) -> Iterator[tuple[int, Edit]]:
        """Every repeat of one edit on some units, with its number.

        Arguments:
            units: to edit.
            spec: kind and parameters.
            use: what the seed of a random edit depends on, besides the study's seed and the repeat.
            matched_to: digest of the selected edit beside which it stands.
        """
        tensors = self.tensors.get(str(spec), {})
        for repeat in range(self.n_repeats(spec)):
            draw = derived_seed(self.seed, *use, repeat)
            yield repeat, Edit(spec.kind, units, spec.parameters, tensors, draw, matched_to)


class DrawnVariants(LazySequence[Variant]):
    """Edited networks that are drawn when they are asked for. The last draw is kept.

    Arguments:
        draws: each makes some of them, the same ones whenever it is called.
        lengths: how many each makes.
    """

    def __init__(self, draws: Sequence[Callable[[], Sequence[Variant]]], lengths: Sequence[int]) -> None:
        self._draws = draws
        self._starts = np.cumsum([0, *lengths])
        self._drawn: tuple[int, Sequence[Variant]] = (-1, ())

    def __len__(self) -> int:
        return int(self._starts[-1])

    def make(self, position: int) -> Variant:
        draw = int(np.searchsorted(self._starts, position, side="right")) - 1
        if self._drawn[0] != draw:
            self._drawn = draw, self._draws[draw]()
        return self._drawn[1][position - int(self._starts[draw])]


def selected_variants(ranked: Sequence[SelectedUnits], edits: Edits, pools: Sequence[Pool]) -> DrawnVariants:
    """Every selected set with every edit."""
    pool_of = {id(ranking): pool for pool in pools for ranking in pool.rankings}
    numbers: dict[tuple[str, str | None, int | float, str], int] = {}

    def repeats(ranking: SelectedUnits, size: int | float, spec: EditSpec, number: int) -> list[Variant]:
        pool, units = pool_of.get(id(ranking)), ranking.units[size]
        norm = math.nan if pool is None else pool.log_norm(units)
        return [
            Variant(
                edit=edit,
                family="selected",
                selected_set=number,
                pool=-1 if pool is None else pool.number,
                halves=ranking.measured_halves,
                half=ranking.half,
                size=size,
                repeat=repeat,
                log_norm=norm,
                criterion=ranking.criterion,
                group=ranking.group,
                rule=ranking.rule[size],
            )
            for repeat, edit in edits.on(units, spec, "edit")
        ]

    every = [(ranking, size, spec) for ranking in ranked for size in ranking.units for spec in edits.specs]
    keys = [(ranking.criterion, ranking.group, size, str(spec)) for ranking, size, spec in every]
    draws = [
        partial(repeats, *one, numbers.setdefault(key, len(numbers))) for one, key in zip(every, keys, strict=True)
    ]
    return DrawnVariants(draws, [edits.n_repeats(spec) for _, _, spec in every])


def null_variants(
    draws: Iterable[tuple[Pool, range]],
    edits: Edits,
    matched_to: Mapping[tuple[int, int | float, str], str],
    drawn: int,
) -> DrawnVariants:
    """Null sets of several pools.

    Arguments:
        draws: the pools, each with the numbers of its null sets.
        edits: of the study.
        matched_to: digest of the selected edit, by pool, size and text of the edit.
        drawn: number of the round.
    """
    every = [(pool, control) for pool, controls in draws for control in controls]
    per_set = sum(map(edits.n_repeats, edits.specs))
    return DrawnVariants(
        [partial(_null_variants, pool, edits, control, matched_to, drawn) for pool, control in every],
        [pool.n_sets * per_set for pool, _ in every],
    )


def _null_variants(
    pool: Pool, edits: Edits, control: int, matched_to: Mapping[tuple[int, int | float, str], str], drawn: int
) -> DrawnVariants:
    """The null sets of one number: one for each ranking and size, with every edit and repeat."""

    def repeats(ranking: SelectedUnits, size: int | float, units: Units, norm: float, spec: EditSpec) -> list[Variant]:
        beside = matched_to[pool.number, size, str(spec)]
        return [
            Variant(
                edit=edit,
                family="random",
                pool=pool.number,
                halves=ranking.measured_halves,
                half=ranking.half,
                size=size,
                repeat=repeat,
                control=control,
                log_norm=norm,
                criterion="random",
                group=None,
                rule=f"random, of the same {pool.reach}{'' if pool.reach == 'network' else 's'}",
                drawn=drawn,
            )
            for repeat, edit in edits.on(units, spec, "control", control, matched_to=beside)
        ]

    sets = [(ranking, size, units, pool.log_norm(units)) for ranking, size, units in pool.draw(control)]
    return DrawnVariants(
        [partial(repeats, *one, spec) for one in sets for spec in edits.specs],
        [edits.n_repeats(spec) for _ in sets for spec in edits.specs],
    )


def matched_to(selected: Sequence[Variant]) -> dict[tuple[int, int | float, str], str]:
    """Digest of the first selected edit of each pool, size and kind of edit."""
    first = (v for v in reversed(selected) if v.pool >= 0 and v.repeat == 0)
    return {(v.pool, v.size, str(v.edit)): v.edit.digest() for v in first}


def damage_variants(
    selected: Sequence[Variant],
    sets: SetsOfManySizes,
    edits: Edits,
    controls: range,
    sizes: tuple[float, float] | None,
    drawn: int,
) -> DrawnVariants:
    """Random sets of many sizes that stand beside one selected set.

    Arguments:
        selected: the variants of the selected set.
        sets: draws them.
        edits: of the study.
        controls: their numbers.
        sizes: smallest and largest size; any size if None.
        drawn: number of the round.
    """
    first = selected[0]
    (spec,) = (spec for spec in edits.specs if str(spec) == str(first.edit))

    def of_control(control: int) -> list[Variant]:
        units = sets.draw(control, sizes)
        use = ("damage", first.selected_set, control)
        return [
            Variant(
                edit=edit,
                family="damage",
                selected_set=first.selected_set,
                halves=frozenset((0, 1)),
                size=len(units),
                repeat=repeat,
                control=control,
                criterion="random",
                group=None,
                rule=f"random, of any size, of {sets.place}",
                drawn=drawn,
            )
            for repeat, edit in edits.on(units, spec, *use, matched_to=first.edit.digest())
        ]

    return DrawnVariants(
        [partial(of_control, control) for control in controls], [edits.n_repeats(spec)] * len(controls)
    )


def variants_frame(
    variants: Sequence[Variant], numbers: NDArray[np.int64], *, epoch: int, selected_on: str, precision: str
) -> pd.DataFrame:
    """Rows of `variants.parquet`, one per edited network.

    Arguments:
        variants: the edited networks.
        numbers: under which they are stored, [variants].
        epoch: of the network.
        selected_on: split on which the units were selected.
        precision: of the outcomes.
    """
    columns: dict[str, Iterable[object]] = {
        "variant": numbers.tolist(),
        "family": (v.family for v in variants),
        "selected_set": (v.selected_set for v in variants),
        "pool": (v.pool for v in variants),
        "criterion": (v.criterion for v in variants),
        "group": (v.group for v in variants),
        "selected_on": (selected_on for _ in variants),
        "size": (str(v.size) if isinstance(v.size, int) else f"{v.size:%}" for v in variants),
        "kind": (v.edit.kind for v in variants),
        "parameters": (json.dumps(dict(v.edit.parameters)) for v in variants),
        "unit": (v.edit.units.kind for v in variants),
        "n_units": (len(v.edit.units) for v in variants),
        "units": (str(v.edit.units) if len(v.edit.units) <= UNITS_LISTED else None for v in variants),
        "rule": (v.rule for v in variants),
        "digest": (v.edit.units.digest() for v in variants),
        "seed": (v.edit.seed for v in variants),
        "epoch": (epoch for _ in variants),
        "fold": (-1 if v.half is None else v.half for v in variants),
        "repeat": (v.repeat for v in variants),
        "control": (v.control for v in variants),
        "matched_to": (v.edit.matched_to for v in variants),
        "log_norm": (v.log_norm for v in variants),
        "precision": (precision for _ in variants),
    }
    return pd.DataFrame({name: list(values) for name, values in columns.items()})


def check_plan(ranked: Sequence[SelectedUnits], specs: Sequence[EditSpec], *, repeats: int, controls: int) -> None:
    """Check that a plan fits into memory.

    Only the first round of null sets counts, since further ones may not be needed.

    Raises:
        UserError: it does not fit.
    """
    per_set = sum(repeats if spec.is_random else 1 for spec in specs)
    own = sum(len(ranking.units) for ranking in ranked)
    drawn = [ranking.units.values() for ranking in ranked if ranking.is_tested][:1]
    n = per_set * (own + controls * sum(map(len, drawn)))
    of_units = sum(BYTES_PER_UNIT * len(units) for of_size in drawn for units in of_size)
    what = f"the {n:,} edited networks of this study"
    check_memory(n * BYTES_PER_VARIANT + of_units, what, "ask for fewer with --size, --controls or --repeats")
