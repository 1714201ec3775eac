"""What a study measures, and the counts that it keeps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ..datasets.samples import Dataset, Samples
from ..statistics.counts import COUNTS, WHOLE_COUNTS, count
from ..statistics.sample_effects import SampleEffects, joined, sample_effects
from .block_workers import BlockWorkers
from .blocks import Part, measured_blocks
from .plan import Variant, variants_frame
from .settings import StudySettings
from .store import Store
from .time_to_go import TimeToGo

EffectsOfSplits = Mapping[str, Mapping[int, SampleEffects]]
"""For each split, what each selected variant does to each sample."""

_LABELS = {"selected": "edited networks", "random": "controls", "damage": "sets of any size"}


class Measured:
    """What a study has measured so far. It grows when edited networks are added.

    Arguments:
        workers: for the network.
        data: the data set.
        settings: of the study.
        splits: to measure on.
        epoch: of the network.
        store: where outcomes are kept.
        time_to_go: of the study.
    """

    def __init__(
        self,
        workers: BlockWorkers,
        data: Dataset,
        settings: StudySettings,
        splits: Sequence[str],
        epoch: int,
        store: Store,
        time_to_go: TimeToGo,
    ) -> None:
        self.data = data
        self.settings = settings
        self.splits = splits
        self.of_samples: dict[str, dict[int, SampleEffects]] = {split: {} for split in splits}
        self._workers = workers
        self._store = store
        self._time_to_go = time_to_go
        self._epoch = epoch
        self._frames: list[pd.DataFrame] = []
        self._counts: dict[str, list[pd.DataFrame]] = {split: [] for split in splits}

    def add(self, variants: Sequence[Variant]) -> None:
        """Measure further edited networks, or read them from the store."""
        first = sum(map(len, self._frames))
        frame = variants_frame(
            variants, epoch=self._epoch, selected_on=self.settings.traced_on, precision=self.settings.precision
        )
        frame["variant"] += first
        self._frames.append(frame)
        for split in self.splits:
            parts = parts_of(variants, self.data.samples(split), self.settings, first=first)
            for name, part in parts.items():
                self._count(split, name, part)

    @property
    def variants(self) -> pd.DataFrame:
        """`variants.parquet`: one row per edited network."""
        return pd.concat(self._frames, ignore_index=True)

    @property
    def results(self) -> pd.DataFrame:
        """`results.parquet`: counts, one row per variant, split, subset, half and group.

        Selected sets are counted on all their samples, and on those of the null sets.
        """
        return pd.concat([counts for of_split in self._counts.values() for counts in of_split], ignore_index=True)

    def _count(self, split: str, name: str, part: Part) -> None:
        halves, subset_name = self.data.halves(self.settings.seed), _subset_name(self.settings)
        subset = control_samples(self.data.samples(split), self.settings)
        is_selected = name.startswith(f"outcomes/{split}_selected")
        effects: dict[int, list[SampleEffects]] = defaultdict(list)
        counts = Counts(part.variants, len(self.data.groups))
        for before, after in measured_blocks(self._store, name, self._workers, part, self._time_to_go):
            samples = part.samples.at(before.index)
            views = {"all": samples, subset_name: _within(samples, subset)} if is_selected else {subset_name: samples}
            for (view, seen), half in product(views.items(), (0, 1)):
                chosen = seen.at(seen.index[halves[seen.index] == half])
                if len(chosen):
                    counts.add(count(before, after, chosen), view, half)
            if is_selected:
                for row, variant in enumerate(after.edits.tolist()):
                    effects[variant].append(sample_effects(before, after, row, halves, self.data))
        self._counts[split].append(counts.frame().assign(split=split))
        self.of_samples[split] |= {variant: joined(several) for variant, several in effects.items()}


class Counts:
    """Sums of counts over blocks of samples, in memory that does not grow with the samples.

    Arguments:
        variants: numbers of the edited networks, in order, [variants].
        n_groups: number of groups.
    """

    def __init__(self, variants: NDArray[np.int64], n_groups: int) -> None:
        self._variants = variants
        self._n_groups = n_groups
        self._sums: dict[tuple[str, int], NDArray[np.float64]] = {}

    def add(self, counted: pd.DataFrame, subset: str, half: int) -> None:
        """Add the counts of some of the variants, from `count`, on samples of one half."""
        shape = (len(self._variants), self._n_groups, len(COUNTS))
        if (subset, half) not in self._sums:
            self._sums[subset, half] = np.zeros(shape)
        some = counted["edit"].to_numpy()[:: self._n_groups]
        values = counted[list(COUNTS)].to_numpy(np.float64)
        self._sums[subset, half][np.searchsorted(self._variants, some)] += values.reshape(len(some), *shape[1:])

    def frame(self) -> pd.DataFrame:
        """One row per variant, subset, half and group, in this order, with the columns of `COUNTS`."""
        keys, shape = sorted(self._sums), (len(self._variants), len(self._sums), self._n_groups)

        def each(values: ArrayLike, axis: int) -> NDArray[Any]:
            return np.broadcast_to(np.expand_dims(values, [a for a in range(3) if a != axis]), shape).ravel()

        columns = {
            "variant": each(self._variants, 0),
            "subset": each([subset for subset, _ in keys], 1),
            "half": each([half for _, half in keys], 1),
            "group": each(np.arange(self._n_groups), 2),
        }
        for number, name in enumerate(COUNTS):
            values = np.stack([self._sums[key][:, :, number] for key in keys], axis=1).ravel()
            columns[name] = values.astype(np.int64) if name in WHOLE_COUNTS else values
        return pd.DataFrame(columns)


def parts_of(
    variants: Sequence[Variant], samples: Samples, settings: StudySettings, *, first: int = 0
) -> dict[str, Part]:
    """The parts that are measured on one split, by the name of their blocks.

    Selected sets are measured on all samples, random sets on a subset if the settings ask for it. What belongs to one
    half of the samples is measured on that half alone.

    Arguments:
        variants: the edited networks.
        samples: of the split.
        settings: of the study.
        first: number of the first variant.
    """
    found: dict[str, Part] = {}
    for name in dict.fromkeys(variant.part for variant in variants):
        positions = [number for number, variant in enumerate(variants) if variant.part == name]
        one = variants[positions[0]]
        if one.family == "random" and samples.split not in (settings.controls_on or settings.split):
            continue
        label = _LABELS[one.family]
        measured_on = samples if one.family == "selected" else control_samples(samples, settings)
        if len(one.halves) == 1:
            (half,) = one.halves
            measured_on, label = measured_on.of_half(half, settings.seed), f"{label}, half {half}"
        if one.drawn >= 0:
            label = f"{label}, round {one.drawn + 1}"
        if len(measured_on):
            edits = [variants[position].edit for position in positions]
            numbers = first + np.array(positions)
            found[f"outcomes/{samples.split}_{name}"] = Part(f"{samples.split}, {label}", edits, measured_on, numbers)
    return found


def control_samples(samples: Samples, settings: StudySettings) -> Samples:
    """The samples on which random sets are measured."""
    return samples if settings.per_group is None else samples.per_group(settings.per_group, settings.seed)


def _subset_name(settings: StudySettings) -> str:
    return "all" if settings.per_group is None else f"per_group_{settings.per_group}"


def _within(samples: Samples, subset: Samples) -> Samples:
    return samples.at(samples.index[np.isin(samples.index, subset.index)])
