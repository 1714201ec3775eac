"""A study calculated again by hand from its outcomes, slowly and plainly."""

from __future__ import annotations

import copy
import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from max_statistic import step_down
from torch import nn

import spurious_memorization as sm
from spurious_memorization.statistics.intervals import difference_of_means
from spurious_memorization.statistics.permutation import selectivity
from spurious_memorization.statistics.verdicts import answer_questions

SMALL = {"criterion": ("weight_norm", "gradient"), "size": ("1..2",), "controls": 3, "split": ("train", "test")}
MEAN, REWIND, NOISE = "mean", "rewind:epochs=2", "random_noise:std=0.5"
MINORITY = ("class 0 with color 1", "class 1 with color 0")


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
    """Outcomes of all parts of a split, with the part's name."""
    files = (study.path / "outcomes").glob(f"{split}_*_00000.parquet")
    parts = sorted(file.name.removeprefix(f"{split}_").removesuffix("_00000.parquet") for file in files)
    return pd.concat([study.outcomes(split, part).assign(part=part) for part in parts], ignore_index=True)


def measured_halves(variants: pd.DataFrame) -> dict[int, set[int]]:
    """Halves of the samples on which each variant must be measured: selected units on those that they were not
    selected on, controls where one of the sets that they are compared with is."""
    selected = variants[variants["family"] == "selected"]
    own = {row.variant: {0, 1} if row.fold == -1 else {1 - row.fold} for row in selected.itertuples()}
    of_pool: dict[int, set[int]] = {}
    for row in selected[selected["pool"] >= 0].itertuples():
        of_pool.setdefault(row.pool, set()).update(own[row.variant])
    controls = variants[variants["family"] == "random"]
    return own | {row.variant: of_pool[row.pool] for row in controls.itertuples()}


class ByHand(NamedTuple):
    """What a study's outcomes say about one selected set on one split: drops and margins of samples by units that were
    selected without them, and the drop of each control on each group."""

    drop: np.ndarray
    margin: np.ndarray
    margin_drop: np.ndarray
    shown: np.ndarray
    controls: dict[int, list[float]]


def by_hand(study: sm.Study, data: sm.Dataset, selected_set: int, split: str, used: np.ndarray | None) -> ByHand:
    """Arguments: `used`: samples on which controls were measured; all if not given."""
    variants, samples = study.variants(), data.samples(split)
    halves = data.halves(study.record["settings"]["seed"])
    outcomes = every_outcome(study, split)
    outcomes["right"] = outcomes["predicted"] == data.y[outcomes["sample"]]
    tables = {
        name: outcomes.drop_duplicates(["variant", "sample"]).pivot(index="sample", columns="variant", values=name)
        for name in ("right", "margin")
    }
    right, margin = (tables[name].loc[samples.index].astype(float) for name in tables)
    rows = variants[variants["selected_set"] == selected_set]
    tested = rows[rows["pool"] >= 0] if (rows["pool"] >= 0).any() else rows[rows["fold"] == -1]
    drop, margin_drop = np.full(len(samples), np.nan), np.full(len(samples), np.nan)
    for fold, repeats in tested.groupby("fold"):
        here = (halves[samples.index] == 1 - fold) | (fold == -1)
        drop[here] = right[-1][here] - right[repeats["variant"]][here].mean(axis=1)
        margin_drop[here] = margin[-1][here] - margin[repeats["variant"]][here].mean(axis=1)
    pools = {fold: repeats["pool"].iloc[0] for fold, repeats in tested.groupby("fold")}
    own = rows.iloc[0]
    of_pool = {}
    for fold, pool in pools.items():
        chosen = variants[(variants["family"] == "random") & (variants["pool"] == pool)]
        chosen = chosen[(chosen["size"] == own["size"]) & (chosen["kind"] == own["kind"])]
        chosen = chosen[chosen["parameters"] == own["parameters"]]
        chosen = chosen[chosen["variant"].isin(right.columns)]
        of_pool[fold] = {k: repeats["variant"].tolist() for k, repeats in chosen.groupby("control")}
    complete = set.intersection(*(set(controls) for controls in of_pool.values()))
    found: dict[int, list[float]] = {g: [] for g in range(len(data.groups))}
    inside = np.ones(len(samples), bool) if used is None else np.isin(samples.index, used)
    for k in sorted(complete):
        of_control = np.full(len(samples), np.nan)
        for fold in pools:
            here = ((halves[samples.index] == 1 - fold) | (fold == -1)) & inside
            of_control[here] = right[-1][here] - right[of_pool[fold][k]][here].mean(axis=1)
        for g, drops in found.items():
            here = inside & (samples.g == g)
            drops.append(of_control[here].mean() if here.any() else np.nan)
    shown = right[-1] - right[rows.loc[rows["fold"] == -1, "variant"]].mean(axis=1)
    return ByHand(drop, margin[-1].to_numpy(), margin_drop, shown.to_numpy(), found)


def check_effects(study: sm.Study, data: sm.Dataset, *, per_group: int | None = None) -> None:
    """Every column of effects.parquet from the outcomes alone: p by counting, the adjusted one by a plain loop."""
    effects, seed = study.effects(), study.record["settings"]["seed"]
    halves = data.halves(seed)
    splits = effects["split"].unique().tolist()
    family = ["criterion", "traced_on", "kind", "parameters", "split"]
    for (*_, split), rows in effects.groupby(family, dropna=False):
        samples = data.samples(split)
        used = samples.index if per_group is None else samples.per_group(per_group, seed).index
        hand = {number: by_hand(study, data, number, split, used) for number in rows["selected_set"].unique()}
        drops, nulls = [], []
        for row in rows.itertuples():
            own, member = hand[row.selected_set], samples.g == row.group
            inside = member & np.isin(samples.index, used)
            drops.append(own.drop[inside].mean() if inside.any() else np.nan)
            nulls.append(own.controls[row.group])
        least = min(map(len, nulls))
        asked = [q for q, drop in enumerate(drops) if not np.isnan([drop, *nulls[q][:least]]).any()]
        adjusted = np.full(len(rows), np.nan)
        if least:
            null_drops = np.array([nulls[q][:least] for q in asked]).T
            adjusted[asked] = step_down(np.array(drops)[asked], null_drops)
        for row, drop, null, p_adjusted in zip(rows.itertuples(), drops, nulls, adjusted, strict=True):
            own, member = hand[row.selected_set], samples.g == row.group
            assert row.accuracy_change == pytest.approx(-own.shown[member].mean())
            assert row.tested_accuracy_change == pytest.approx(-drop)
            assert row.n == member.sum()
            assert row.n_controls == len(null)
            if null:
                assert (-row.control_high, -row.control_low) == pytest.approx((min(null), max(null)))
                as_large = sum(value >= drop - 1e-9 for value in null[:least])
                assert row.n_controls_as_large == sum(value >= drop - 1e-9 for value in null)
                assert row.p == pytest.approx((1 + as_large) / (1 + least))
                assert row.p_adjusted == pytest.approx(p_adjusted)
            else:
                assert math.isnan(row.p)
                assert math.isnan(row.p_adjusted)
            chosen = contrast = None
            if row.group in data.minority:
                label = data.groups.label_of(row.group)
                majority = [g for g in data.majority if data.groups.label_of(g) == label]
                asked = member | np.isin(samples.g, majority)
                is_halved = (study.variants().query("selected_set == @row.selected_set")["fold"] >= 0).any()
                half = halves[samples.index][asked] if is_halved else np.zeros(asked.sum(), int)
                chosen = selectivity(-own.drop[asked], member[asked], own.margin[asked], half, seed=seed)
                recorded = (row.difference, row.p_selective, row.overlap)
                assert recorded == pytest.approx((chosen.difference, chosen.p, chosen.overlap), nan_ok=True)
            if split == "train":
                new = [
                    by_hand(study, data, row.selected_set, other, None).margin_drop[data.samples(other).g == row.group]
                    for other in splits
                    if other != "train"
                ]
                contrast = difference_of_means(own.margin_drop[member], np.concatenate([[], *new]))
                recorded = (row.contrast, row.contrast_low, row.contrast_high)
                assert recorded == pytest.approx((contrast.value, contrast.low, contrast.high), nan_ok=True, abs=1e-5)
                assert row.n_unseen == contrast.n_second
            else:
                assert math.isnan(row.contrast)
            told = answer_questions(
                -drop,
                row.p_adjusted,
                n_controls=row.n_controls,
                norm_ratio=row.norm_ratio,
                selective=chosen,
                contrast=contrast,
            )
            words = (row.influential, row.selective, row.memorizing, row.verdict)
            assert words == (told.influential, told.selective, told.memorizing, told.verdict)
            assert told.reason in row.reason or "two halves of the group" in row.reason
            assert row.reason or (row.verdict != "no verdict" and (row.selective is not None or not row.minority))


def same(one: sm.Study, two: sm.Study) -> None:
    pd.testing.assert_frame_equal(one.variants(), two.variants())
    pd.testing.assert_frame_equal(one.results(), two.results())
    pd.testing.assert_frame_equal(one.effects(), two.effects())
