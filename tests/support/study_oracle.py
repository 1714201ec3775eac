"""A study calculated again by hand from its outcomes, slowly and plainly."""

from __future__ import annotations

import copy
import math
import re
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from max_statistic import step_down
from torch import nn

import spurious_memorization as sm
from spurious_memorization.statistics.contrast import contrast_p
from spurious_memorization.statistics.damage import DamageMatched, SetEffects, damage_matched
from spurious_memorization.statistics.sample_effects import SampleEffects
from spurious_memorization.statistics.selectivity import GroupEffects, Selectivity, selectivity
from spurious_memorization.statistics.verdicts import answer_questions

SMALL = {"criterion": ("weight_norm", "gradient"), "size": ("1..2",), "controls": 3, "split": ("train", "test")}
MEAN, REWIND, NOISE = "mean", "rewind:epochs=2", "random_noise:std=0.5"
MINORITY = ("class 0 with color 1", "class 1 with color 0")


THIRD = {
    "damage": "damage",
    "damage_ratio": "damage_ratio",
    "matched_drop": "drop",
    "p_localized": "p_localized",
    "contrast": "contrast",
    "matched_contrast": "contrast_matched",
    "p_memorizing": "p_memorizing",
}
"""Columns of the third question."""


def small(**changes: Any) -> sm.StudySettings:
    return sm.StudySettings(**{**SMALL, **changes})


def edited_by_hand(run: sm.Run, row: Any, means: dict[str, torch.Tensor]) -> nn.Module:
    network = copy.deepcopy(run.network(3))
    older = run.network(1)
    for unit in row.units.split(","):
        name, index = unit.split(":")
        layer, i = getattr(network, name), int(index)
        with torch.no_grad():
            if row.kind == "rewind":
                layer.weight[i] = getattr(older, name).weight[i]
            else:
                layer.weight[i] = 0
            if row.kind == "mean" and layer.bias is None:
                layer.bias = nn.Parameter(torch.zeros(len(layer.weight)))
            if layer.bias is not None:
                put = {"zero": 0.0, "mean": means[name][i], "rewind": getattr(older, name).bias}[row.kind]
                layer.bias[i] = put[i] if row.kind == "rewind" else put
    return network


def means_by_hand(network: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        first = network.conv1(x)
        second = network.conv2(network.relu1(network.bn1(first)))
    return {"conv1": first.mean((0, 2, 3)), "conv2": second.mean((0, 2, 3))}


def every_outcome(study: sm.Study, split: str) -> pd.DataFrame:
    """Outcomes of all parts of a split, with the part's name, without the round in which it was drawn."""
    files = [file.name for file in (study.path / "outcomes").glob(f"{split}_*.parquet")]
    name_of_part = re.compile(rf"{split}_(\w+?)(_set_\d+)?(_round_\d+)?_\d+\.parquet")
    parts = {match[1] for name in files if (match := name_of_part.fullmatch(name))}
    return pd.concat([study.outcomes(split, part).assign(part=part) for part in sorted(parts)], ignore_index=True)


def measured_halves(variants: pd.DataFrame) -> dict[int, set[int]]:
    """Halves of the samples on which each variant must be measured: selected units on those that they were not
    selected on, null sets where the set for which they stand is, and random sets of any size on both."""
    return {row.variant: {0, 1} if row.fold == -1 else {1 - row.fold} for row in variants.itertuples()}


class Tables(NamedTuple):
    """Whether each variant (column) is right about each sample of a split (row), and its margin; nan where it was not
    measured. Variant -1 is the unedited network."""

    samples: sm.Samples
    right: pd.DataFrame
    margin: pd.DataFrame
    used: np.ndarray


def tables_of(study: sm.Study, data: sm.Dataset, per_group: int | None) -> dict[str, Tables]:
    found = {}
    seed = study.record["settings"]["seed"]
    for split in study.record["settings"]["split"]:
        samples = data.samples(split)
        outcomes = every_outcome(study, split).drop_duplicates(["variant", "sample"])
        outcomes["right"] = outcomes["predicted"] == data.y[outcomes["sample"]]
        right, margin = (
            outcomes.pivot(index="sample", columns="variant", values=name).loc[samples.index].astype(float)
            for name in ("right", "margin")
        )
        used = samples.index if per_group is None else samples.per_group(per_group, seed).index
        found[split] = Tables(samples, right, margin, np.isin(samples.index, used))
    return found


class Effect(NamedTuple):
    """What an edit does to each sample: how far accuracy and margin fall, and the square of the latter."""

    drop: np.ndarray
    margin_drop: np.ndarray
    square: np.ndarray


def effect_of(rows: pd.DataFrame, tables: Tables, halves: np.ndarray) -> Effect:
    """The mean over the repeats of variants, each on the samples on which its units were not selected."""
    found = Effect(*np.full((3, len(tables.samples)), np.nan))
    for fold, repeats in rows.groupby("fold"):
        here = (halves[tables.samples.index] == 1 - fold) | (fold == -1)
        variants = [variant for variant in repeats["variant"] if variant in tables.right]
        if not variants:
            continue
        right, margin = (table[here] for table in (tables.right, tables.margin))
        fell = (margin[[-1]].to_numpy() - margin[variants]).to_numpy()
        found.drop[here] = right[-1] - right[variants].mean(axis=1)
        found.margin_drop[here] = fell.mean(axis=1)
        found.square[here] = (fell**2).mean(axis=1)
    return found


class ByHand(NamedTuple):
    """What a study's outcomes say about one selected set on one split."""

    tested: Effect
    shown: Effect
    null: dict[int, list[float]]  # drop under each null set, by group
    log_norms: list[float]  # of the set and of each null set


def rows_of(study: sm.Study, selected_set: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Variants of a set: those from which verdicts follow, those that are shown, and its null sets."""
    variants = study.variants()
    rows = variants[(variants["selected_set"] == selected_set) & (variants["family"] == "selected")]
    shown, own = rows[rows["fold"] == -1], rows.iloc[0]
    tested = rows[rows["pool"] >= 0] if (rows["pool"] >= 0).any() else shown
    null = variants[(variants["family"] == "random") & (variants["pool"] == tested["pool"].iloc[0])]
    for name in ("size", "kind", "parameters"):
        null = null[null[name] == own[name]]
    return tested, shown, null


def by_hand(study: sm.Study, tables: Tables, selected_set: int, halves: np.ndarray, n_groups: int) -> ByHand:
    tested, shown, null = rows_of(study, selected_set)
    found: dict[int, list[float]] = {g: [] for g in range(n_groups)}
    norms = [float(tested["log_norm"].mean())]
    for _, of_control in null[null["variant"].isin(tables.right.columns)].groupby("control"):
        drop = effect_of(of_control, tables, halves).drop
        for g, drops in found.items():
            here = tables.used & (tables.samples.g == g)
            drops.append(drop[here].mean() if here.any() else np.nan)
        norms.append(float(of_control["log_norm"].mean()))
    return ByHand(effect_of(tested, tables, halves), effect_of(shown, tables, halves), found, norms)


def beside_by_hand(
    study: sm.Study, of_splits: dict[str, Tables], selected_set: int, halves: np.ndarray
) -> list[dict[str, Effect]]:
    """For each split, what a selected set does (first), and what each random set of any size beside it does."""
    variants = study.variants()
    beside = variants[(variants["family"] == "damage") & (variants["selected_set"] == selected_set)]
    every = [rows_of(study, selected_set)[0], *(rows for _, rows in beside.groupby("control"))]
    return [{split: effect_of(rows, tables, halves) for split, tables in of_splits.items()} for rows in every]


def disturbance(data: sm.Dataset, of_splits: dict[str, Tables], of_set: dict[str, Effect]) -> float:
    """Root mean square of the margin change on majority and unseen samples."""
    squares = []
    for name, of in of_set.items():
        tables = of_splits[name]
        disturbed = tables.used & (np.isin(tables.samples.g, data.majority) | (name != "train"))
        squares += of.square[disturbed].tolist()
    return math.sqrt(np.mean(squares))


def damage_by_hand(
    data: sm.Dataset, of_splits: dict[str, Tables], every: list[dict[str, Effect]], group: int, split: str
) -> DamageMatched | None:
    """The third question, from the damage of each set; None where it was not asked."""
    effects = []
    for of_set in every:
        fell, drops = {True: [], False: []}, []
        for name, tables in of_splits.items():
            of = of_set[name]
            here = tables.used & (tables.samples.g == group)
            fell[name == "train"] += of.margin_drop[here].tolist()
            if name == split:
                drops += of.drop[here].tolist()
        contrast = np.mean(fell[True]) - np.mean(fell[False]) if fell[True] and fell[False] else np.nan
        effects.append((disturbance(data, of_splits, of_set), np.mean(drops), contrast))
    own, random = (
        SetEffects(damage=part[:, 0], drop=part[:, 1], contrast=part[:, 2]) for part in np.split(np.array(effects), [1])
    )
    return damage_matched(own, random) if len(every) > 1 else None


def contrast_by_hand(
    data: sm.Dataset, of_splits: dict[str, Tables], of_set: dict[str, Effect], halves: np.ndarray, group: int, seed: int
) -> float:
    """The p-value of the contrast of a set, on all samples of a group. Units given by name have one half."""
    parts: dict[bool, list[tuple[int, float]]] = {True: [], False: []}
    for name, tables in of_splits.items():
        here = (tables.samples.g == group) & ~np.isnan(of_set[name].margin_drop)
        fell = zip(tables.samples.index[here].tolist(), of_set[name].margin_drop[here].tolist(), strict=True)
        parts[name == "train"] += list(fell)
    of_groups = []
    for is_train in (True, False):
        index, drop = np.array(sorted(parts[is_train]) or np.zeros((0, 2))).T
        zeros = np.zeros(len(index))
        of_groups.append(
            SampleEffects(
                index=index.astype(int),
                half=halves[index.astype(int)],
                accuracy_change=zeros,
                margin_before=zeros,
                margin_change=-drop,
            )
        )
    return contrast_p(*of_groups, seed=seed)


def selectivity_by_hand(
    study: sm.Study, data: sm.Dataset, tables: Tables, family: list[int]
) -> dict[int, list[Selectivity]]:
    """The second question, for all sets of a family and all minority groups at once."""
    halves, seed = data.halves(study.record["settings"]["seed"]), study.record["settings"]["seed"]
    tested = [rows_of(study, number)[0] for number in family]
    effects = [effect_of(rows, tables, halves) for rows in tested]
    samples, compared = tables.samples, {}
    half = halves[samples.index] if (tested[0]["fold"] >= 0).all() else np.zeros(len(samples), int)
    for group in [g for g in data.minority if (samples.g == g).any()]:
        label = data.groups.label_of(group)
        majority = [g for g in data.majority if data.groups.label_of(g) == label]
        asked = (samples.g == group) | np.isin(samples.g, majority)
        compared[group] = GroupEffects(
            is_minority=samples.g[asked] == group,
            half=half[asked],
            margin_before=tables.margin[-1].to_numpy()[asked],
            accuracy_change=np.array([-of.drop[asked] for of in effects]),
            margin_change=np.array([-of.margin_drop[asked] for of in effects]),
        )
    return dict(zip(compared, selectivity(list(compared.values()), seed=seed), strict=True)) if compared else {}


def check_effects(study: sm.Study, data: sm.Dataset, *, per_group: int | None = None) -> None:
    """Every column of effects.parquet from the outcomes alone: p by counting, the adjusted one by a plain loop."""
    seed = study.record["settings"]["seed"]
    effects, halves = study.effects(), data.halves(seed)
    of_splits = tables_of(study, data, per_group)
    beside = {n: beside_by_hand(study, of_splits, n, halves) for n in effects["selected_set"].unique().tolist()}
    family = ["criterion", "traced_on", "kind", "parameters", "split"]
    for (*_, split), rows in effects.groupby(family, dropna=False):
        tables, numbers = of_splits[split], rows["selected_set"].unique().tolist()
        hand = {number: by_hand(study, tables, number, halves, len(data.groups)) for number in numbers}
        groups = tables.samples.g
        inside = [tables.used & (groups == row.group) for row in rows.itertuples()]
        drops = [
            hand[row.selected_set].tested.drop[where].mean() if where.any() else np.nan
            for row, where in zip(rows.itertuples(), inside, strict=True)
        ]
        null = [hand[row.selected_set].null[row.group] for row in rows.itertuples()]
        n = min(map(len, null))
        values = np.array([[drop, *of[:n]] for drop, of in zip(drops, null, strict=True)]).T
        norms = np.array([hand[row.selected_set].log_norms[: n + 1] for row in rows.itertuples()]).T
        asked = [q for q in range(len(rows)) if not np.isnan(values[:, q]).any()]
        adjusted, beyond = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
        if n and asked:
            left = [rest_of_line(x, y) for x, y in zip(norms[:, asked].T, values[:, asked].T, strict=True)]
            adjusted[asked] = step_down(values[0, asked], values[1:, asked])
            beyond[asked] = step_down(np.array(left)[:, 0], np.array(left)[:, 1:].T)
        second = selectivity_by_hand(study, data, tables, numbers)
        for place, row in enumerate(rows.itertuples()):
            own, member, drop = hand[row.selected_set], groups == row.group, drops[place]
            assert row.accuracy_change == pytest.approx(-own.shown.drop[member].mean())
            assert row.margin_change == pytest.approx(-own.shown.margin_drop[member].mean(), abs=1e-5)
            assert row.tested_accuracy_change == pytest.approx(-drop)
            assert row.n == member.sum()
            assert row.n_controls == len(null[place])
            if n:
                assert (-row.control_high, -row.control_low) == pytest.approx((min(null[place]), max(null[place])))
                as_large = sum(value >= drop - 1e-9 for value in null[place])
                assert row.n_controls_as_large == as_large
                assert row.p == pytest.approx((1 + as_large) / (1 + n))
                assert (row.p_adjusted, row.p_beyond_norm) == pytest.approx((adjusted[place], beyond[place]))
            else:
                assert all(math.isnan(p) for p in (row.p, row.p_adjusted, row.p_beyond_norm))
            chosen = second[row.group][numbers.index(row.selected_set)] if row.group in second else None
            recorded = (row.difference, row.p_selective, row.p_selective_margin, row.majority_change, row.overlap)
            expected = (
                (chosen.difference, chosen.p, chosen.p_margin, chosen.majority_change, chosen.overlap)
                if chosen
                else (math.nan,) * 5
            )
            assert recorded == pytest.approx(expected, nan_ok=True)
            every = beside[row.selected_set]
            third = damage_by_hand(data, of_splits, every, row.group, split) if chosen else None
            for column, name in THIRD.items():
                expected = getattr(third, name) if third else math.nan
                assert getattr(row, column) == pytest.approx(expected, nan_ok=True, abs=1e-5), column
            assert row.n_damage_matched == (third.n if third else 0)
            p_contrast = contrast_by_hand(data, of_splits, every[0], halves, row.group, seed) if third else math.nan
            assert row.p_contrast == pytest.approx(p_contrast, nan_ok=True, abs=1e-3)
            told = answer_questions(
                -drop,
                max(adjusted[place], beyond[place]),
                n_controls=n,
                selective=chosen,
                damage=third,
                p_contrast=row.p_contrast,
            )
            words = (row.influential, row.selective, row.localized, row.memorizing, row.verdict)
            assert words == (told.influential, told.selective, told.localized, told.memorizing, told.verdict)
            assert told.reason in row.reason or "two halves of the group" in row.reason
            assert row.reason or (row.verdict != "no verdict" and (row.selective is not None or not row.minority))


def rest_of_line(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """What a least-squares fit of a straight line leaves."""
    return y - (np.polyval(np.polyfit(x, y, 1), x) if np.ptp(x) > 1e-4 else y.mean())


def same(one: sm.Study, two: sm.Study) -> None:
    pd.testing.assert_frame_equal(one.variants(), two.variants())
    pd.testing.assert_frame_equal(one.results(), two.results())
    pd.testing.assert_frame_equal(one.effects(), two.effects())
