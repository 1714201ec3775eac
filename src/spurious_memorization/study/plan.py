"""The plan of a study: every edited network, the selected ones first, then their controls."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from torch import Tensor, nn

from ..criteria.criteria import derived_seed
from ..criteria.scores import Scores, by_threshold, count_of, spared, top
from ..edits.edit import Edit, EditSpec
from ..errors import UserError
from ..units import Units
from .controls import random_rankings

UNITS_LISTED = 64


@dataclass(frozen=True, eq=False)
class Variant:
    """One edited network of a study.

    Arguments:
        edit: what is done to the network.
        selected_set: number of the selected set (ranking x size x edit) that it belongs to or is matched to.
        family: "selected", or "random" for a control.
        criterion, group: of the ranking.
        size: as asked for, a count or a fraction.
        repeat: of a random edit, from 0.
        control: number of the control, -1 for selected.
        rule: how the units were chosen, in words.
    """

    edit: Edit
    selected_set: int
    family: str
    criterion: str
    group: str | None
    size: int | float
    repeat: int
    control: int
    rule: str


@dataclass(frozen=True, eq=False)
class Ranked:
    """A ranking made ready for selection.

    Arguments:
        criterion, group: of the ranking.
        units: of each size.
        rule: in words, for each size.
    """

    criterion: str
    group: str | None
    units: Mapping[int | float, Units]
    rule: Mapping[int | float, str]


def select(
    model: nn.Module,
    scores: Scores,
    sizes: Sequence[int | float],
    *,
    criterion: str,
    group: str | None,
    everywhere: bool,
    smallest: bool,
    spare: float,
    seed: int,
) -> Ranked:
    """The selected units of every size of one ranking.

    Arguments:
        everywhere: select single weights by a threshold applied to every parameter.
        smallest: select the smallest scores.
        spare: probability with which a selected weight is spared.

    Raises:
        UserError: a size is larger than the network.
    """
    units, rules = {}, {}
    for size in sizes:
        n = count_of(scores, size)
        chosen = (
            by_threshold(model, scores, n, largest=not smallest) if everywhere else top(scores, n, largest=not smallest)
        )
        units[size] = spared(chosen, spare, derived_seed(seed, "spare", size)) if spare else chosen
        which = "smallest" if smallest else "largest"
        rules[size] = f"{which} {n} of {scores.n} by {criterion}" + (f" on {group}" if group else "")
    return Ranked(criterion, group, units, rules)


def plan(
    model: nn.Module,
    ranked: Sequence[Ranked],
    specs: Sequence[EditSpec],
    tensors: Mapping[str, Mapping[str, Tensor]],
    *,
    repeats: int,
    controls: int,
    seed: int,
) -> list[Variant]:
    """Every edited network of a study.

    Controls are whole random rankings: control k of size 2 holds control k of size 1. A set that is selected by
    several edits shares its controls' units. Control k of every selected set of one ranking has its own draws of noise.

    Arguments:
        ranked: the selected units of each ranking.
        specs: the edits.
        tensors: for each edit that needs them (by its text), the numbers that it puts in.
        repeats: of random edits.
        controls: random rankings a ranking.
        seed: of all draws.
    """
    selected: list[Variant] = []
    matched: list[Variant] = []
    number = 0
    for ranking in ranked:
        draws = _control_draws(model, ranking, controls, seed)
        for size, units in ranking.units.items():
            for spec in specs:
                for repeat in range(repeats if spec.is_random else 1):
                    edit = Edit(
                        spec.kind,
                        units,
                        spec.parameters,
                        tensors.get(str(spec), {}),
                        derived_seed(seed, "edit", repeat),
                    )
                    variant = Variant(
                        edit, number, "selected", ranking.criterion, ranking.group, size, repeat, -1, ranking.rule[size]
                    )
                    selected.append(variant)
                    for control, drawn in enumerate(draws[size]):
                        other = edit.on(
                            drawn, matched_to=edit.digest(), seed=derived_seed(seed, "control", control, repeat)
                        )
                        matched.append(
                            replace(variant, edit=other, family="random", control=control, rule="random, same tensors")
                        )
                number += 1
    return selected + matched


def variants_frame(variants: Sequence[Variant], *, epoch: int, selected_on: str, precision: str) -> pd.DataFrame:
    """`variants.parquet`: one row an edited network, numbered in the order of the plan."""
    rows = [
        {
            "variant": number,
            "family": v.family,
            "selected_set": v.selected_set,
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
            "fold": -1,
            "repeat": v.repeat,
            "control": v.control,
            "matched_to": v.selected_set if v.family == "random" else -1,
            "precision": precision,
        }
        for number, v in enumerate(variants)
    ]
    return pd.DataFrame(rows)


def _control_draws(model: nn.Module, ranking: Ranked, controls: int, seed: int) -> dict[int | float, list[Units]]:
    """Units of each control for each size; selected sets that are nested get nested controls."""
    if not controls:
        return {size: [] for size in ranking.units}
    largest = max(ranking.units.values(), key=len)
    if all(_is_prefix(units, largest) for units in ranking.units.values()):
        rankings = random_rankings(model, largest, controls, seed=seed)
        return {size: [drawn.first(len(units)) for drawn in rankings] for size, units in ranking.units.items()}
    return {size: random_rankings(model, units, controls, seed=seed) for size, units in ranking.units.items()}


def _is_prefix(units: Units, longer: Units) -> bool:
    head = longer.first(len(units))
    return (
        units.names == head.names
        and np.array_equal(units.place, head.place)
        and np.array_equal(units.index, head.index)
    )


def refuse_too_many(ranked: Sequence[Ranked], controls: int, limit: int = 4_000_000_000) -> None:
    """Refuse a plan whose units, all of which are held at once, would take more memory than `limit` bytes.

    Raises:
        UserError: they would; a number of controls that fits is named.
    """
    of_one_set = sum(16 * len(units) for ranking in ranked for units in ranking.units.values())
    needed = of_one_set * (controls + 1)
    if needed > limit:
        fit = max(0, limit // of_one_set - 1)
        raise UserError(f"the controls' units need {needed / 1e9:.0f} GB: ask for fewer, such as --controls {fit}")
