"""`effects.parquet`: every selected set of a study beside its controls, with its verdicts, from what is stored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ..datasets.samples import Dataset
from ..statistics.counts import COUNTS
from ..statistics.effects import NOTHING, SampleEffects, averaged, beside_controls, joined, per_control, verdict_columns
from ..statistics.verdicts import influence


def study_effects(
    data: Dataset,
    variants: pd.DataFrame,
    results: pd.DataFrame,
    measured: Mapping[str, Mapping[int, SampleEffects]],
    *,
    seed: int,
) -> pd.DataFrame:
    """`effects.parquet`: every selected set on every split and group, beside its controls on the same samples.

    The accuracy change is that of the units selected on all samples. Where these were looked at, everything that a verdict
    follows from is measured on each half with the units selected on the other: a sample's effect is that of units
    chosen without it.

    Arguments:
        data: the samples' labels and groups.
        variants, results: as stored.
        measured: for each split, effects on each sample of every selected variant.
        seed: of the permutations.

    Returns:
        One row a selected set, split and group: what the set is (criterion, traced_on, size, kind, parameters, unit,
        n_units, units), the columns of `beside_controls` (the accuracy change on all samples; `tested_accuracy_change` on the
        controls' samples), those of `verdict_columns`, and how well the controls match (norm_ratio, same_tensor).
    """
    sets = _selected_sets(variants)
    splits = list(dict.fromkeys(results["split"]))
    frames = []
    for split in splits:
        counted = dict(iter(results[results["split"] == split].groupby("subset")))
        subset = next((name for name in counted if name != "all"), "all")
        unseen_splits = [other for other in splits if other != "train"] if split == "train" else None
        for family in _families(sets):
            tables = [one.beside_controls(counted[subset]) for one in family]
            controls = [one.control_changes(counted[subset]) for one in family]
            questions = [(i, g) for i, table in enumerate(tables) for g in table["group"]]
            drops = np.array([-tables[i].set_index("group")["accuracy_change"][g] for i, g in questions])
            n = min(len(accuracy_changes) for accuracy_changes in controls)
            null = np.array(
                [-controls[i][g].to_numpy()[:n] if g in controls[i] else np.full(n, np.nan) for i, g in questions]
            )
            p, adjusted = influence(drops, null.reshape(len(questions), n).T)
            for i, one in enumerate(family):
                asked = [q for q, (place, _) in enumerate(questions) if place == i]
                here = one.effects(measured[split])
                unseen = None if unseen_splits is None else one.unseen(measured, unseen_splits)
                verdicts = verdict_columns(
                    data, tables[i], p[asked], adjusted[asked], here, unseen, n, one.norm_ratio, seed=seed
                )
                frames.append(one.row(counted["all"], tables[i], verdicts).assign(split=split, controls_on=subset))
    effects = pd.concat(frames, ignore_index=True)
    effects["group_name"] = [data.groups.names[g] for g in effects["group"]]
    effects["minority"] = effects["group"].isin(data.minority)
    in_order = effects["split"].map(splits.index)
    return effects.iloc[np.lexsort((in_order, effects["selected_set"]))].reset_index(drop=True)


@dataclass(frozen=True, eq=False)
class _SelectedSet:
    """One selected set of a study.

    Arguments:
        number: of the set.
        rows: its variants: units selected on all samples (fold -1) and, for verdicts, on each half; repeats.
        variants: all.
    """

    number: int
    rows: pd.DataFrame
    variants: pd.DataFrame

    @property
    def about(self) -> pd.Series:
        return self.rows[self.rows["fold"] == -1].iloc[0]

    @property
    def tested(self) -> pd.DataFrame:
        """The variants that verdicts are about; without controls those that are shown."""
        with_controls = self.rows[self.rows["pool"] >= 0]
        return with_controls if len(with_controls) else self.rows[self.rows["fold"] == -1]

    @property
    def norm_ratio(self) -> float:
        """The one furthest from 1 of those of both halves."""
        ratios = self.tested["norm_ratio"].dropna()
        return float(ratios.loc[np.log(ratios).abs().idxmax()]) if len(ratios) else math.nan

    def beside_controls(self, counted: pd.DataFrame) -> pd.DataFrame:
        """`beside_controls` of what verdicts are about, on the controls' samples."""
        own = counted.merge(self.tested[["variant", "repeat"]], on="variant")
        pooled = own.groupby(["repeat", "group"], as_index=False)[list(COUNTS)].sum()
        return beside_controls(pooled, self.control_changes(counted))

    def control_changes(self, counted: pd.DataFrame) -> pd.DataFrame:
        """Accuracy change of each control (rows) on each group (columns), each pool on the half where the set is tested."""
        about = self.about
        parts = []
        for pool, fold in self.tested[["pool", "fold"]].drop_duplicates().itertuples(index=False):
            controls = self.variants[
                (self.variants["family"] == "random")
                & (self.variants["pool"] == pool)
                & (self.variants["size"] == about["size"])
                & (self.variants["kind"] == about["kind"])
                & (self.variants["parameters"] == about["parameters"])
            ]
            there = counted if fold == -1 else counted[counted["half"] == 1 - fold]
            parts.append(there.merge(controls[["variant", "control", "repeat"]], on="variant"))
        complete = set.intersection(*(set(part["control"]) for part in parts))  # pools may differ in number
        pooled = pd.concat(parts)
        return per_control(pooled[pooled["control"].isin(complete)].rename(columns={"control": "edit"}))

    def effects(self, measured: Mapping[int, SampleEffects]) -> SampleEffects:
        """On each sample, of units selected without it."""
        parts = []
        for fold, rows in self.tested.groupby("fold"):
            there = [measured[v] for v in rows["variant"] if v in measured]
            if there:
                whole = averaged(there)
                parts.append(replace(whole, half=np.zeros_like(whole.half)) if fold == -1 else whole)
        return joined(parts) if parts else NOTHING

    def unseen(self, measured: Mapping[str, Mapping[int, SampleEffects]], splits: Sequence[str]) -> SampleEffects:
        return joined([NOTHING, *(self.effects(measured[split]) for split in splits)])

    def row(self, counted: pd.DataFrame, beside: pd.DataFrame, verdicts: pd.DataFrame) -> pd.DataFrame:
        """The set's rows of `effects.parquet` on one split."""
        about = self.about
        whole = self.rows.loc[self.rows["fold"] == -1, ["variant", "repeat"]]
        own = counted.merge(whole, on="variant").groupby(["repeat", "group"], as_index=False)[list(COUNTS)].sum()
        controls = ["control_low", "control_median", "control_high", "n_controls", "n_as_large"]
        tested = pd.concat([beside[["group", "accuracy_change", *controls]], verdicts], axis=1)
        table = beside_controls(own, pd.DataFrame()).drop(columns=controls)
        table = table.merge(
            tested.rename(columns={"accuracy_change": "tested_accuracy_change"}), on="group", how="left"
        )
        too_few = table["verdict"].isna()  # a group with one sample has none in one of the halves
        table.loc[too_few, ["verdict", "reason", "n_controls", "n_as_large", "n_unseen"]] = (
            "no verdict",
            "too few samples",
            0,
            0,
            0,
        )
        if self.about["pool"] < 0 and self.tested.equals(self.rows) and (self.variants["family"] == "random").any():
            table["reason"] = "units were selected on the samples themselves: verdicts need two halves of the group"
        whole_numbers = dict.fromkeys(("n_controls", "n_as_large", "n_unseen"), np.int64)
        return table.astype(whole_numbers).assign(
            selected_set=self.number,
            criterion=about["criterion"],
            traced_on=about["group"],
            size=about["size"],
            kind=about["kind"],
            parameters=about["parameters"],
            unit=about["unit"],
            n_units=about["n_units"],
            units=about["units"],
            norm_ratio=self.norm_ratio,
            same_tensor=self.tested["same_tensor"].mean(),
        )


def _selected_sets(variants: pd.DataFrame) -> list[_SelectedSet]:
    selected = variants[variants["family"] == "selected"]
    return [_SelectedSet(number, rows, variants) for number, rows in selected.groupby("selected_set", sort=False)]


def control_changes(results: pd.DataFrame, variants: pd.DataFrame) -> pd.DataFrame:
    """Accuracy change of every control, as it stands beside each selected set: one row a selected_set, control, split and
    group."""
    frames = []
    for split, counted in results.groupby("split", sort=False):
        subset = next((name for name in counted["subset"].unique() if name != "all"), "all")
        for one in _selected_sets(variants):
            accuracy_changes = one.control_changes(counted[counted["subset"] == subset])
            if len(accuracy_changes):
                rows = (
                    accuracy_changes.stack().rename("accuracy_change").rename_axis(["control", "group"]).reset_index()
                )
                frames.append(rows.assign(selected_set=one.number, split=split))
    columns = ["selected_set", "control", "split", "group", "accuracy_change"]
    return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)


def _families(sets: Sequence[_SelectedSet]) -> list[list[_SelectedSet]]:
    """Sets that differ in their size alone: their questions are one family."""
    families: dict[tuple[object, ...], list[_SelectedSet]] = {}
    for one in sets:
        families.setdefault(tuple(one.about[["criterion", "group", "kind", "parameters"]]), []).append(one)
    return list(families.values())
