"""The trials of the calibration: each asks the tool about one network whose answer is known.

A trial is a function of a network family, a seed and a number of controls. It returns a flat record of plain numbers
and words, so that trials can run in any process and be stored.
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
from ..engine.protocol import Engine
from ..studies.ablation import ablation
from ..studies.pipeline import study_in_memory
from ..studies.settings import StudySettings
from .networks import Family, accuracies, trained
from .plants import plant_channels
from .striped_images import COUNTS, striped_images

Record = dict[str, Any]

DRAWS = 4
"""Random rankings per network. Half as many pseudo-minorities are drawn."""

SIZE = 3
PER_GROUP = 60
"""Samples per group on which controls are measured."""

PLANTED_COUNTS = {
    "resnet": {**COUNTS, "train": (240, 14, 14, 240)},
    "deit": {**COUNTS, "train": (240, 8, 8, 240)},
}
"""Images per group. A channel can memorize only a few images. A channel of a DeiT sees single patches, so it can
memorize fewer still."""

PLANTED_CHANNELS: dict[Family, tuple[int, ...]] = {"resnet": (1, 2, 3), "deit": (4, 5)}
"""Numbers of planted channels; seeds take turns."""


def exact_nulls_trial(family: Family, seed: int, controls: int = 99) -> Record:
    """A trained network, and questions whose answer is no by construction.

    - influential: units are picked at random (criterion `random`). Each ranking, with sizes 1 to 3 and all groups, is
      one family of tests.
    - selective: the minority is a random part of the majority, and units are selected by gradient on it.
    - memorizing: the "training" and "unseen" samples are a random split of samples that the network has never seen.
    """
    images = striped_images(seed)
    model = trained(family, images.train, seed)
    engine = engine_for(model, images.train)
    influential = []
    for draw in range(DRAWS):
        found = _study_rows(model, images, engine, ("random",), "1..3", controls, seed=1000 * seed + draw)
        influential.append(bool(found["influential"].astype(bool).any()))
    selective, memorizing = [], []
    for draw in range(DRAWS // 2):
        drawn = with_pseudo_minority(images, 1000 * seed + draw)
        found = _study_rows(model, drawn, engine, ("gradient",), str(SIZE), 1, seed=draw)
        selective += _minority_rows(found)["selective"].dropna().astype(bool).tolist()
        split = _unseen_split(images, 1000 * seed + draw)
        found = _study_rows(model, split, engine, ("gradient",), str(SIZE), 1, seed=draw, split=("train", "test"))
        memorizing += _minority_rows(found)["memorizing"].dropna().astype(bool).tolist()
    return {
        "influential": influential,
        "selective": selective,
        "memorizing": memorizing,
        "accuracy": {split: accuracies(model, images.samples(split)) for split in ("train", "test")},
    }


def no_correlation_trial(family: Family, seed: int, controls: int = 99) -> Record:
    """A network trained on data in which label and attribute are independent."""
    images = striped_images(seed, {**COUNTS, "train": (150, 150, 150, 150)})
    named = images.with_minority([images.groups.names[g] for g in (1, 2)])
    return _gradient_record(trained(family, named.train, seed), named, controls)


def permuted_labels_trial(family: Family, seed: int, controls: int = 99) -> Record:
    """A network trained on permuted labels. It can only memorize, and it memorizes all groups alike."""
    images = striped_images(seed)
    y = images.y.copy()
    here = np.flatnonzero(images.split == "train")
    y[here] = y[np.random.default_rng([seed, 0x9E43]).permutation(here)]
    named = replace(images, y=y).with_minority([images.groups.names[g] for g in images.minority])
    return _gradient_record(trained(family, named.train, seed, epochs=30), named, controls)


def untrained_trial(family: Family, seed: int, controls: int = 99) -> Record:
    """A network with random weights."""
    images = striped_images(seed)
    return _gradient_record(trained(family, images.train, seed, epochs=0), images, controls)


def planted_trial(family: Family, seed: int, controls: int = 99) -> Record:
    """A network with planted channels: the recall of each criterion, and the verdict on the planted set.

    Nothing is asked if the network was not accepted (see `PlantedNetwork.is_accepted`).
    """
    choices = PLANTED_CHANNELS[family]
    data = striped_images(seed, PLANTED_COUNTS[family])
    planted = plant_channels(family, data, seed, choices[seed % len(choices)])
    record: Record = {
        "units": str(planted.units),
        "n_units": len(planted.units),
        "group": planted.data.groups.names[planted.group],
        "accepted": planted.is_accepted,
        "before": planted.before,
        "after": planted.after,
        "norm_quantiles": planted.norm_quantiles.round(3).tolist(),
    }
    if not planted.is_accepted:
        return record
    samples = planted.data.train.of_group(planted.group)
    known = set(planted.units)
    rankings: Mapping[str, Callable[[], Any]] = {
        "ablation": lambda: ablation(planted.model, samples),
        "gradient": lambda: gradient(planted.model, samples),
        "taylor": lambda: taylor(planted.model, samples),
        "weight_norm": lambda: weight_norm(planted.model),
        "random": lambda: random(planted.model, seed=seed),
    }
    record["recall"] = {
        name: len(known & set(top(scores(), len(known)))) / len(known) for name, scores in rankings.items()
    }
    settings = StudySettings(units=tuple(str(planted.units).split(",")), controls=controls, seed=seed)
    engine = engine_for(planted.model, planted.data.train)
    found = study_in_memory(planted.model, planted.data, settings, engine=engine).effects()
    (row,) = _minority_rows(found).to_dict(orient="records")
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
    "exact_nulls": exact_nulls_trial,
    "planted": planted_trial,
    "no_correlation": no_correlation_trial,
    "permuted_labels": permuted_labels_trial,
    "untrained": untrained_trial,
}


def run_trial(kind: str, family: Family, seed: int, controls: int) -> Record:
    """Run one trial, on one thread, since small networks gain nothing from more.

    Arguments:
        kind: name of the trial, a key of `TRIALS`.
        family, seed: family and seed of the network.
        controls: matched controls per selected set.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            # A user should know that all samples are classified correctly. In these networks it is expected.
            warnings.filterwarnings("ignore", "all .* samples .* are classified correctly")
            return TRIALS[kind](family, seed, controls)
    finally:
        torch.set_num_threads(before)


def _study_rows(
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


def _minority_rows(found: pd.DataFrame) -> pd.DataFrame:
    """The rows of minority groups in training; for units traced on one group, only the row of that group."""
    rows = found[(found["split"] == "train") & found["minority"]]
    return rows[rows["traced_on"].isna() | (rows["traced_on"] == rows["group_name"])]


def _gradient_record(model: nn.Module, images: Dataset, controls: int) -> Record:
    settings = StudySettings(criterion=("gradient",), size=(str(SIZE),), controls=controls, per_group=PER_GROUP)
    rows = _minority_rows(study_in_memory(model, images, settings, engine=engine_for(model, images.train)).effects())
    return {
        **{name: rows[name].dropna().astype(bool).tolist() for name in ("influential", "selective", "memorizing")},
        "verdicts": rows["verdict"].tolist(),
    }


def _unseen_split(images: Dataset, seed: int) -> Dataset:
    """A random split of the val and test samples, named "train" and "test"."""
    kept = np.flatnonzero(images.split != "train")
    split = np.full(len(images), "val", dtype="<U5")
    split[kept] = np.where(np.random.default_rng([seed, 0x5EE4]).random(len(kept)) < 0.5, "train", "test")
    return replace(images, split=split).with_minority([images.groups.names[g] for g in images.minority])
