"""The plan of a study, and its counts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from study_oracle import (
    MINORITY,
    edited_by_hand,
    every_outcome,
    means_by_hand,
    measured_halves,
)
from torch import nn

import spurious_memorization as sm

pytestmark = pytest.mark.filterwarnings("ignore:all .* samples .* are classified correctly", "ignore:only .* null sets")


def test_the_plan(whole: sm.Study) -> None:
    """Criteria that look at samples select on all samples, to be shown, and on each half, to be tested."""
    variants = whole.variants()
    assert variants["variant"].tolist() == list(range(len(variants)))
    selected = variants[variants["family"] == "selected"]
    folds = selected.groupby(["criterion", "group"], dropna=False)["fold"].unique()
    assert {key: sorted(values) for key, values in folds.items() if key[0] == "gradient"} == {
        ("gradient", group): [-1, 0, 1] for group in MINORITY
    }
    weight_norm = selected[selected["criterion"] == "weight_norm"]
    assert (weight_norm["fold"] == -1).all()
    assert (weight_norm["pool"] >= 0).all()
    assert ((selected["fold"] == -1) == (selected["pool"] == -1))[selected["criterion"] == "gradient"].all()
    # 3 rankings (magnitude; gradient on two minority groups) x 2 sizes x 3 edits
    assert selected["selected_set"].nunique() == 18
    assert len(selected) == 6 + 3 * 12
    assert selected.groupby("selected_set")[["criterion", "size", "kind", "parameters"]].nunique().eq(1).all(axis=None)
    null = variants[variants["family"] == "random"]
    with_pool = selected[selected["pool"] >= 0]
    assert with_pool.groupby("pool")[["criterion", "group"]].nunique().le(1).all(axis=None)  # a ranking has one pool
    assert set(null["pool"]) == set(selected["pool"]) - {-1}
    assert null.groupby(["pool", "size", "kind", "fold"]).size().eq(3).all()
    by_weight_norm = weight_norm["pool"].iloc[0]
    assert null.groupby("pool")["fold"].unique().map(sorted).to_dict() == {
        pool: [-1] if pool == by_weight_norm else [0, 1] for pool in range(3)
    }
    assert len(null) == 2 * 3 * 3 * (1 + 2 * 2)
    assert (null["selected_set"] == -1).all()
    assert set(variants["family"]) == {"selected", "random"}  # no set is influential with 3 null sets
    tested = selected[selected["pool"] >= 0]
    assert variants.loc[[*tested.index, *null.index], "log_norm"].notna().all()
    assert selected.drop(tested.index)["log_norm"].isna().all()


def test_units_are_selected_on_one_half(whole: sm.Study, trained: sm.Run, squares: Path) -> None:
    data, network = sm.read_data(squares), trained.network(3)
    for row in whole.variants().query("family == 'selected' and kind == 'zero'").itertuples():
        if row.criterion == "weight_norm":
            scores = sm.criteria.weight_norm(network)
        else:
            samples = data.train.of_half(None if row.fold == -1 else row.fold, 0)
            scores = sm.criteria.gradient(network, sm.hardest_samples(network, samples, row.group, 200))
        assert row.units == str(sm.top(scores, int(row.size)))


def test_results_are_what_edited_copies_of_the_network_answer(whole: sm.Study, trained: sm.Run, squares: Path) -> None:
    data = sm.read_data(squares)
    variants, results = whole.variants(), whole.results()
    halves, where = data.halves(0), measured_halves(whole.variants())
    means = means_by_hand(trained.network(3), data.train.batch().inputs)
    checked = 0
    for split in ("train", "test"):
        samples = data.samples(split)
        batch = samples.batch()
        with torch.no_grad():
            before = trained.network(3)(batch.inputs)
        outcomes = every_outcome(whole, split)
        for row in variants.itertuples():
            with torch.no_grad():
                after = edited_by_hand(trained, row, means)(batch.inputs)
            stored = outcomes[outcomes["variant"] == row.variant]
            half = sorted(where[row.variant])
            assert stored["part"].unique().tolist() == [f"{row.family}_{half[0]}" if len(half) == 1 else row.family]
            measured = np.isin(halves[samples.index], half)
            assert stored["sample"].tolist() == samples.index[measured].tolist()
            losses = nn.functional.cross_entropy(after, batch.y, reduction="none").numpy()
            np.testing.assert_allclose(stored["loss"], losses[measured], atol=1e-4, rtol=1e-4)
            counts = results[(results["variant"] == row.variant) & (results["split"] == split)]
            assert counts["subset"].unique().tolist() == ["all"]
            counts = counts.set_index(["half", "group"])
            assert sorted({h for h, _ in counts.index}) == half
            right_before, right_after = ((out.argmax(1) == batch.y).numpy() for out in (before, after))
            for h, group in counts.index:
                here = (samples.g == group) & (halves[samples.index] == h)
                recorded = counts.loc[(h, group)]
                assert recorded["n"] == here.sum()
                assert recorded["correct_before"] == right_before[here].sum()
                assert recorded["correct_after"] == right_after[here].sum()
                assert recorded["became_wrong"] == (right_before & ~right_after)[here].sum()
                assert recorded["became_right"] == (~right_before & right_after)[here].sum()
                assert recorded["loss_after"] == pytest.approx(losses[here].sum(), rel=1e-3, abs=1e-3)
                checked += 1
    assert checked == sum(map(len, where.values())) * 2 * 4 == len(results)
    assert (results["correct_after"] != results["correct_before"]).any()


QUERIES = """
import sys, duckdb, polars as pl
counts, samples, *files = sys.argv[1:]
samples = pl.read_parquet(samples)
outcomes = pl.scan_parquet(files).filter(pl.col("variant") >= 0).join(samples.lazy(), on="sample")
right = (pl.col("predicted") == pl.col("y")).sum()
outcomes.group_by("variant", "half", "group").agg(n=pl.len(), correct_after=right).collect(engine="streaming") \
    .write_parquet(counts + "/polars.parquet")
duckdb.sql(
    "SELECT variant, half, \\"group\\", count(*) AS n, count(*) FILTER (predicted = y) AS correct_after "
    "FROM read_parquet($files) JOIN samples USING (sample) WHERE variant >= 0 GROUP BY ALL", params={"files": files}
).write_parquet(counts + "/duckdb.parquet")
"""
"""They run in a process of their own, since both libraries start threads."""


@pytest.mark.parametrize("split", ["train", "test"])
def test_other_programs_count_the_same(split: str, whole: sm.Study, squares: Path, tmp_path: Path) -> None:
    data = sm.read_data(squares)
    samples = {"sample": np.arange(len(data)), "y": data.y, "group": data.g, "half": data.halves(0)}
    pd.DataFrame(samples).to_parquet(tmp_path / "samples.parquet")
    files = whole.outcome_files(split)
    command = [sys.executable, "-W", "error", "-c", QUERIES, tmp_path, tmp_path / "samples.parquet", *files]
    subprocess.run(command, check=True)
    keys, columns = ["variant", "half", "group"], ["n", "correct_after"]
    results = whole.results().query("split == @split").set_index(keys)[columns].sort_index()
    for library in ("polars", "duckdb"):
        counted = pd.read_parquet(tmp_path / f"{library}.parquet").set_index(keys)[columns].sort_index()
        assert counted.index.equals(results.index), library
        assert (counted == results).all(axis=None), library


def test_files_of_outcomes_are_those_of_a_part(whole: sm.Study) -> None:
    parts = ("selected", "selected_0", "selected_1", "random", "random_0", "random_1")
    assert sorted(file for part in parts for file in whole.outcome_files("test", part)) == whole.outcome_files("test")
    for part in parts:
        read = pd.concat(map(pd.read_parquet, whole.outcome_files("test", part)), ignore_index=True)
        assert read.equals(whole.outcomes("test", part))
    with pytest.raises(sm.UserError, match=r"has no outcomes of 'damage' on 'test'"):
        whole.outcome_files("test", "damage")
    with pytest.raises(sm.UserError, match=r"has no outcomes on 'val'"):
        whole.outcome_files("val")
