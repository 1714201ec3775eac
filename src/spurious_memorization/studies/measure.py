"""What a study measures, and the counts that it keeps."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby, product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ..datasets.samples import Dataset, Samples
from ..edits.edit import Edit
from ..lazy_sequences import LazySequence
from ..statistics.counts import COUNTS, WHOLE_COUNTS, count
from ..statistics.sample_effects import SampleEffects, joined, sample_effects
from .block_workers import BlockWorkers
from .blocks import Part, measured_blocks
from .growing_frames import AddRows
from .plan import Variant, variants_frame
from .selected_sets import ALL, FOLDS, EffectsOfSets, StudiedSets
from .settings import StudySettings
from .store import Store
from .time_to_go import TimeToGo

EffectsOfSplits = Mapping[str, EffectsOfSets]
"""For each split, what each selected set does to each sample."""

ROWS_AT_A_TIME = 1024

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
        add_variants, add_results: add rows to these tables.
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
        *,
        add_variants: AddRows,
        add_results: AddRows,
    ) -> None:
        self.data = data
        self.settings = settings
        self.splits = splits
        self.sets = StudiedSets(len(data.groups))
        self.of_samples: dict[str, dict[tuple[int, int], SampleEffects]] = {split: {} for split in splits}
        self._workers = workers
        self._store = store
        self._time_to_go = time_to_go
        self._epoch = epoch
        self._n_variants = 0
        self._add_variants = add_variants
        self._add_results = add_results

    def add(self, variants: Sequence[Variant]) -> None:
        """Measure further edited networks, or read them from the store."""
        first = self._n_variants
        self._n_variants += len(variants)
        for start in range(0, len(variants), ROWS_AT_A_TIME):
            rows = self._rows(variants, np.arange(start, min(start + ROWS_AT_A_TIME, len(variants))), first)
            self._add_variants(rows)
            self.sets.add(rows)
        parts = parts_of_variants(variants)
        for split in self.splits:
            for name, part in parts_of(parts, self.data.samples(split), self.settings, first=first).items():
                self._count(split, name, part, variants, first)

    def _rows(self, variants: Sequence[Variant], positions: NDArray[np.int64], first: int) -> pd.DataFrame:
        """The rows of `variants.parquet` at some positions."""
        return variants_frame(
            [variants[position] for position in positions.tolist()],
            first + positions,
            epoch=self._epoch,
            selected_on=self.settings.traced_on,
            precision=self.settings.precision,
        )

    def _count(self, split: str, name: str, part: Part, variants: Sequence[Variant], first: int) -> None:
        """Count the outcomes of a part: all samples of some edits, then those of the next edits."""
        halves, subset_name = self.data.halves(self.settings.seed), _subset_name(self.settings)
        subset = control_samples(self.data.samples(split), self.settings)
        is_selected = variants[int(part.variants[0]) - first].family == "selected"
        effects = MeanEffects()
        blocks = measured_blocks(self._store, name, self._workers, part, self._time_to_go)
        for _, of_edits in groupby(blocks, key=lambda pair: int(pair[1].edits[0])):
            counts = Counts(len(self.data.groups))
            for before, after in of_edits:
                samples = part.samples.at(before.index)
                views = {ALL: samples, subset_name: _within(samples, subset)} if is_selected else {subset_name: samples}
                for (view, seen), half in product(views.items(), (0, 1)):
                    chosen = seen.at(seen.index[halves[seen.index] == half])
                    if len(chosen):
                        counts.add(count(before, after, chosen), view, half)
                if is_selected:
                    for row, number in enumerate(after.edits.tolist()):
                        of_samples = sample_effects(before, after, row, halves, self.data)
                        effects.add(variants[number - first], of_samples)
            rows = self._rows(variants, counts.variants - first, first)
            counted = counts.frame().assign(split=split)
            self._add_results(counted)
            self.sets.count(rows, counted)
        self.of_samples[split] |= effects.means()


class MeanEffects:
    """The effects of selected sets on samples, as a mean over repeats, by number and fold of the set. Only sums are
    kept."""

    def __init__(self) -> None:
        self._sums: dict[tuple[int, int], dict[int, tuple[SampleEffects, int]]] = {}

    def add(self, variant: Variant, effects: SampleEffects) -> None:
        """Add what one repeat does to some samples.

        Arguments:
            variant: of a selected set.
            effects: on a range of the samples, which is the same for each repeat.
        """
        fold = FOLDS[0] if variant.half is None else variant.half
        ranges = self._sums.setdefault((variant.selected_set, fold), {})
        first = int(effects.index[0])
        if first in ranges:
            so_far, n = ranges[first]
            accuracy_change = so_far.accuracy_change + effects.accuracy_change
            margin_change = so_far.margin_change + effects.margin_change
            effects = replace(so_far, accuracy_change=accuracy_change, margin_change=margin_change)
            ranges[first] = effects, n + 1
        else:
            ranges[first] = effects, 1

    def means(self) -> dict[tuple[int, int], SampleEffects]:
        """The mean effects on all samples, by number and fold of the set."""
        return {
            of: joined(
                replace(sums, accuracy_change=sums.accuracy_change / n, margin_change=sums.margin_change / n)
                for sums, n in ranges.values()
            )
            for of, ranges in self._sums.items()
        }


class Counts:
    """Sums of the counts of some edited networks over parts of the samples.

    Arguments:
        n_groups: number of groups.
    """

    def __init__(self, n_groups: int) -> None:
        self.variants = np.zeros(0, np.int64)
        self._n_groups = n_groups
        self._sums: dict[tuple[str, int], NDArray[np.float64]] = {}

    def add(self, counted: pd.DataFrame, subset: str, half: int) -> None:
        """Add the counts of the edited networks, from `count`, on samples of one half."""
        self.variants = counted["edit"].to_numpy()[:: self._n_groups]
        values = counted[list(COUNTS)].to_numpy(np.float64)
        here = values.reshape(len(self.variants), self._n_groups, len(COUNTS))
        self._sums[subset, half] = self._sums.get((subset, half), 0) + here

    def frame(self) -> pd.DataFrame:
        """One row per variant, subset, half and group, in this order, with the columns of `COUNTS`."""
        keys, shape = sorted(self._sums), (len(self.variants), len(self._sums), self._n_groups)

        def each(values: ArrayLike, axis: int) -> NDArray[Any]:
            return np.broadcast_to(np.expand_dims(values, [a for a in range(3) if a != axis]), shape).ravel()

        columns = {
            "variant": each(self.variants, 0),
            "subset": each([subset for subset, _ in keys], 1),
            "half": each([half for _, half in keys], 1),
            "group": each(np.arange(self._n_groups), 2),
        }
        for number, name in enumerate(COUNTS):
            values = np.stack([self._sums[key][:, :, number] for key in keys], axis=1).ravel()
            columns[name] = values.astype(np.int64) if name in WHOLE_COUNTS else values
        return pd.DataFrame(columns)


class EditsOf(LazySequence[Edit]):
    """The edits of some variants.

    Arguments:
        variants: the edited networks.
        positions: of some of them.
    """

    def __init__(self, variants: Sequence[Variant], positions: NDArray[np.int64]) -> None:
        self._variants = variants
        self._positions = positions

    def __len__(self) -> int:
        return len(self._positions)

    def make(self, position: int) -> Edit:
        return self._variants[int(self._positions[position])].edit


class PartOfVariants(NamedTuple):
    """Edited networks that are measured together.

    Arguments:
        first: one of them.
        edits: of all.
        positions: of all among the variants, [edits].
    """

    first: Variant
    edits: Sequence[Edit]
    positions: NDArray[np.int64]


def parts_of_variants(variants: Sequence[Variant]) -> dict[str, PartOfVariants]:
    """Edited networks by the name of their part."""
    found: dict[str, tuple[Variant, array[int]]] = {}
    for position, variant in enumerate(variants):
        _, positions = found.setdefault(variant.part, (variant, array("q")))
        positions.append(position)
    numbers = {name: np.array(positions, np.int64) for name, (_, positions) in found.items()}
    return {name: PartOfVariants(found[name][0], EditsOf(variants, of), of) for name, of in numbers.items()}


def parts_of(
    parts: Mapping[str, PartOfVariants], samples: Samples, settings: StudySettings, *, first: int = 0
) -> dict[str, Part]:
    """The parts that are measured on one split, by the name of their blocks.

    Selected sets are measured on all samples, random sets on a subset if the settings ask for it. What belongs to one
    half of the samples is measured on that half alone.

    Arguments:
        parts: from `parts_of_variants`.
        samples: of the split.
        settings: of the study.
        first: number of the first variant.
    """
    found: dict[str, Part] = {}
    for name, (one, edits, positions) in parts.items():
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
            numbers = first + positions
            found[f"outcomes/{samples.split}_{name}"] = Part(f"{samples.split}, {label}", edits, measured_on, numbers)
    return found


def control_samples(samples: Samples, settings: StudySettings) -> Samples:
    """The samples on which random sets are measured."""
    return samples if settings.per_group is None else samples.per_group(settings.per_group, settings.seed)


def _subset_name(settings: StudySettings) -> str:
    return ALL if settings.per_group is None else f"per_group_{settings.per_group}"


def _within(samples: Samples, subset: Samples) -> Samples:
    return samples.at(samples.index[np.isin(samples.index, subset.index)])
