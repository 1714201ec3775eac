"""The trials of the calibration: each asks the tool about one network whose answer is known.

A trial is a function of a network family, a seed and settings. It returns a flat record of plain numbers and words, so
that trials can run in any process and be stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from ..controls.norms import relative_norms
from ..criteria.find import checked_scores, find_criterion
from ..criteria.gradients import gradient, taylor
from ..criteria.random_scores import random
from ..criteria.scores import Scores, top
from ..criteria.unseen import activation_difference, attribution_patching
from ..criteria.weight_norms import weight_norm
from ..datasets.samples import Dataset
from ..engine.ablation import ablation
from ..engine.evaluate import engine_for
from ..engine.protocol import Engine
from ..networks.selection import Selection
from ..networks.units import Units, short_name, sites
from ..studies.pipeline import study_in_memory
from ..studies.settings import StudySettings
from .networks import Family, on_one_thread
from .plants import (
    FIRST_LAYER,
    KnownNetwork,
    distributed_memory,
    example_tied,
    feature_plant,
    memorizing,
    memory_plant,
    never_trained,
    polysemantic,
)
from .pseudo_minority_of_margins import with_minority_of_like_margins

Record = dict[str, Any]

DRAWS = 6
"""Random families per network."""
FURTHER_DRAWS = 2
"""Random sets per network about which the third question is asked, and pseudo-minorities."""

PER_GROUP = 30
"""Samples per group on which random sets are measured."""

FEATURE_SHARES = (100, 50)
"""Percentages of a group's training samples that have the planted feature, in turns. The others are memorized."""

LARGE = 10
"""Units of a large random set."""


def memorizing_trial(family: Family, seed: int, controls: int, _criterion: Sequence[str] = ()) -> Record:
    """An ordinary network, which memorizes its minorities somewhere, and questions about random units.

    Random units are the same for both halves of the samples.

    - influential_random: a family of sizes 1 to 3 and all groups.
    - influential_large: sets of ten.
    - influential_large_norms: sets of three from the quarter of a layer with the largest norms.
    - selective_like_margins: the minority is a random part of the majority that has the minority's margins.
    - memorizing_random: the third question about sets of three.
    """
    known = memorizing(family, seed)
    ask = _Asker(known.model, known.data, controls)
    rng = np.random.default_rng([seed, 0x7A1A15])
    layers = _layers(known.model)
    answers: dict[str, list[bool]] = {name: [] for name in MEMORIZING_ROWS}
    for draw in range(DRAWS):
        layer, use = str(rng.choice(layers)), 1000 * seed + draw
        of_random = ask.about_criterion("random", (layer,), "1..3", seed=use)
        answers["influential_random"].append(_any(of_random, "influential"))
        of_large = ask.about_criterion("random", (layer,), str(LARGE), seed=use)
        answers["influential_large"].append(_any(of_large, "influential"))
        of_large_norms = ask.about(_of_large_norms(known.model, layer, rng), seed=use)
        answers["influential_large_norms"].append(_any(of_large_norms, "influential"))
    for draw in range(FURTHER_DRAWS):
        layer, use = str(rng.choice(layers)), 1000 * seed + draw
        of_three = ask.about(_drawn(known.model, layer, 3, rng), seed=use, every_question=True)
        answers["memorizing_random"] += _yes(of_three, "memorizing")
        like = with_minority_of_like_margins(known.model, known.data, 1000 * seed + draw)
        named = _Asker(known.model, like, 19, engine=ask.engine)
        of_traced = named.about_criterion("gradient", (), "1..3", seed=draw)
        answers["selective_like_margins"] += _per_family(of_traced, "selective")
        size = str(int(rng.choice([5, LARGE])))
        of_damage = named.about_criterion("random", (str(rng.choice(layers)),), size, seed=1000 * seed + draw)
        answers["selective_like_margins"] += _per_family(of_damage, "selective")
    return {"answers": answers}


MEMORIZING_ROWS = (
    "influential_random",
    "influential_large",
    "influential_large_norms",
    "selective_like_margins",
    "memorizing_random",
)


def never_trained_trial(family: Family, seed: int, controls: int, _criterion: Sequence[str] = ()) -> Record:
    """A network whose first layer was never trained, so that its channels hold no samples.

    - never_trained_verdict: three channels by gradient on one minority group, selected on one half and tested on the
      other: memorizing?
    - never_trained_question: the third question about these.
    """
    known = never_trained(family, seed)
    ask = _Asker(known.model, known.data, controls)
    group = known.data.groups.names[known.data.minority[seed // 2 % len(known.data.minority)]]
    found = ask.about_criterion(
        "gradient", (FIRST_LAYER[family][0],), "3", seed=seed, group=(group,), every_question=True
    )
    own = _own_rows(found)
    return {
        "answers": {
            "never_trained_verdict": [bool((own["verdict"] == "memorizing").any())],
            "never_trained_question": _yes(own, "memorizing"),
        },
        "verdicts": own["verdict"].tolist(),
    }


def feature_trial(family: Family, seed: int, controls: int, criterion: Sequence[str] = ()) -> Record:
    """A network with channels that hold a feature of a minority group, and that memorizes elsewhere.

    - feature_verdict: the planted channels: memorizing?
    - feature_question: the third question about them.
    """
    known = feature_plant(family, seed, FEATURE_SHARES[seed // 2 % len(FEATURE_SHARES)])
    record = _planted(known, seed, controls, criterion)
    if not known.is_accepted:
        return record
    answers = {"feature_verdict": [record["verdict"] == "memorizing"]}
    if record["memorizing"] is not None:
        answers["feature_question"] = [record["memorizing"]]
    return {**record, "answers": answers}


def memory_trial(family: Family, seed: int, controls: int, criterion: Sequence[str] = (), *, points: int) -> Record:
    """A network with channels that hold some training samples of a minority group.

    Arguments:
        points: of accuracy that the group loses without these channels, about.
        criterion: a user's own criteria for the leaderboard.
    """
    return {"target": points, **_planted(memory_plant(family, seed, points), seed, controls, criterion)}


def described_trial(
    family: Family,
    seed: int,
    controls: int,
    criterion: Sequence[str] = (),
    *,
    make: Callable[[Family, int], KnownNetwork],
) -> Record:
    """A network whose verdict is only described.

    Arguments:
        make: (family, seed) -> the network.
    """
    return _planted(make(family, seed), seed, controls, criterion)


def _planted(known: KnownNetwork, seed: int, controls: int, criterion: Sequence[str]) -> Record:
    """What the tool says of the known channels, and how many of them each criterion finds."""
    units, group = known.units, known.group
    if units is None or group is None:
        raise ValueError(f"a network of kind {known.kind} has no known channels")
    record: Record = {
        "units": str(units),
        "n_units": len(units),
        "group": known.data.groups.names[group],
        "accepted": known.is_accepted,
        "points": known.points,
    }
    if not known.is_accepted:
        return record
    record["recall"] = recalls_of(known.model, known.data, units, group, seed=seed, own=criterion)
    found = _Asker(known.model, known.data, controls).about(units, seed=seed, every_question=True)
    (row,) = _own_rows(found).to_dict(orient="records")
    figures = (
        "tested_accuracy_change",
        "p_adjusted",
        "p_beyond_norm",
        "difference",
        "p_selective",
        "damage",
        "damage_ratio",
        "p_localized",
        "contrast",
        "matched_contrast",
        "p_memorizing",
        "p_contrast",
        "norm_ratio",
    )
    answers = {name: row[name] for name in ("influential", "selective", "localized", "memorizing", "verdict", "reason")}
    return {**record, **{name: float(row[name]) for name in figures}, **answers}


def recalls_of(
    model: nn.Module, data: Dataset, units: Units, group: int, *, seed: int, own: Sequence[str] = ()
) -> dict[str, float]:
    """For each criterion, the share of the known channels that are among its first, as many as are known.

    Arguments:
        model: the network.
        data: its samples.
        units: the known channels.
        group: whose samples the criteria look at.
        seed: of the random ranking.
        own: criteria of a user, `module:function`.
    """
    known = set(units)
    samples, unseen = (data.samples(split).of_group(group) for split in ("train", "test"))
    rankings: dict[str, Callable[[], Scores]] = {
        "ablation": lambda: ablation(model, samples),
        "gradient": lambda: gradient(model, samples),
        "taylor": lambda: taylor(model, samples),
        "weight_norm": lambda: weight_norm(model),
        "activation_difference": lambda: activation_difference(model, samples, unseen),
        "attribution_patching": lambda: attribution_patching(model, samples, unseen),
        "random": lambda: random(model, seed=seed),
    }
    for name in own:
        rankings[name] = lambda name=name: Scores(  # type: ignore[misc]
            checked_scores(name, find_criterion(name)(model, samples.batch()), model, Selection()), "channel", True
        )
    return {name: len(known & set(top(scores(), len(known)))) / len(known) for name, scores in rankings.items()}


POINTS = (10, 20, 30, 60)

TRIALS: Mapping[str, Callable[..., Record]] = {
    "memorizing": memorizing_trial,
    "never_trained": never_trained_trial,
    "feature": feature_trial,
    **{f"memory_{points}": partial(memory_trial, points=points) for points in POINTS},
    "distributed": partial(described_trial, make=distributed_memory),
    "polysemantic": partial(described_trial, make=polysemantic),
    "example_tied": partial(described_trial, make=example_tied),
}


def run_trial(kind: str, family: Family, seed: int, controls: int, criterion: Sequence[str] = ()) -> Record:
    """Run one trial, on one thread, since small networks gain nothing from more.

    Arguments:
        kind: name of the trial, a key of `TRIALS`.
        family, seed: family and seed of the network.
        controls: null sets per selected set, at most.
        criterion: a user's own criteria for the leaderboard.
    """
    with on_one_thread():
        return TRIALS[kind](family, seed, controls, criterion)


class _Asker:
    """Asks the tool about units of one network.

    Arguments:
        model: the network.
        data: its samples.
        controls: null sets per selected set, at most.
        engine: for the network, if there is one already.
    """

    def __init__(self, model: nn.Module, data: Dataset, controls: int, *, engine: Engine | None = None) -> None:
        self.model, self.data, self.controls = model, data, controls
        self.engine = engine or engine_for(model, data.train)

    def about(self, units: Units, *, seed: int, every_question: bool = False) -> pd.DataFrame:
        """The effects of zeroing these units, in training. Unseen samples are measured if every question is asked."""
        return self._effects(units=tuple(str(units).split(",")), seed=seed, every_question=every_question)

    def about_criterion(
        self,
        criterion: str,
        tensors: tuple[str, ...],
        size: str,
        *,
        seed: int,
        group: tuple[str, ...] = (),
        every_question: bool = False,
    ) -> pd.DataFrame:
        """The effects of zeroing the first units of a criterion, in training; on these groups, or on each minority."""
        return self._effects(
            criterion=(criterion,),
            tensors=tensors,
            size=(size,),
            seed=seed,
            group=group,
            every_question=every_question,
        )

    def _effects(self, **settings: Any) -> pd.DataFrame:
        split = ("train", "test") if settings["every_question"] else ("train",)
        chosen = StudySettings(controls=self.controls, per_group=PER_GROUP, split=split, **settings)
        found = study_in_memory(self.model, self.data, chosen, engine=self.engine).effects()
        return found[found["split"] == "train"]


def _layers(model: nn.Module) -> list[str]:
    """Layers with enough channels for large sets."""
    return [short_name(name) for name, site in sites(model, Selection()).items() if site.n >= 4 * LARGE]


def _drawn(model: nn.Module, layer: str, n: int, rng: np.random.Generator) -> Units:
    name = f"{layer}.weight"
    index = rng.choice(len(model.get_parameter(name)), n, replace=False)
    return Units("channel", (name,), np.zeros(n, np.int64), index)


def _of_large_norms(model: nn.Module, layer: str, rng: np.random.Generator) -> Units:
    """Three random channels from the quarter of a layer with the largest folded norms."""
    name = f"{layer}.weight"
    norms = relative_norms(model, _drawn(model, layer, 1, rng), [name])[name]
    quarter = np.argsort(-norms, kind="stable")[: len(norms) // 4]
    return Units("channel", (name,), np.zeros(3, np.int64), rng.choice(quarter, 3, replace=False))


def _any(rows: pd.DataFrame, question: str) -> bool:
    """Whether any answer of a family is yes."""
    return bool(rows[question].dropna().astype(bool).any())


def _yes(rows: pd.DataFrame, question: str) -> list[bool]:
    """Every answer about a minority group."""
    values: list[bool] = rows.loc[rows["minority"], question].dropna().astype(bool).tolist()
    return values


def _own_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of minority groups; for units traced on one group, only the rows of that group."""
    rows = rows[rows["minority"]]
    return rows[rows["traced_on"].isna() | (rows["traced_on"] == rows["group_name"])]


def _per_family(rows: pd.DataFrame, question: str) -> list[bool]:
    """Whether any answer is yes, for each ranking: its sizes and groups form one family."""
    asked = rows[rows["minority"] & rows[question].notna()]
    return [bool(of_one[question].astype(bool).any()) for _, of_one in asked.groupby("traced_on", dropna=False)]
