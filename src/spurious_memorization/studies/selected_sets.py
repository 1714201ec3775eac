"""The selected sets of a study, and `effects.parquet`: each set compared with its controls, with its verdicts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ..datasets.samples import Dataset
from ..statistics.counts import COUNTS
from ..statistics.effects import changes_per_control, compare_with_controls, verdict_columns
from ..statistics.permutation import influence
from ..statistics.sample_effects import NO_EFFECTS, SampleEffects, joined, mean_over_repeats
from .measure import EffectsOfSplits

CONTROL_COLUMNS = ("control_low", "control_median", "control_high", "n_controls", "n_controls_as_large")


@dataclass(frozen=True, eq=False, kw_only=True)
class SelectedSet:
    """One selected set of a study: one criterion, group, size and edit.

    Arguments:
        number: of the set.
        variants: all edited networks of the study, as in `variants.parquet`.
    """

    number: int
    variants: pd.DataFrame

    @property
    def rows(self) -> pd.DataFrame:
        """Its variants: units selected on all samples (fold -1) and, for verdicts, on each half; one row per repeat."""
        return self.variants[(self.variants["family"] == "selected") & (self.variants["selected_set"] == self.number)]

    @property
    def on_all_samples(self) -> pd.DataFrame:
        """Its variants whose units were selected on all samples; one row per repeat."""
        rows = self.rows
        return rows[rows["fold"] == -1]

    @property
    def about(self) -> pd.Series:
        """The first of them: criterion, group, size, kind, parameters, units and so on."""
        return self.on_all_samples.iloc[0]

    @property
    def tested(self) -> pd.DataFrame:
        """The variants from which the verdicts follow. Without controls these are the ones that are shown."""
        rows = self.rows
        with_controls = rows[rows["pool"] >= 0]
        return with_controls if len(with_controls) else self.on_all_samples

    @property
    def norm_ratio(self) -> float:
        """Ratio of the controls' norm to the set's norm; of both halves the one that is further from 1."""
        ratios = self.tested["norm_ratio"].dropna()
        return float(ratios.loc[np.log(ratios).abs().idxmax()]) if len(ratios) else math.nan

    def controls(self, pool: int | None = None) -> pd.DataFrame:
        """The variants that are its controls, in all of its pools or in one."""
        about, variants = self.about, self.variants
        pools = self.tested["pool"].unique() if pool is None else [pool]
        return variants[
            (variants["family"] == "random")
            & variants["pool"].isin(pools)
            & (variants["size"] == about["size"])
            & (variants["kind"] == about["kind"])
            & (variants["parameters"] == about["parameters"])
        ]

    def counts(self, counted: pd.DataFrame) -> pd.DataFrame:
        """Counts of the units selected on all samples, one row per repeat and group, from rows of `results.parquet`."""
        own = counted.merge(self.on_all_samples[["variant", "repeat"]], on="variant")
        return own.groupby(["repeat", "group"], as_index=False)[list(COUNTS)].sum()

    def control_changes(self, counted: pd.DataFrame) -> pd.DataFrame:
        """Accuracy change of each control (rows) on each group (columns).

        Arguments:
            counted: rows of `results.parquet`, of one split and of the controls' samples. Each pool is counted on the
                half on which the set is tested.
        """
        parts = []
        for pool, fold in self.tested[["pool", "fold"]].drop_duplicates().itertuples(index=False):
            measured = counted if fold == -1 else counted[counted["half"] == 1 - fold]
            parts.append(measured.merge(self.controls(pool)[["variant", "control", "repeat"]], on="variant"))
        complete = set.intersection(*(set(part["control"]) for part in parts))  # pools may differ in number
        pooled = pd.concat(parts)
        return changes_per_control(pooled[pooled["control"].isin(complete)].rename(columns={"control": "edit"}))

    def tested_changes(self, counted: pd.DataFrame) -> pd.DataFrame:
        """The changes from which the verdicts follow, compared with those of the controls.

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


def control_subset(counted: pd.DataFrame) -> str:
    """Name of the subset of samples on which controls were measured."""
    return next((name for name in counted["subset"].unique() if name != "all"), "all")


def study_effects(
    data: Dataset, variants: pd.DataFrame, results: pd.DataFrame, measured: EffectsOfSplits, *, seed: int
) -> pd.DataFrame:
    """`effects.parquet`: every selected set on every split and group, compared with its controls on the same samples.

    The accuracy change is that of the units selected on all samples. If the selection looked at samples, everything
    from which a verdict follows is measured on each half with the units that were selected on the other half. So the
    effect on a sample is always that of units selected without it.

    Arguments:
        data: labels and groups of the samples.
        variants, results: as they are stored.
        measured: for each split, the effect of every selected variant on each sample.
        seed: of the permutations.

    Returns:
        One row per selected set, split and group. The columns are: the set (criterion, traced_on, size, kind,
        parameters, unit, n_units, units), those of `compare_with_controls` (the accuracy change on all samples;
        `tested_accuracy_change` is the one on the controls' samples), those of `verdict_columns`, and how well the
        controls match (norm_ratio, same_tensor).
    """
    sets = selected_sets(variants)
    splits = list(dict.fromkeys(results["split"]))
    frames = []
    for split in splits:
        of_split = results[results["split"] == split]
        subset = control_subset(of_split)
        counted = dict(iter(of_split.groupby("subset")))
        unseen_splits = [other for other in splits if other != "train"] if split == "train" else None
        for family in _families(sets):
            tables = [one.tested_changes(counted[subset]) for one in family]
            controls = [one.control_changes(counted[subset]) for one in family]
            tests = [(i, g) for i, table in enumerate(tables) for g in table["group"]]
            changes = np.array([tables[i].set_index("group")["accuracy_change"][g] for i, g in tests])
            n = min(len(of_controls) for of_controls in controls)
            null = np.array(
                [controls[i][g].to_numpy()[:n] if g in controls[i] else np.full(n, np.nan) for i, g in tests]
            )
            p, adjusted = influence(changes, null.reshape(len(tests), n).T)
            for i, one in enumerate(family):
                own_tests = [number for number, (place, _) in enumerate(tests) if place == i]
                unseen = (
                    None
                    if unseen_splits is None
                    else joined([NO_EFFECTS, *(one.sample_effects(measured[other]) for other in unseen_splits)])
                )
                verdicts = verdict_columns(
                    data,
                    tables[i],
                    p=p[own_tests],
                    adjusted=adjusted[own_tests],
                    here=one.sample_effects(measured[split]),
                    unseen=unseen,
                    n_controls=n,
                    norm_ratio=one.norm_ratio,
                    seed=seed,
                )
                rows = _effect_rows(one, counted["all"], tables[i], verdicts)
                frames.append(rows.assign(split=split, controls_on=subset))
    effects = pd.concat(frames, ignore_index=True)
    effects["group_name"] = [data.groups.names[g] for g in effects["group"]]
    effects["minority"] = effects["group"].isin(data.minority)
    in_order = effects["split"].map(splits.index)
    return effects.iloc[np.lexsort((in_order, effects["selected_set"]))].reset_index(drop=True)


def _effect_rows(one: SelectedSet, counted: pd.DataFrame, tested: pd.DataFrame, verdicts: pd.DataFrame) -> pd.DataFrame:
    """The rows of `effects.parquet` of a set on one split, one per group."""
    about = one.about
    table = compare_with_controls(one.counts(counted), pd.DataFrame()).drop(columns=[*CONTROL_COLUMNS])
    tested = pd.concat([tested[["group", "accuracy_change", *CONTROL_COLUMNS]], verdicts], axis=1)
    table = table.merge(tested.rename(columns={"accuracy_change": "tested_accuracy_change"}), on="group", how="left")
    too_few = table["verdict"].isna()  # a group with one sample has none in one of the halves
    whole_numbers = ("n_controls", "n_controls_as_large", "n_unseen")
    table.loc[too_few, ["verdict", "reason", *whole_numbers]] = ("no verdict", "too few samples", 0, 0, 0)
    is_untested = about["pool"] < 0 and one.tested.equals(one.rows)
    if is_untested and (one.variants["family"] == "random").any():
        table["reason"] = "units were selected on the samples themselves: verdicts need two halves of the group"
    return table.astype(dict.fromkeys(whole_numbers, np.int64)).assign(
        selected_set=one.number,
        criterion=about["criterion"],
        traced_on=about["group"],
        size=about["size"],
        kind=about["kind"],
        parameters=about["parameters"],
        unit=about["unit"],
        n_units=about["n_units"],
        units=about["units"],
        norm_ratio=one.norm_ratio,
        same_tensor=one.tested["same_tensor"].mean(),
    )


def _families(sets: Sequence[SelectedSet]) -> list[list[SelectedSet]]:
    """Sets that differ only in their size. Their tests form one family."""
    families: dict[tuple[object, ...], list[SelectedSet]] = {}
    for one in sets:
        families.setdefault(tuple(one.about[["criterion", "group", "kind", "parameters"]]), []).append(one)
    return list(families.values())
