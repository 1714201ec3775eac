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

from ..criteria.gradients import gradient, taylor
from ..criteria.random_scores import random
from ..criteria.scores import top
from ..criteria.weight_norms import weight_norm
from ..datasets.pseudo_minority import with_pseudo_minority
from ..datasets.samples import Dataset
from ..engine.evaluate import engine_for
from ..engine.outcomes import Engine
from ..studies.ablation import ablation
from ..studies.pipeline import study_in_memory
from ..studies.settings import StudySettings
from .networks import Family, accuracies, trained
from .plants import plant
from .striped_images import COUNTS, striped_images

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
"""A channel of these networks holds a few images; a DeiT's, which sees single patches, fewer."""

PLANTED_CHANNELS: dict[Family, tuple[int, ...]] = {"resnet": (1, 2, 3), "deit": (4, 5)}


def exact_nulls(family: Family, seed: int, controls: int = 99) -> Record:
    """A trained network, and questions to which the answer is no by construction.

    - influential: units picked at random (criterion `random`), sizes 1 to 3, all groups: one family of questions each.
    - selective: pseudo-minorities, units selected by gradient on them.
    - memorizing: "training" and "unseen" samples are one random split of samples that the network has never seen.
    """
    images = striped_images(seed)
    model = trained(family, images.train, seed)
    engine = engine_for(model, images.train)
    influential = []
    for draw in range(DRAWS):
        found = _effects(model, images, engine, ("random",), "1..3", controls, seed=1000 * seed + draw)
        influential.append(bool(found["influential"].astype(bool).any()))
    selective, memorizing = [], []
    for draw in range(DRAWS // 2):
        drawn = with_pseudo_minority(images, 1000 * seed + draw)
        found = _effects(model, drawn, engine, ("gradient",), str(SIZE), 1, seed=draw)
        selective += _own(found)["selective"].dropna().astype(bool).tolist()
        split = _never_seen(images, 1000 * seed + draw)
        found = _effects(model, split, engine, ("gradient",), str(SIZE), 1, seed=draw, split=("train", "test"))
        memorizing += _own(found)["memorizing"].dropna().astype(bool).tolist()
    return {
        "influential": influential,
        "selective": selective,
        "memorizing": memorizing,
        "accuracy": {split: accuracies(model, images.samples(split)) for split in ("train", "test")},
    }


def no_correlation(family: Family, seed: int, controls: int = 99) -> Record:
    """A network trained where label and attribute are independent."""
    images = striped_images(seed, {**COUNTS, "train": (150, 150, 150, 150)})
    named = images.with_minority([images.groups.names[g] for g in (1, 2)])
    return _answers(trained(family, named.train, seed), named, controls)


def permuted_labels(family: Family, seed: int, controls: int = 99) -> Record:
    """A network trained on labels that were permuted: all that it can do is memorize, every group alike."""
    images = striped_images(seed)
    y = images.y.copy()
    here = np.flatnonzero(images.split == "train")
    y[here] = y[np.random.default_rng([seed, 0x9E43]).permutation(here)]
    named = replace(images, y=y).with_minority([images.groups.names[g] for g in images.minority])
    return _answers(trained(family, named.train, seed, epochs=30), named, controls)


def untrained(family: Family, seed: int, controls: int = 99) -> Record:
    """A network with random weights."""
    images = striped_images(seed)
    return _answers(trained(family, images.train, seed, epochs=0), images, controls)


def planted(family: Family, seed: int, controls: int = 99) -> Record:
    """A network with planted channels: are they found, and what does the verdict on them say?"""
    choices = PLANTED_CHANNELS[family]
    made = plant(family, striped_images(seed, PLANTED_COUNTS[family]), seed, choices[seed % len(choices)])
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
        "weight_norm": lambda: weight_norm(made.model),
        "random": lambda: random(made.model, seed=seed),
    }
    record["recall"] = {
        name: len(known & set(top(scores(), len(known)))) / len(known) for name, scores in rankings.items()
    }
    settings = StudySettings(units=tuple(str(made.units).split(",")), controls=controls, seed=seed)
    engine = engine_for(made.model, made.data.train)
    found = study_in_memory(made.model, made.data, settings, engine=engine).effects()
    (row,) = _own(found).to_dict(orient="records")
    names = (
        "accuracy_change",
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


def _effects(
    model: nn.Module,
    images: Dataset,
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
    found = study_in_memory(model, images, settings, engine=engine).effects()
    return found[found["split"] == "train"]


def _own(found: pd.DataFrame) -> pd.DataFrame:
    """What is said of minority groups in training; of the group that units were traced on, where they were."""
    rows = found[(found["split"] == "train") & found["minority"]]
    return rows[rows["traced_on"].isna() | (rows["traced_on"] == rows["group_name"])]


def _answers(model: nn.Module, images: Dataset, controls: int) -> Record:
    settings = StudySettings(criterion=("gradient",), size=(str(SIZE),), controls=controls, per_group=PER_GROUP)
    found = study_in_memory(model, images, settings, engine=engine_for(model, images.train)).effects()
    rows = _own(found)
    return {
        **{name: rows[name].dropna().astype(bool).tolist() for name in ("influential", "selective", "memorizing")},
        "verdicts": rows["verdict"].tolist(),
    }


def _never_seen(images: Dataset, seed: int) -> Dataset:
    """Val and test samples as "train" and "test", drawn at random."""
    kept = np.flatnonzero(images.split != "train")
    split = np.full(len(images), "val", dtype="<U5")
    split[kept] = np.where(np.random.default_rng([seed, 0x5EE4]).random(len(kept)) < 0.5, "train", "test")
    return replace(images, split=split).with_minority([images.groups.names[g] for g in images.minority])
