"""What a study measures, and what it counts of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd

from ..datasets.samples import Dataset, Samples
from ..engine.outcomes import Block
from ..statistics.counts import COUNTS, count
from ..statistics.effects import SampleEffects, joined, sample_effects
from .blocks import Part
from .plan import Variant
from .settings import StudySettings


def _subset(samples: Samples, settings: StudySettings) -> Samples:
    """The samples on which controls are measured."""
    return samples if settings.per_group is None else samples.per_group(settings.per_group, settings.seed)


def parts_of(variants: Sequence[Variant], samples: Samples, settings: StudySettings) -> dict[str, Part]:
    """What is measured on one split: selected sets on all samples, their controls on some where so set; what is of one
    half of the samples on that half alone."""
    places = {"selected": ("edited networks", samples), "random": ("controls", _subset(samples, settings))}
    found: dict[str, Part] = {}
    for name in dict.fromkeys(variant.part for variant in variants):
        here = [number for number, variant in enumerate(variants) if variant.part == name]
        first = variants[here[0]]
        if first.family == "random" and samples.split not in (settings.controls_on or settings.split):
            continue
        words, where = places[first.family]
        if len(first.halves) == 1:
            (half,) = first.halves
            where, words = where.of_half(half, settings.seed), f"{words}, half {half}"
        if len(where):
            edits = [variants[number].edit for number in here]
            found[name] = Part(f"{samples.split}, {words}", edits, where, np.array(here))
    return found


def measure(
    parts: Mapping[str, Mapping[str, Part]],
    blocks: Callable[[str, Part], Iterator[tuple[Block, Block]]],
    data: Dataset,
    settings: StudySettings,
) -> tuple[pd.DataFrame, dict[str, dict[int, SampleEffects]]]:
    """Measure every part of every split.

    Arguments:
        parts: of each split, as `parts_of` gives them.
        blocks: gives outcomes before and after, block by block, of a part with a name.

    Returns:
        `results.parquet` (one row a variant, split, subset, half and group: counts; selected sets are counted on all
        their samples, and on the controls' samples), and for each split what each selected variant does to each sample.
    """
    halves, subset_name = data.halves(settings.seed), _subset_name(settings)
    counted: list[pd.DataFrame] = []
    found: dict[str, dict[int, SampleEffects]] = {}
    for split, here in parts.items():
        subset = _subset(data.samples(split), settings)
        effects: dict[int, list[SampleEffects]] = defaultdict(list)
        sums: list[pd.DataFrame] = []
        for name, part in here.items():
            is_control = name.startswith("random")
            for before, after in blocks(f"{split}_{name}", part):
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


def _subset_name(settings: StudySettings) -> str:
    return "all" if settings.per_group is None else f"per_group_{settings.per_group}"


def _within(samples: Samples, subset: Samples) -> Samples:
    return samples.at(samples.index[np.isin(samples.index, subset.index)])
