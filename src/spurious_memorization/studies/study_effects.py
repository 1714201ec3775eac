"""`effects.parquet`: each selected set compared with its random sets, with its verdicts."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from ..datasets.samples import Dataset
from ..statistics.damage import damage_matched
from ..statistics.effects import compare_with_controls, verdict_columns
from .measure import EffectsOfSplits
from .question_tests import FamilyTests, effects_beside_random, p_of_contrasts
from .selected_sets import SelectedSet

CONTROL_COLUMNS = ("control_low", "control_median", "control_high", "n_controls", "n_controls_as_large")


def study_effects(
    data: Dataset,
    sets: Sequence[SelectedSet],
    tests: Sequence[FamilyTests],
    measured: EffectsOfSplits,
    *,
    seed: int,
    unchanged: Collection[int] = (),
) -> pd.DataFrame:
    """`effects.parquet`: every selected set on every split and group, compared with its null sets on the same samples.

    The accuracy change is that of the units selected on all samples. If the selection looked at samples, everything
    from which a verdict follows is measured on each half with the units that were selected on the other half. So the
    effect on a sample is always that of units selected without it.

    Arguments:
        data: labels and groups of the samples.
        sets: the selected sets, with all their random sets.
        tests: the first two questions.
        measured: for each split, the effect of every selected set on each sample.
        seed: of the permutations.
        unchanged: numbers of the sets whose units are as they were before training.

    Returns:
        One row per selected set, split and group. The columns are: the set (criterion, traced_on, size, kind,
        parameters, unit, n_units, units), those of `compare_with_controls` (the accuracy change on all samples;
        `tested_accuracy_change` is the one on the null sets' samples), those of `verdict_columns`, norm_ratio (median
        norm of the null sets over that of the set), drawn_from (how null sets were drawn) and matched_from (how
        damage-matched sets were drawn).
    """
    splits = list(measured)
    complete = {one.number: one for one in sets}
    has_null_sets = any(len(one.null_sets) for one in sets)
    frames = []
    for of in tests:
        first = of.influence
        for tested, table, influence, selective in zip(
            of.family, first.tables, first.answers, of.selectivity, strict=True
        ):
            one = complete[tested.number]
            damage, p_contrast = {}, {}
            if len(one.of_any_size):
                beside = {group: effects_beside_random(one, data, group, of.split) for group in selective}
                damage = {group: damage_matched(*both) for group, both in beside.items()}
                p_contrast = p_of_contrasts(one, data, measured, list(selective), seed=seed)
            verdicts = verdict_columns(
                data,
                table,
                influence=influence,
                selective=selective,
                damage=damage,
                p_contrast=p_contrast,
                n_controls=first.n,
                is_unchanged=one.number in unchanged,
            )
            rows = _effect_rows(one, of.split, table, verdicts)
            if has_null_sets and (one.rows["pool"] < 0).all() and (one.rows["fold"] == -1).all():
                rows["reason"] = "units were selected on the samples themselves: verdicts need two halves of the group"
            frames.append(rows.assign(split=of.split, controls_on=one.control_subset(of.split)))
    effects = pd.concat(frames, ignore_index=True)
    effects["group_name"] = [data.groups.names[g] for g in effects["group"]]
    effects["minority"] = effects["group"].isin(data.minority)
    in_order = effects["split"].map(splits.index)
    return effects.iloc[np.lexsort((in_order, effects["selected_set"]))].reset_index(drop=True)


def _effect_rows(one: SelectedSet, split: str, tested: pd.DataFrame, verdicts: pd.DataFrame) -> pd.DataFrame:
    """The rows of `effects.parquet` of a set on one split, one per group."""
    about, null_sets = one.about, one.null_sets
    table = compare_with_controls(one.counts(split), pd.DataFrame()).drop(columns=[*CONTROL_COLUMNS])
    tested = pd.concat([tested[["group", "accuracy_change", *CONTROL_COLUMNS]], verdicts], axis=1)
    table = table.merge(tested.rename(columns={"accuracy_change": "tested_accuracy_change"}), on="group", how="left")
    too_few = table["verdict"].isna()  # a group with one sample has none in one of the halves
    whole_numbers = ("n_controls", "n_controls_as_large", "n_damage_matched")
    table.loc[too_few, ["verdict", "reason", *whole_numbers]] = ("no verdict", "too few samples", 0, 0, 0)
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
        norm_ratio=math.exp(null_sets.median_log_norm - one.log_norm) if len(null_sets) else math.nan,
        drawn_from=null_sets.rules[0] if len(null_sets) else None,
        matched_from=one.of_any_size.rules[-1] if len(one.of_any_size) else None,
    )
