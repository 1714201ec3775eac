"""What a study measures, and the counts that it keeps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd

from ..datasets.samples import Dataset, Samples
from ..engine.protocol import Engine
from ..statistics.counts import COUNTS, count
from ..statistics.sample_effects import SampleEffects, joined, sample_effects
from .blocks import Part, measured_blocks
from .plan import Variant
from .settings import StudySettings
from .store import Store

EffectsOfSplits = Mapping[str, Mapping[int, SampleEffects]]
"""For each split, what each selected variant does to each sample."""


def parts_of(variants: Sequence[Variant], samples: Samples, settings: StudySettings) -> dict[str, Part]:
    """The parts that are measured on one split, by name.

    Selected sets are measured on all samples, their controls on a subset if the settings ask for it. What belongs to
    one half of the samples is measured on that half alone.
    """
    places = {"selected": ("edited networks", samples), "random": ("controls", _control_samples(samples, settings))}
    found: dict[str, Part] = {}
    for name in dict.fromkeys(variant.part for variant in variants):
        numbers = [number for number, variant in enumerate(variants) if variant.part == name]
        first = variants[numbers[0]]
        if first.family == "random" and samples.split not in (settings.controls_on or settings.split):
            continue
        label, measured_on = places[first.family]
        if len(first.halves) == 1:
            (half,) = first.halves
            measured_on, label = measured_on.of_half(half, settings.seed), f"{label}, half {half}"
        if len(measured_on):
            edits = [variants[number].edit for number in numbers]
            found[name] = Part(f"{samples.split}, {label}", edits, measured_on, np.array(numbers))
    return found


def measure(
    parts: Mapping[str, Mapping[str, Part]], store: Store, engine: Engine, data: Dataset, settings: StudySettings
) -> tuple[pd.DataFrame, EffectsOfSplits]:
    """Measure every part of every split, or read it from the store.

    Arguments:
        parts: of each split, as `parts_of` gives them.
        store: where outcomes are kept.
        engine: for the network.
        data: the data set.
        settings: of the study.

    Returns:
        `results.parquet` and the effects on each sample. Results have one row per variant, split, subset, half and
        group, with counts. Selected sets are counted on all their samples, and on those of the controls.
    """
    halves, subset_name = data.halves(settings.seed), _subset_name(settings)
    counted: list[pd.DataFrame] = []
    found: dict[str, dict[int, SampleEffects]] = {}
    for split, parts_here in parts.items():
        subset = _control_samples(data.samples(split), settings)
        effects: dict[int, list[SampleEffects]] = defaultdict(list)
        sums: list[pd.DataFrame] = []
        for name, part in parts_here.items():
            is_control = name.startswith("random")
            for before, after in measured_blocks(store, f"outcomes/{split}_{name}", engine, part):
                samples = part.samples.at(before.index)
                views = (
                    {subset_name: samples} if is_control else {"all": samples, subset_name: _within(samples, subset)}
                )
                for (view, seen), half in product(views.items(), (0, 1)):
                    chosen = seen.at(seen.index[halves[seen.index] == half])
                    if len(chosen):
                        sums.append(count(before, after, chosen).assign(subset=view, half=half))
                if not is_control:
                    for row, variant in enumerate(after.edits.tolist()):
                        effects[variant].append(sample_effects(before, after, row, halves, data))
        keys = ["edit", "subset", "half", "group"]
        total = pd.concat(sums).groupby(keys, as_index=False)[list(COUNTS)].sum()
        counted.append(total.rename(columns={"edit": "variant"}).assign(split=split))
        found[split] = {variant: joined(several) for variant, several in effects.items()}
    return pd.concat(counted, ignore_index=True), found


def _control_samples(samples: Samples, settings: StudySettings) -> Samples:
    """The samples on which controls are measured."""
    return samples if settings.per_group is None else samples.per_group(settings.per_group, settings.seed)


def _subset_name(settings: StudySettings) -> str:
    return "all" if settings.per_group is None else f"per_group_{settings.per_group}"


def _within(samples: Samples, subset: Samples) -> Samples:
    return samples.at(samples.index[np.isin(samples.index, subset.index)])
