"""Memorization scores of a data folder: which samples networks are trained on, stored answers, resuming, planted
samples."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from scipy.stats import rankdata, spearmanr
from torch.nn.functional import cross_entropy

import spurious_memorization as sm
from spurious_memorization.memorization import scores as scores_module
from spurious_memorization.memorization.subsets import drawn_subset, n_kept, resampled_groups

Capture = pytest.CaptureFixture[str]

QUICK = {**tiny.QUICK, "epochs": 2, "networks": 4, "share": 0.5}


@pytest.fixture(scope="module")
def found(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> sm.MemorizationScores:
    return sm.memorization_scores(
        squares, tmp_path_factory.mktemp("scores") / "scores", sm.MemorizationSettings(**QUICK)
    )


def test_every_group_keeps_its_share_and_every_sample_is_left_out_about_as_often(squares: Path):
    data = sm.read_data(squares)
    groups = resampled_groups(data, minority_only=False)
    parts = [drawn_subset(data, k, share=0.7, seed=3, resampled=groups) for k in range(20)]
    times = np.array([part.split != data.split for part in parts])
    assert not times[:, data.split != "train"].any()
    for group in range(4):
        here = (data.split == "train") & (data.g == group)
        kept = {int((part.split[here] == "train").sum()) for part in parts}
        assert kept == {n_kept(int(here.sum()), 0.7)}
        left_out = times[:, here].sum(0)
        assert np.ptp(left_out) <= 1
        assert left_out.min() > 0
    assert all(part.minority == data.minority for part in parts)
    again = drawn_subset(data, 7, share=0.7, seed=3, resampled=groups)
    assert (again.split == parts[7].split).all()
    assert (drawn_subset(data, 7, share=0.7, seed=4, resampled=groups).split != again.split).any()


@pytest.mark.parametrize(("n", "share", "kept"), [(1, 0.5, 1), (2, 0.01, 1), (2, 0.99, 1), (10, 0.7, 7), (3, 0.9, 2)])
def test_one_sample_is_kept_and_one_is_left_out(n: int, share: float, kept: int):
    assert n_kept(n, share) == kept


def test_scores_are_those_of_networks_trained_by_hand(found: sm.MemorizationScores, squares: Path, tmp_path: Path):
    """A network is that of `train` on a folder that has no other training samples."""
    answers = found.answers(2)
    table = pd.read_csv(squares / "metadata.csv")
    left_out = set(answers.loc[~answers["is_in"], "sample"])
    folder = tmp_path / "part"
    folder.mkdir()
    for name in table["path"]:
        (folder / name).symlink_to(squares / name)
    (folder / "dataset.yaml").write_text((squares / "dataset.yaml").read_text())
    # As samples of another split they keep their index, on which the order of the training depends.
    table.loc[list(left_out), "split"] = "val"
    table.to_csv(folder / "metadata.csv", index=False)
    run = sm.train(folder, tmp_path / "run", sm.TrainSettings(**{**tiny.QUICK, "epochs": 2}, seed=2))
    batch = sm.read_data(squares).train.batch()
    with torch.no_grad():
        p = run.network(2)(batch.inputs).softmax(1)
    of_label = p[torch.arange(len(batch.y)), batch.y]
    np.testing.assert_allclose(answers["p_label"], of_label, atol=1e-5)
    assert answers["correct"].tolist() == (p.argmax(1) == batch.y).tolist()


def test_the_table_of_scores(found: sm.MemorizationScores, squares: Path):
    scores, data = found.scores(), sm.read_data(squares)
    assert scores["sample"].tolist() == data.train.index.tolist()
    assert scores["path"].tolist() == pd.read_csv(squares / "metadata.csv")["path"][data.train.index].tolist()
    answers = [found.answers(k) for k in found.networks()]
    for row in scores.itertuples():
        of_sample = pd.concat([of[of["sample"] == row.sample] for of in answers])
        means = of_sample.groupby("is_in")["correct"].mean()
        assert (row.n_in, row.n_out) == (2, 2)
        assert row.score == pytest.approx(means[True] - means[False])
    groups = found.groups().set_index("group_name")
    for name, of_group in scores.groupby("group_name"):
        assert groups.loc[name, "score"] == pytest.approx(of_group["score"].mean())
        assert groups.loc[name, "memorized"] == pytest.approx((of_group["score"] >= 0.25).mean())
        assert groups.loc[name, "n"] == len(of_group)
        left_one_out = []
        for k in range(len(answers)):
            others = pd.concat([of for i, of in enumerate(answers) if i != k]).query("sample in @of_group['sample']")
            shares = others.groupby(["sample", "is_in"])["correct"].mean().unstack()
            left_one_out.append((shares[True] - shares[False]).mean())
        assert groups.loc[name, "standard_error"] == pytest.approx(np.sqrt(3) * np.std(left_one_out))
    assert groups["minority"].tolist() == [False, True, True, False]


@pytest.mark.slow
def test_a_stopped_call_continues(found: sm.MemorizationScores, squares: Path, tmp_path: Path, monkeypatch):
    settings = sm.MemorizationSettings(**QUICK)
    real = scores_module._answers

    def stopped(*arguments):
        if arguments[3] == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(scores_module, "_answers", stopped)
        with pytest.raises(KeyboardInterrupt):
            sm.memorization_scores(squares, tmp_path / "scores", settings)
    half = sm.MemorizationScores(tmp_path / "scores")
    assert half.networks() == [0, 1]
    first = tiny.contents(half.path)
    whole = sm.memorization_scores(squares, half.path, settings)
    pd.testing.assert_frame_equal(whole.scores(), found.scores())
    assert first.items() <= tiny.contents(half.path).items()
    more = sm.memorization_scores(squares, half.path, settings.model_copy(update={"networks": 5}))
    assert more.networks() == [0, 1, 2, 3, 4]
    pd.testing.assert_frame_equal(more.answers(1), found.answers(1))


@pytest.mark.parametrize("fault", ["broken", "other samples"])
def test_a_broken_file_is_told_before_a_training(
    fault: str, found: sm.MemorizationScores, squares: Path, tmp_path: Path
):
    copy = sm.MemorizationScores(shutil.copytree(found.path, tmp_path / "copy"))
    first, last = (copy.path / "networks" / f"network_{number:03d}.parquet" for number in (0, 3))
    last.unlink()
    if fault == "broken":
        first.write_bytes(first.read_bytes()[:-20])
    else:
        copy.answers(0).iloc[:-1].to_parquet(first)
    with pytest.raises(sm.UserError, match=rf"network_000.parquet (is|has) {fault}"):
        sm.memorization_scores(squares, copy.path, sm.MemorizationSettings(**QUICK))
    assert not last.exists()


def test_a_run_or_a_data_folder_holds_no_scores(trained: sm.Run, squares: Path, tmp_path: Path):
    run, data = tiny.copied(trained, tmp_path / "run"), Path(shutil.copytree(squares, tmp_path / "data"))
    before = tiny.contents(tmp_path)
    for out, name in ((run.path, "checkpoints"), (data, "dataset.yaml")):
        with pytest.raises(sm.UserError, match=rf"is not empty \(it contains {name}\): choose an empty"):
            sm.memorization_scores(data, out, sm.MemorizationSettings(**QUICK))
    assert tiny.contents(tmp_path) == before


@pytest.mark.slow
def test_workers_train_the_same_networks_and_a_lost_one_costs_its_network(
    found: sm.MemorizationScores, squares: Path, tmp_path: Path, monkeypatch, capsys: Capture
):
    monkeypatch.setenv("ENDS_ONE_WORKER", str(tmp_path / "has_ended"))
    settings = sm.MemorizationSettings(**{**QUICK, "model": "pieces:convnet_that_ends_one_worker"})
    execution = sm.TrainingsExecution(on="processes:2")
    again = sm.memorization_scores(squares, tmp_path / "scores", settings, execution=execution)
    said = capsys.readouterr().err
    assert said.count("a worker is lost") == 1
    assert said.count(" is done, ") == 4
    for number in found.networks():
        pd.testing.assert_frame_equal(again.answers(number), found.answers(number), check_exact=True)


def test_other_settings_and_broken_files_are_refused(found: sm.MemorizationScores, squares: Path, tmp_path: Path):
    with pytest.raises(sm.UserError, match=r"was made with settings.share = 0.5, not 0.6"):
        sm.memorization_scores(squares, found.path, sm.MemorizationSettings(**{**QUICK, "share": 0.6}))
    with pytest.raises(sm.UserError, match="holds no memorization scores"):
        _ = sm.MemorizationScores(tmp_path).record
    with pytest.raises(sm.UserError, match=r"samples.parquet does not exist: run `spurmem memorization` again"):
        sm.MemorizationScores(tmp_path).scores()
    (tmp_path / "memorization.json").write_text("{}")
    with pytest.raises(sm.UserError, match=r"memorization.json is broken"):
        _ = sm.MemorizationScores(tmp_path).record
    copy = tmp_path / "copy"
    for name, content in tiny.contents(found.path).items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(content)
    broken = sm.MemorizationScores(copy)
    broken.answers(1).iloc[:-1].to_parquet(copy / "networks" / "network_001.parquet")
    with pytest.raises(sm.UserError, match=r"network_001.parquet has other samples: delete it and run"):
        broken.scores()
    for number in (1, 2, 3):
        (copy / "networks" / f"network_{number:03d}.parquet").unlink()
    with pytest.raises(sm.UserError, match="holds 1 networks: scores need two"):
        broken.scores()
    (copy / "networks" / "network_000.parquet").write_bytes(b"PAR1")
    with pytest.raises(sm.UserError, match=r"network_000.parquet is broken"):
        broken.answers(0)


def test_networks_that_start_from_a_checkpoint_leave_out_minority_samples_only(
    trained: sm.Run, squares: Path, tmp_path: Path
):
    settings = sm.MemorizationSettings(**{**QUICK, "networks": 2, "epochs": 1}, start=f"{trained.path}@2")
    found = sm.memorization_scores(squares, tmp_path / "scores", settings)
    scores = found.scores()
    assert (scores["score"].notna() == scores["minority"]).all()
    assert found.groups()["minority"].all()
    unchanged = settings.model_copy(update={"epochs": 0})
    at_start = sm.memorization_scores(squares, tmp_path / "start", unchanged).answers(0)
    p = trained.predictions(2, "train").to_numpy()
    data = sm.read_data(squares)
    np.testing.assert_allclose(at_start["p_label"], p[np.arange(len(p)), data.train.y], atol=1e-5)
    lonely = tiny.make_images(tmp_path / "lonely", train=5)  # one sample in each minority group
    with pytest.raises(sm.UserError, match="no minority group has two training samples"):
        sm.memorization_scores(lonely, tmp_path / "none", settings)


@pytest.mark.slow
def test_planted_samples_have_the_highest_scores(tmp_path: Path):
    """Samples with a wrong label can only be memorized. The area under the ROC curve is that of Mann and Whitney."""
    folder = tiny.make_images(tmp_path / "data", train=40)
    table = pd.read_csv(folder / "metadata.csv")
    planted = table[(table["split"] == "train") & (table["a"] == table["y"])].groupby("y").head(4).index
    table.loc[planted, "y"] = 1 - table.loc[planted, "y"]
    table.loc[planted, "a"] = 1 - table.loc[planted, "a"]  # not a minority by name
    table["a"] = table["y"]  # one attribute per label, so that only the label tells
    table.to_csv(folder / "metadata.csv", index=False)
    settings = sm.MemorizationSettings(
        model="resnet18", networks=12, epochs=10, batch_size=16, lr=0.002, augment=False, minority=()
    )
    scores = sm.memorization_scores(folder, tmp_path / "scores", settings).scores().set_index("sample")
    ranks = pd.Series(rankdata(scores["score"]), scores.index)
    n, others = len(planted), len(scores) - len(planted)
    area = (ranks[planted].sum() - n * (n + 1) / 2) / (n * others)
    assert area >= 0.95


def test_proxies_are_those_of_a_plain_loop(trained: sm.Run, squares: Path):
    table, data = sm.memorization_proxies(trained), sm.read_data(squares)
    history = [trained.predictions(epoch, "train").to_numpy() for epoch in (1, 2, 3)]
    model = trained.network(3)
    head = [name for name, _ in model.named_parameters()][-2:]
    for k, i in enumerate(data.train.index.tolist()):
        y = int(data.y[i])
        right = [p[k].argmax() == y for p in history]
        learned = next((epoch for epoch in (1, 2, 3) if all(right[epoch - 1 :])), 4)
        batch = data.train.at([i]).batch()
        loss = cross_entropy(model(batch.inputs), batch.y)
        gradients = torch.autograd.grad(loss, [model.get_parameter(name) for name in head])
        row = table.loc[i]
        assert row["epoch_learned"] == learned
        assert row["loss"] == pytest.approx(-np.log(history[-1][k][y]), abs=1e-5)
        assert row["first_error"] == pytest.approx(np.linalg.norm(history[0][k] - np.eye(2)[y]), abs=1e-6)
        norm = float(torch.cat([g.flatten() for g in gradients]).norm())
        assert row["gradient_norm"] == pytest.approx(norm, rel=1e-4, abs=1e-6)


def test_rank_correlations_of_proxies(found: sm.MemorizationScores, trained: sm.Run):
    table = sm.memorization_proxies(trained)
    correlations = sm.proxy_correlations(found, table).set_index(["proxy", "group_name"])
    scores = found.scores().set_index("sample").join(table)
    for (proxy, name), row in correlations.iterrows():
        part = scores if name == "all groups" else scores[scores["group_name"] == name]
        assert row["n"] == len(part)
        if part[proxy].nunique() > 1 and part["score"].nunique() > 1:
            assert row["rank_correlation"] == pytest.approx(spearmanr(part[proxy], part["score"]).statistic)
        else:
            assert np.isnan(row["rank_correlation"])
    with pytest.raises(sm.UserError, match="the run has other training samples"):
        sm.proxy_correlations(found, table.iloc[1:])


@pytest.mark.slow
def test_the_command(trained: sm.Run, squares: Path, tmp_path: Path, capsys: Capture):
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in QUICK.items()]
    words = ("memorization", squares, "--out", tmp_path / "scores", *flags)
    said = tiny.spurmem(capsys, *words, "--show", 2, "--proxies", trained.path)
    assert said.status == 0, said.err
    for heading in ("Memorization scores", "Most memorized samples", "Rank correlation of cheap proxies"):
        assert heading in said.out
    assert "4 of 4 networks to train, each for 2 epochs on 20 of 40 training samples" in said.err
    again = tiny.spurmem(capsys, *words, "--json")
    assert "to train" not in again.err
    facts = json.loads(again.out)
    assert {group["group_name"] for group in facts["groups"]} == set(sm.read_data(squares).groups.names)
    assert len(facts["samples"]) == 40
    whole = tiny.spurmem(capsys, "memorization", squares, "--out", tmp_path / "other", "--share=1")
    assert "--share: " in whole.error
    assert "is not a run" in tiny.spurmem(capsys, *words, "--proxies", tmp_path).error
