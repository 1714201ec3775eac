"""Single trials of the calibration: what the tool says about one network with a known answer.

Each is a function of a network family and a seed, and gives a flat record of plain numbers and words, so that trials
can run in any process and be stored.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from ..criteria.ablation import ablation
from ..criteria.criteria import gradient, magnitude, random, taylor
from ..criteria.scores import top
from ..data.pseudo import with_pseudo_minority
from ..data.samples import Dataset
from ..engine.evaluate import engine_for
from ..engine.outcomes import Engine
from ..study.examine import examine
from ..study.settings import StudySettings
from .networks import Family, accuracies, trained
from .pictures import COUNTS, striped_pictures
from .plants import plant

Record = dict[str, Any]

DRAWS = 4
"""Random rankings, and pseudo-minorities, for each network."""

SIZE = 3
PER_GROUP = 60
"""Samples a group on which controls are measured."""

PLANTED_COUNTS = {
    "resnet": {**COUNTS, "train": (240, 14, 14, 240)},
    "deit": {**COUNTS, "train": (240, 8, 8, 240)},
}
"""A channel of these networks holds a few pictures; a DeiT's, which sees single patches, fewer."""

PLANTED_CHANNELS: dict[Family, tuple[int, ...]] = {"resnet": (1, 2, 3), "deit": (4, 5)}


def exact_nulls(family: Family, seed: int, controls: int = 99) -> Record:
    """A trained network, and questions to which the answer is no by construction.

    - influential: units picked at random (criterion `random`), sizes 1 to 3, all groups: one family of questions each.
    - selective: pseudo-minorities, units selected by gradient on them.
    - memorising: "training" and "unseen" samples are one random split of samples that the network has never seen.
    """
    pictures = striped_pictures(seed)
    model = trained(family, pictures.train, seed)
    engine = engine_for(model, pictures.train)
    influential = []
    for draw in range(DRAWS):
        found = _examined(model, pictures, engine, ("random",), "1..3", controls, seed=1000 * seed + draw)
        influential.append(bool(found["influential"].astype(bool).any()))
    selective, memorising = [], []
    for draw in range(DRAWS // 2):
        drawn = with_pseudo_minority(pictures, 1000 * seed + draw)
        found = _examined(model, drawn, engine, ("gradient",), str(SIZE), 1, seed=draw)
        selective += _own(found)["selective"].dropna().astype(bool).tolist()
        split = _never_seen(pictures, 1000 * seed + draw)
        found = _examined(model, split, engine, ("gradient",), str(SIZE), 1, seed=draw, split=("train", "test"))
        memorising += _own(found)["memorising"].dropna().astype(bool).tolist()
    return {
        "influential": influential,
        "selective": selective,
        "memorising": memorising,
        "accuracy": {split: accuracies(model, pictures.samples(split)) for split in ("train", "test")},
    }


def no_correlation(family: Family, seed: int, controls: int = 99) -> Record:
    """A network trained where label and attribute are independent."""
    pictures = striped_pictures(seed, {**COUNTS, "train": (150, 150, 150, 150)})
    named = pictures.with_minority([pictures.groups.names[g] for g in (1, 2)])
    return _answers(trained(family, named.train, seed), named, controls)


def permuted_labels(family: Family, seed: int, controls: int = 99) -> Record:
    """A network trained on labels that were permuted: all that it can do is memorise, every group alike."""
    pictures = striped_pictures(seed)
    y = pictures.y.copy()
    here = np.flatnonzero(pictures.split == "train")
    y[here] = y[np.random.default_rng([seed, 0x9E43]).permutation(here)]
    named = replace(pictures, y=y).with_minority([pictures.groups.names[g] for g in pictures.minority])
    return _answers(trained(family, named.train, seed, epochs=30), named, controls)


def untrained(family: Family, seed: int, controls: int = 99) -> Record:
    """A network with random weights."""
    pictures = striped_pictures(seed)
    return _answers(trained(family, pictures.train, seed, epochs=0), pictures, controls)


def planted(family: Family, seed: int, controls: int = 99) -> Record:
    """A network with planted channels: are they found, and what does the verdict on them say?"""
    choices = PLANTED_CHANNELS[family]
    made = plant(family, striped_pictures(seed, PLANTED_COUNTS[family]), seed, choices[seed % len(choices)])
    record: Record = {
        "units": str(made.units),
        "n_units": len(made.units),
        "group": made.data.groups.names[made.group],
        "accepted": made.is_accepted,
        "before": made.before,
        "after": made.after,
        "norm_quantiles": made.norm_quantiles.round(3).tolist(),
    }
    if not made.is_accepted:
        return record
    samples = made.data.train.of_group(made.group)
    known = set(made.units)
    rankings: Mapping[str, Callable[[], Any]] = {
        "ablation": lambda: ablation(made.model, samples),
        "gradient": lambda: gradient(made.model, samples),
        "taylor": lambda: taylor(made.model, samples),
        "magnitude": lambda: magnitude(made.model),
        "random": lambda: random(made.model, seed=seed),
    }
    record["recall"] = {
        name: len(known & set(top(scores(), len(known)))) / len(known) for name, scores in rankings.items()
    }
    settings = StudySettings(units=tuple(str(made.units).split(",")), controls=controls, seed=seed)
    found = examine(made.model, made.data, settings)
    (row,) = _own(found).to_dict(orient="records")
    names = (
        "shift",
        "p_adjusted",
        "difference",
        "p_selective",
        "contrast",
        "contrast_low",
        "norm_ratio",
        "same_tensor",
    )
    return {**record, **{name: float(row[name]) for name in names}, "verdict": row["verdict"], "reason": row["reason"]}


TRIALS: dict[str, Callable[[Family, int, int], Record]] = {
    "exact_nulls": exact_nulls,
    "planted": planted,
    "no_correlation": no_correlation,
    "permuted_labels": permuted_labels,
    "untrained": untrained,
}


def run_trial(kind: str, family: Family, seed: int, controls: int) -> Record:
    """One trial, on one thread: networks this small gain nothing from more. What would warn a user of samples that are
    all right already is expected here."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "all .* samples .* are classified correctly")
            return TRIALS[kind](family, seed, controls)
    finally:
        torch.set_num_threads(before)


def _examined(
    model: nn.Module,
    pictures: Dataset,
    engine: Engine,
    criterion: tuple[str, ...],
    size: str,
    controls: int,
    *,
    seed: int,
    split: tuple[str, ...] = ("train",),
) -> pd.DataFrame:
    settings = StudySettings(
        criterion=criterion, size=(size,), controls=controls, split=split, seed=seed, per_group=PER_GROUP
    )
    found = examine(model, pictures, settings, engine=engine)
    return found[found["split"] == "train"]


def _own(found: pd.DataFrame) -> pd.DataFrame:
    """What is said of minority groups in training; of the group that units were traced on, where they were."""
    rows = found[(found["split"] == "train") & found["minority"]]
    return rows[rows["traced_on"].isna() | (rows["traced_on"] == rows["group_name"])]


def _answers(model: nn.Module, pictures: Dataset, controls: int) -> Record:
    settings = StudySettings(criterion=("gradient",), size=(str(SIZE),), controls=controls, per_group=PER_GROUP)
    rows = _own(examine(model, pictures, settings))
    return {
        **{name: rows[name].dropna().astype(bool).tolist() for name in ("influential", "selective", "memorising")},
        "verdicts": rows["verdict"].tolist(),
    }


def _never_seen(pictures: Dataset, seed: int) -> Dataset:
    """Val and test samples as "train" and "test", drawn at random."""
    kept = np.flatnonzero(pictures.split != "train")
    split = np.full(len(pictures), "val", dtype="<U5")
    split[kept] = np.where(np.random.default_rng([seed, 0x5EE4]).random(len(kept)) < 0.5, "train", "test")
    return replace(pictures, split=split).with_minority([pictures.groups.names[g] for g in pictures.minority])
