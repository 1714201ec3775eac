"""The selected sets of a study: each with its variants, counts and random sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from ..statistics.counts import COUNTS
from ..statistics.effects import changes_per_control, compare_with_controls
from ..statistics.sample_effects import NO_EFFECTS, SampleEffects, joined, mean_over_repeats


@dataclass(frozen=True, eq=False, kw_only=True)
class SelectedSet:
    """One selected set of a study: one criterion, group, size and edit.

    Arguments:
        number: of the set.
        variants: all edited networks of the study, as in `variants.parquet`.
    """

    number: int
    variants: pd.DataFrame

    @cached_property
    def rows(self) -> pd.DataFrame:
        """Its variants: units selected on all samples (fold -1) and, for verdicts, on each half; one row per repeat."""
        return self.variants[(self.variants["family"] == "selected") & (self.variants["selected_set"] == self.number)]

    @cached_property
    def on_all_samples(self) -> pd.DataFrame:
        """Its variants whose units were selected on all samples; one row per repeat."""
        rows = self.rows
        return rows[rows["fold"] == -1]

    @cached_property
    def about(self) -> pd.Series:
        """The first of them: criterion, group, size, kind, parameters, units and so on."""
        return self.on_all_samples.iloc[0]

    @cached_property
    def tested(self) -> pd.DataFrame:
        """The variants from which the verdicts follow. Without null sets these are the ones that are shown."""
        rows = self.rows
        with_controls = rows[rows["pool"] >= 0]
        return with_controls if len(with_controls) else self.on_all_samples

    @cached_property
    def pool(self) -> int:
        """Number of its pool of null sets; -1 for none."""
        return int(self.tested["pool"].max())

    @cached_property
    def controls(self) -> pd.DataFrame:
        """The variants that are its null sets; one row per null set, half and repeat."""
        about, variants = self.about, self.variants
        return variants[
            (variants["family"] == "random")
            & (variants["pool"] == self.pool)
            & (variants["size"] == about["size"])
            & (variants["kind"] == about["kind"])
            & (variants["parameters"] == about["parameters"])
        ]

    @cached_property
    def of_any_size(self) -> pd.DataFrame:
        """The variants that are random sets of many sizes beside it; one row per set and repeat."""
        return self.variants[(self.variants["family"] == "damage") & (self.variants["selected_set"] == self.number)]

    @property
    def log_norm(self) -> float:
        """Logarithm of its relative folded norm; a mean over the halves."""
        return float(self.tested["log_norm"].mean())

    def control_log_norms(self) -> pd.Series:
        """The same of each null set, by its number."""
        return self.controls.groupby("control")["log_norm"].mean()

    def counts(self, counted: pd.DataFrame) -> pd.DataFrame:
        """Counts of the units selected on all samples, one row per repeat and group, from rows of `results.parquet`."""
        own = counted.merge(self.on_all_samples[["variant", "repeat"]], on="variant")
        return own.groupby(["repeat", "group"], as_index=False)[list(COUNTS)].sum()

    def control_changes(self, counted: pd.DataFrame) -> pd.DataFrame:
        """Accuracy change of each null set (rows) on each group (columns).

        Arguments:
            counted: rows of `results.parquet`, of one split and of the null sets' samples.
        """
        measured = counted.merge(self.controls[["variant", "control", "repeat"]], on="variant")
        return changes_per_control(measured.rename(columns={"control": "edit"}))

    def tested_changes(self, counted: pd.DataFrame) -> pd.DataFrame:
        """The changes from which the verdicts follow, compared with those of the null sets.

        Arguments:
            counted: as for `control_changes`.
        """
        own = counted.merge(self.tested[["variant", "repeat"]], on="variant")
        pooled = own.groupby(["repeat", "group"], as_index=False)[list(COUNTS)].sum()
        return compare_with_controls(pooled, self.control_changes(counted))

    def sample_effects(self, measured: Mapping[int, SampleEffects]) -> SampleEffects:
        """Its effect on each sample, by units that were selected without that sample."""
        parts = []
        for fold, rows in self.tested.groupby("fold"):
            known = [measured[v] for v in rows["variant"] if v in measured]
            if known:
                whole = mean_over_repeats(known)
                parts.append(replace(whole, half=np.zeros_like(whole.half)) if fold == -1 else whole)
        return joined(parts) if parts else NO_EFFECTS


def selected_sets(variants: pd.DataFrame) -> list[SelectedSet]:
    """The selected sets of a study, in the order of its plan."""
    numbers = variants.loc[variants["family"] == "selected", "selected_set"].unique()
    return [SelectedSet(number=int(number), variants=variants) for number in numbers]


def families(sets: Sequence[SelectedSet]) -> list[list[SelectedSet]]:
    """Sets that differ only in their size. Their tests form one family."""
    found: dict[tuple[object, ...], list[SelectedSet]] = {}
    for one in sets:
        found.setdefault(tuple(one.about[["criterion", "group", "kind", "parameters"]]), []).append(one)
    return list(found.values())


def control_subset(counted: pd.DataFrame) -> str:
    """Name of the subset of samples on which random sets were measured."""
    return next((name for name in counted["subset"].unique() if name != "all"), "all")
