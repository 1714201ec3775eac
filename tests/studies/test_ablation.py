"""Ablation: compared with networks edited by hand, stored and resumed in a run, and screened."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch

import spurious_memorization as sm
from spurious_memorization.studies import ablation_map as ablation_module
from spurious_memorization.studies import store as store_module
from spurious_memorization.studies.ablation_map import stored_ablation_map, with_others_of_label
from spurious_memorization.studies.ranking_settings import RankingSettings
from spurious_memorization.studies.store import FolderStore

MINORITY = ("class 0 with color 1", "class 1 with color 0")


@pytest.fixture
def run(trained: sm.Run, tmp_path: Path) -> sm.Run:
    return tiny.copied(trained, tmp_path / "run")


@pytest.fixture
def data(squares: Path) -> sm.Dataset:
    return sm.read_data(squares)


def by_hand(model: torch.nn.Module, samples: sm.Samples, unit: str) -> tuple[np.ndarray, np.ndarray]:
    """Correct answers and margins of the network without one channel."""
    batch = samples.batch()
    with torch.no_grad():
        output = sm.edits.edited(model, sm.edits.zero(sm.parse_units(model, unit))).eval()(batch.inputs).double()
    true = output[torch.arange(len(batch.y)), batch.y]
    other = output[torch.arange(len(batch.y)), 1 - batch.y]
    return (output.argmax(1) == batch.y).numpy(), (true - other).numpy()


def test_the_map_is_what_networks_edited_by_hand_answer(run: sm.Run, data: sm.Dataset) -> None:
    model = run.network(3).eval()
    frame = sm.ablation_map(model, data.train)
    per_group = frame.set_index(["tensor", "index", "group"])
    batch = data.train.batch()
    with torch.no_grad():
        before = model(batch.inputs).argmax(1).numpy() == data.train.y
    channels = [(name, i) for name, p in model.named_parameters() if p.ndim == 4 for i in range(len(p))]
    assert len(frame) == len(frame.drop_duplicates(["tensor", "index"])) * 4
    assert {(t, i) for t, i, _ in per_group.index} == set(channels)
    for name, index in channels[::3]:
        right, margins = by_hand(model, data.train, f"{name}:{index}")
        for g, group in enumerate(data.groups.names):
            row, here = per_group.loc[(name, index, group)], data.train.g == g
            assert row["n"] == here.sum()
            assert row["correct_before"] == before[here].sum()
            assert row["correct_after"] == right[here].sum()
            assert row["accuracy_change"] == pytest.approx((right[here].sum() - before[here].sum()) / here.sum())
            np.testing.assert_allclose(row["margin_after"] / row["n"], margins[here].mean(), rtol=1e-4, atol=1e-5)
    assert frame["margin_change"].abs().max() > 0.01


def test_the_criterion_is_the_drop_of_the_mean_margin(run: sm.Run, data: sm.Dataset) -> None:
    model = run.network(3).eval()
    group = data.train.of_group(MINORITY[0])
    scores = sm.ablation(model, group)
    frame = sm.ablation_map(model, group)
    drops = frame.set_index(["tensor", "index"])["margin_change"]
    for (name, index), drop in drops.items():
        assert float(scores[name][index]) == pytest.approx(-drop, abs=1e-5)
    best = drops.idxmin()
    assert list(sm.top(scores, 1)) == [best]
    from_batch = sm.ablation(model, group.batch())
    assert all(torch.allclose(from_batch[name], scores[name], atol=1e-5) for name in scores)


@pytest.mark.slow
def test_heads_and_chosen_tensors() -> None:
    torch.manual_seed(0)
    from spurious_memorization.networks.build import NetworkSettings, build

    model = build(NetworkSettings(model="deit_tiny", n_classes=2, image_size=32))
    data = sm.from_tensors(torch.randn(6, 3, 32, 32), np.arange(6) % 2, np.zeros(6, int))
    heads = sm.ablation_map(model, data.train, select=sm.Selection(unit="head"))
    assert len(heads.drop_duplicates(["tensor", "index"])) == 12 * 3
    some = sm.ablation_map(model, data.train, select=sm.Selection(tensors=("blocks.3.attn.proj",)))
    assert set(some["tensor"]) == {"blocks.3.attn.proj.weight"}
    assert len(some.drop_duplicates("index")) == 192


@pytest.mark.slow
def test_screening_says_what_it_leaves_out(run: sm.Run, data: sm.Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    model = run.network(3)
    whole = sm.ablation_map(model, data.train).set_index(["tensor", "index", "group"])
    screened = sm.ablation_map(model, data.train, screen=4)
    first = list(sm.top(sm.criteria.taylor(model, data.train), 4))
    assert list(screened.drop_duplicates(["tensor", "index"])[["tensor", "index"]].itertuples(index=False)) == first
    for row in screened.itertuples():
        assert row.correct_after == whole.loc[(row.tensor, row.index, row.group)]["correct_after"]
    scores = sm.ablation(model, data.train, screen=4)
    assert scores.n_measured == 4
    with pytest.raises(sm.UserError, match=r"size 5: only 4 channels were measured: leave fewer out with --screen"):
        sm.top(scores, 5)
    said = tiny.spurmem(capsys, "trace", run.path, "--criterion", "ablation", "--screen", "4", "--show", "9")
    n = sm.criteria.weight_norm(model).n
    assert said.status == 0
    assert f"the first 4 of {n} channels by taylor; {n - 4} left out" in said.err
    (record,) = run.path.glob("ablations/*/ablation.json")
    assert json.loads(record.read_text())["left_out"] == n - 4


def test_single_weights_of_a_whole_network_are_errors(data: sm.Dataset) -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 1500), torch.nn.Linear(1500, 2))
    with pytest.raises(sm.UserError, match=r"an ablation of 1152000 weights would take as many edited networks: give"):
        sm.ablation_map(model, data.train, select=sm.Selection(unit="weight"))
    frame = sm.ablation_map(model, data.train, select=sm.Selection(unit="weight"), screen=3)
    assert len(frame.drop_duplicates("index")) == 3


def test_samples_are_the_groups_and_as_many_others_of_their_labels(data: sm.Dataset) -> None:
    chosen = with_others_of_label(data.train, MINORITY, seed=0)
    counts = np.bincount(chosen.g, minlength=4)
    assert counts.tolist() == [4, 4, 4, 4]
    assert np.bincount(data.train.g).tolist() == [16, 4, 4, 16]
    one = with_others_of_label(data.train, MINORITY[:1], seed=0)
    assert np.bincount(one.g, minlength=4).tolist() == [4, 4, 0, 0]
    every = with_others_of_label(data.train, data.groups.names, seed=0)
    assert len(every) == len(data.train)
    assert not np.array_equal(chosen.index, with_others_of_label(data.train, MINORITY, seed=1).index)


@pytest.mark.slow
def test_trace_stores_map_and_rankings_and_a_study_reads_them(
    run: sm.Run, data: sm.Dataset, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = tiny.spurmem(capsys, "--json", "trace", run.path, "--criterion", "ablation")
    rankings = json.loads(said.out)["rankings"]
    assert [r["ranking"]["group"] for r in rankings] == list(MINORITY)
    frame = pd.read_parquet(rankings[0]["map"])
    assert rankings[0]["map"] == rankings[1]["map"]
    assert set(frame["group"]) == set(data.groups.names)
    for r in rankings:
        here = frame[frame["group"] == r["ranking"]["group"]].sort_values("margin_change")
        assert r["first"][0]["score"] == pytest.approx(-here["margin_change"].iloc[0], abs=1e-6)
    monkeypatch.setattr(ablation_module, "engine_for", lambda *_, **__: pytest.fail("measured again"))
    result = sm.study(run, sm.StudySettings(criterion=("ablation",), size=("1",), controls=0, split=("train",)))
    effects = result.effects()
    on_itself = effects[(effects["traced_on"] == MINORITY[0]) & (effects["group_name"] == MINORITY[0])].iloc[0]
    assert on_itself["margin_change"] == pytest.approx(-rankings[0]["first"][0]["score"], abs=1e-5)


@pytest.mark.slow
def test_killed_midway_it_continues(run: sm.Run, data: sm.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    ranking = RankingSettings(criterion="ablation", select=sm.Selection(), epoch=3, ablated_with=MINORITY)
    whole = sm.ablation_map(run.network(3), with_others_of_label(data.train, MINORITY, 0))
    monkeypatch.setattr("spurious_memorization.engine.outcomes.EDITS_PER_BLOCK", 5)

    def child() -> None:
        original, calls = store_module.write_parquet, []

        def last(file: Path, frame: pd.DataFrame) -> None:
            calls.append(file)
            if len(calls) == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            original(file, frame)

        store_module.write_parquet = last
        stored_ablation_map(run.network(3), data, ranking, FolderStore(run.path))

    assert tiny.in_child(child) == -signal.SIGKILL
    (outcomes,) = run.path.glob("ablations/*/outcomes")
    before = {file.name: file.stat().st_mtime_ns for file in outcomes.glob("*.parquet")}
    assert len(before) == 2
    frame = stored_ablation_map(run.network(3), data, ranking, FolderStore(run.path))
    assert all((outcomes / name).stat().st_mtime_ns == time for name, time in before.items())
    counts = ["tensor", "index", "group", "n", "correct_before", "correct_after"]
    pd.testing.assert_frame_equal(frame[counts], whole[counts])
    np.testing.assert_allclose(frame["margin_after"], whole["margin_after"], rtol=1e-4, atol=1e-4)
    pd.testing.assert_frame_equal(stored_ablation_map(run.network(3), data, ranking, FolderStore(run.path)), frame)


def test_without_a_minority_a_group_is_asked_for(
    tmp_path: Path, squares: Path, capsys: pytest.CaptureFixture[str], run: sm.Run
) -> None:
    said = tiny.spurmem(capsys, "trace", run.path, "--criterion", "ablation", "--group", "no such")
    assert "no group 'no such': choose among" in said.error
