"""The selected sets of a study: each with its counts and its random sets.

Of the counts of edited networks, only sums over the repeats of each set are kept. So they need little memory, however
many edited networks there are.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..statistics.counts import COUNTS
from ..statistics.effects import changes_per_control, compare_with_controls
from ..statistics.sample_effects import NO_EFFECTS, SampleEffects, joined

Array = NDArray[np.float64]

ALL = "all"
"""The subset that has all samples of a split."""

FOLDS = (-1, 0, 1)
"""Units selected on all samples, and on each half."""

KEY = ("size", "kind", "parameters")
"""What a null set shares with its selected sets, beside the pool."""

OF_NULL_SETS = ("n", "correct_before", "correct_after")
"""The counts of null sets that are kept."""

EffectsOfSets = Mapping[tuple[int, int], SampleEffects]
"""What selected sets do to each sample of a split, by number and fold; a mean over repeats."""


class RandomSets:
    """Random sets that stand beside selected sets, numbered from 0, with sums of their counts.

    Arguments:
        columns: the counts that are kept.
    """

    def __init__(self, columns: Sequence[str] = COUNTS) -> None:
        self.columns = columns
        self.rules: tuple[str, ...] = ()
        self.first_variant: int | None = None
        self.n_units = np.zeros(0, np.int64)
        self.n_repeats = 1
        self._log_norms = np.zeros((0, len(FOLDS)))
        self._sums: dict[str, Array] = {}

    def __len__(self) -> int:
        return len(self.n_units)

    def add(self, variants: pd.DataFrame) -> None:
        """Add rows of `variants.parquet`."""
        if self.first_variant is None:
            self.first_variant = int(variants["variant"].iloc[0])
        self.rules = tuple(dict.fromkeys((*self.rules, *variants["rule"])))
        self.n_repeats = max(self.n_repeats, int(variants["repeat"].max()) + 1)
        control, fold = variants["control"].to_numpy(), variants["fold"].to_numpy() - FOLDS[0]
        n = max(len(self), int(control.max()) + 1)
        self.n_units, self._log_norms = _longer(self.n_units, n), _longer(self._log_norms, n, np.nan)
        self.n_units[control] = variants["n_units"]
        self._log_norms[control, fold] = variants["log_norm"]

    def count(
        self, split: str, control: NDArray[np.int64], group: NDArray[np.int64], values: Array, n_groups: int
    ) -> None:
        """Add counts.

        Arguments:
            split: of the samples.
            control, group: of each row, [rows].
            values: the counts, [rows, COUNTS].
            n_groups: number of groups.
        """
        sums = self._sums.get(split, np.zeros((0, n_groups, len(self.columns))))
        self._sums[split] = sums = _longer(sums, len(self))
        np.add.at(sums, (control, group), values[:, [COUNTS.index(name) for name in self.columns]])

    @property
    def splits(self) -> list[str]:
        """Where they were measured."""
        return list(self._sums)

    def counted(self, split: str) -> pd.DataFrame:
        """Counts on one split, a mean over repeats: one row per random set (`edit`) and group that has samples."""
        if split not in self._sums:
            return pd.DataFrame(columns=["edit", "group", *self.columns], dtype=float)
        means = self._sums[split] / self.n_repeats
        control, group = np.nonzero(means[:, :, 0] > 0)
        rows = means[control, group]
        return pd.DataFrame({"edit": control, "group": group, **dict(zip(self.columns, rows.T, strict=True))})

    def changes(self, split: str) -> pd.DataFrame:
        """Accuracy change of each random set (rows) on each group (columns)."""
        return changes_per_control(self.counted(split))

    def log_norms(self) -> pd.Series:
        """Logarithm of the relative folded norm of each set, by its number; a mean over the halves."""
        known = ~np.isnan(self._log_norms)
        sums = np.where(known, self._log_norms, 0).sum(axis=1)
        n = known.sum(axis=1)
        return pd.Series(np.divide(sums, n, out=np.full(len(n), np.nan), where=n > 0))

    @property
    def median_log_norm(self) -> float:
        """Median of these logarithms, over the sets and their halves."""
        known = self._log_norms[~np.isnan(self._log_norms)]
        return float(np.median(known)) if len(known) else np.nan


@dataclass(frozen=True, eq=False, kw_only=True)
class SelectedSet:
    """One selected set of a study: one criterion, group, size and edit.

    Arguments:
        number: of the set.
        rows: its variants without their further repeats: units selected on all samples (fold -1) and, for verdicts, on
            each half.
        sums: counts by split and subset, [folds, groups, COUNTS]; a mean over repeats.
        null_sets: its null sets.
        of_any_size: the random sets of many sizes beside it.
    """

    number: int
    rows: pd.DataFrame
    sums: Mapping[tuple[str, str], Array]
    null_sets: RandomSets
    of_any_size: RandomSets

    @property
    def about(self) -> pd.Series:
        """Criterion, group, size, kind, parameters, units and so on, of the units selected on all samples."""
        return self.rows[self.rows["fold"] == -1].iloc[0]

    @property
    def tested(self) -> pd.DataFrame:
        """The rows from which the verdicts follow. Without null sets these are the ones that are shown."""
        with_controls = self.rows[self.rows["pool"] >= 0]
        return with_controls if len(with_controls) else self.rows[self.rows["fold"] == -1]

    @property
    def pool(self) -> int:
        """Number of its pool of null sets; -1 for none."""
        return int(self.tested["pool"].max())

    @property
    def log_norm(self) -> float:
        """Logarithm of its relative folded norm; a mean over the halves."""
        return float(self.tested["log_norm"].mean())

    @property
    def splits(self) -> list[str]:
        """Where it was measured."""
        return list(dict.fromkeys(split for split, _ in self.sums))

    def counts(self, split: str) -> pd.DataFrame:
        """Counts of the units selected on all samples, on all samples: one row per group."""
        return _counts_frame(self.sums[split, ALL][FOLDS.index(-1)])

    def tested_counts(self, split: str) -> pd.DataFrame:
        """Counts from which the verdicts follow, on the samples of the random sets: one row per group."""
        folds = [FOLDS.index(fold) for fold in self.tested["fold"]]
        return _counts_frame(self.sums[split, self.control_subset(split)][folds].sum(axis=0))

    def tested_changes(self, split: str) -> pd.DataFrame:
        """The changes from which the verdicts follow, compared with those of the null sets."""
        return compare_with_controls(self.tested_counts(split), self.null_sets.changes(split))

    def control_subset(self, split: str) -> str:
        """Name of the subset of samples on which random sets are measured."""
        return next((subset for of, subset in self.sums if of == split and subset != ALL), ALL)

    def sample_effects(self, measured: EffectsOfSets) -> SampleEffects:
        """Its effect on each sample, by units that were selected without that sample."""
        parts = []
        for fold in self.tested["fold"]:
            whole = measured.get((self.number, fold))
            if whole is not None:
                parts.append(replace(whole, half=np.zeros_like(whole.half)) if fold == -1 else whole)
        return joined(parts) if parts else NO_EFFECTS


class StudiedSets:
    """The selected sets of a study and their random sets, with what was counted so far.

    Arguments:
        n_groups: number of groups.
    """

    def __init__(self, n_groups: int) -> None:
        self._n_groups = n_groups
        self._rows: list[pd.DataFrame] = []
        self._n_repeats: Counter[int] = Counter()
        self._sums: dict[int, dict[tuple[str, str], Array]] = defaultdict(dict)
        self._null_sets: dict[Hashable, RandomSets] = defaultdict(lambda: RandomSets(OF_NULL_SETS))
        self._of_any_size: dict[int, RandomSets] = defaultdict(RandomSets)

    def add(self, variants: pd.DataFrame) -> None:
        """Add rows of `variants.parquet`."""
        selected = variants[variants["family"] == "selected"]
        if len(selected):
            self._rows.append(selected[selected["repeat"] == 0])
            self._n_repeats |= Counter((selected.groupby("selected_set")["repeat"].max() + 1).to_dict())
        for random, positions in self._random_sets(variants):
            random.add(variants.iloc[positions])

    def count(self, variants: pd.DataFrame, counted: pd.DataFrame) -> None:
        """Add rows of `results.parquet`.

        Arguments:
            variants: the rows of `variants.parquet` to which they belong, which were added before.
            counted: counts of these variants, one row per variant, split, subset, half and group.
        """
        random_sets, set_of_row = self._random_sets(variants), np.full(len(variants), -1)
        for number, (_, positions) in enumerate(random_sets):
            set_of_row[positions] = number
        for split, of_split in counted.groupby("split", sort=False):
            row = pd.Index(variants["variant"]).get_indexer(of_split["variant"])
            group = of_split["group"].to_numpy()
            values = of_split[list(COUNTS)].to_numpy(np.float64)
            self._count_selected(str(split), variants, of_split["subset"].to_numpy(), row, group, values)
            control = variants["control"].to_numpy()[row]
            for number, (random, _) in enumerate(random_sets):
                own = set_of_row[row] == number
                random.count(str(split), control[own], group[own], values[own], self._n_groups)

    def selected_sets(self) -> list[SelectedSet]:
        """The selected sets, in the order of the plan."""
        rows = pd.concat(self._rows, ignore_index=True)
        return [self._selected_set(int(number), rows) for number in rows["selected_set"].unique()]

    def selected_set(self, number: int) -> SelectedSet:
        """The selected set of a number."""
        return self._selected_set(number, pd.concat(self._rows, ignore_index=True))

    def _selected_set(self, number: int, rows: pd.DataFrame) -> SelectedSet:
        own = rows[rows["selected_set"] == number]
        key = (int(own["pool"].max()), *own[list(KEY)].iloc[0])
        return SelectedSet(
            number=number,
            rows=own,
            sums={place: sums / self._n_repeats[number] for place, sums in self._sums[number].items()},
            null_sets=self._null_sets.get(key, RandomSets(OF_NULL_SETS)),
            of_any_size=self._of_any_size.get(number, RandomSets()),
        )

    def _random_sets(self, variants: pd.DataFrame) -> list[tuple[RandomSets, NDArray[np.intp]]]:
        """The random sets to which some rows belong, with the positions of their rows."""
        family = variants["family"].to_numpy()
        null = np.flatnonzero(family == "random")
        beside = np.flatnonzero(family == "damage")
        by_key = variants.iloc[null].groupby(["pool", *KEY], sort=False).indices
        by_number = variants.iloc[beside].groupby("selected_set", sort=False).indices
        return [
            *((self._null_sets[key], null[positions]) for key, positions in by_key.items()),
            *((self._of_any_size[number], beside[positions]) for number, positions in by_number.items()),
        ]

    def _count_selected(
        self,
        split: str,
        variants: pd.DataFrame,
        subsets: NDArray[Any],
        row: NDArray[np.intp],
        group: NDArray[np.int64],
        values: Array,
    ) -> None:
        """Add counts of the selected sets among the rows, [rows]; `row` is that of the variant."""
        is_selected = (variants["family"] == "selected").to_numpy()
        number, fold = variants["selected_set"].to_numpy(), variants["fold"].to_numpy() - FOLDS[0]
        for one in np.unique(number[is_selected]).tolist():
            own = (is_selected & (number == one))[row]
            for subset in dict.fromkeys(subsets[own].tolist()):
                here = own & (subsets == subset)
                new = np.zeros((len(FOLDS), self._n_groups, len(COUNTS)))
                sums = self._sums[one].setdefault((split, subset), new)
                np.add.at(sums, (fold[row[here]], group[here]), values[here])


def families(sets: Sequence[SelectedSet]) -> list[list[SelectedSet]]:
    """Sets that differ only in their size. Their tests form one family."""
    found: dict[tuple[object, ...], list[SelectedSet]] = {}
    for one in sets:
        found.setdefault(tuple(one.about[["criterion", "group", "kind", "parameters"]]), []).append(one)
    return list(found.values())


def _counts_frame(sums: Array) -> pd.DataFrame:
    """One row per group, from [groups, COUNTS]."""
    return pd.DataFrame({"group": np.arange(len(sums)), **dict(zip(COUNTS, sums.T, strict=True))})


def _longer(values: NDArray[Any], n: int, filled_with: float = 0) -> NDArray[Any]:
    """An array with at least `n` rows."""
    more = max(0, n - len(values))
    return np.concatenate([values, np.full((more, *values.shape[1:]), filled_with, values.dtype)])
