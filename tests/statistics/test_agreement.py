"""Agreement of rankings, the same edits in other epochs, and studies in memory."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from scipy import stats
from torch import nn

import spurious_memorization as sm
from spurious_memorization.controls.norms import folded_norms

pytestmark = pytest.mark.filterwarnings("ignore:all .* samples .* are classified correctly", "ignore:only .* null sets")

MODEL = nn.Sequential(
    nn.Conv2d(3, 30, 3), nn.BatchNorm2d(30), nn.ReLU(), nn.Conv2d(30, 20, 3), nn.Flatten(), nn.Linear(20, 2)
)


def scores(values: torch.Tensor) -> sm.Scores:
    return sm.Scores({"0.weight": values[:30], "3.weight": values[30:]})


def test_agreement_counts_shared_first_units():
    one, other = torch.arange(50.0), torch.arange(50.0).roll(3)
    (row,) = sm.agreement({"a": scores(one), "b": scores(other)}, 10).to_dict(orient="records")
    first = set(one.argsort(descending=True)[:10].tolist()) & set(other.argsort(descending=True)[:10].tolist())
    assert (row["one"], row["other"], row["k"], row["n"], row["shared"]) == ("a", "b", 10, 50, len(first))
    assert row["expected"] == pytest.approx(2.0)
    draws = np.random.default_rng(0).random((20_000, 50)).argsort(1)[:, :10] < 10
    assert row["p"] == pytest.approx((draws.sum(1) >= len(first)).mean(), abs=0.01)
    assert row["rank_correlation"] == pytest.approx(stats.spearmanr(one, other).statistic)


def test_agreement_of_rankings_without_common_units_is_left_out():
    assert sm.agreement({"a": scores(torch.rand(50)), "b": sm.Scores({"x": torch.rand(4)})}, 2).empty
    assert sm.agreement({"a": scores(torch.rand(50)), "b": scores(torch.rand(50))}, 50).empty


@pytest.fixture(scope="module")
def asked(trained: sm.Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[sm.Run, sm.Study]:
    run = tiny.copied(trained, tmp_path_factory.mktemp("asked") / "run")
    settings = sm.StudySettings(
        size=("2",), controls=0, other_epochs=("0", "2", "last"), agreement_with=(str(trained.path),)
    )
    return run, sm.study(run, settings, name="asked")


@pytest.mark.slow
def test_the_same_edits_in_other_epochs(asked: tuple[sm.Run, sm.Study], squares: Path):
    run, study = asked
    rows, data, variants = study.other_epochs(), sm.read_data(squares), study.variants()
    assert rows is not None
    assert sorted(rows["epoch"].unique()) == [0, 2, 3]
    assert set(rows["split"]) == {"train", "test"}
    for (number, epoch, split), here in rows.groupby(["selected_set", "epoch", "split"]):
        units = variants.loc[variants["selected_set"] == number, "units"].iloc[0]
        model = run.network(epoch)
        edit = sm.edits.zero(sm.parse_units(model, units))
        expected = sm.effects(sm.evaluate(model, [edit], data.samples(split)), data.samples(split))
        assert here["group_name"].tolist() == expected["group"].tolist()
        for name in ("n", "accuracy_before", "accuracy_after", "accuracy_change", "margin_change"):
            np.testing.assert_allclose(here[name], expected[name], atol=1e-5, err_msg=name)
    last = rows[rows["epoch"] == 3].merge(study.effects(), on=["selected_set", "split", "group"])
    np.testing.assert_allclose(last["accuracy_change_x"], last["accuracy_change_y"])


def test_the_agreement_of_a_study(asked: tuple[sm.Run, sm.Study]):
    _, study = asked
    pairs = study.agreement()
    assert pairs is not None
    names = {frozenset(pair) for pair in pairs[["one", "other"]].itertuples(index=False)}
    assert frozenset(("weight_norm", "folded_weight_norm")) in names
    same = pairs[[other.startswith(f"{one} in ") for one, other in zip(pairs["one"], pairs["other"], strict=True)]]
    assert len(same) == 3  # the other run is a copy: all agree
    assert (same["rank_correlation"] > 0.999).all()
    assert (pairs["shared"] <= pairs["k"]).all()


@pytest.mark.slow
def test_sceptics_options_on_the_command_line(asked: tuple[sm.Run, sm.Study], capsys: pytest.CaptureFixture[str]):
    run, _ = asked
    options = ("--criterion", "weight_norm", "--size", 2, "--controls", 0, "--other-epochs", "0,last")
    said = tiny.spurmem(capsys, "study", run.path, *options, "--verbose")
    assert said.status == 0, said.err
    assert "The same edits in other epochs: accuracy change in test" in said.out
    facts = json.loads(tiny.spurmem(capsys, "--json", "study", run.path, *options).out)
    assert {row["epoch"] for row in facts["other_epochs"]} == {0, 3}
    error = tiny.spurmem(capsys, "study", run.path, "--controls", 0, "--other-epochs", "99").error
    assert "no checkpoint of epoch '99'" in error
    error = tiny.spurmem(capsys, "study", run.path, "--controls", 0, "--agreement-with", run.path / "nothing").error
    assert "is not a run" in error


def images() -> sm.Dataset:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(240) % 2
    a = torch.where(torch.arange(240) % 10 < 8, y, 1 - y)
    x = torch.randn(240, 3, 5, 5, generator=generator)
    x[:, 0] += a[:, None, None]
    return sm.from_tensors(x, y, a, np.where(np.arange(240) < 160, "train", "test"))


@pytest.mark.slow
def test_a_study_in_memory_is_what_its_parts_say():
    torch.manual_seed(0)
    model, data = MODEL.eval(), images()
    units = "0:3,3:5"
    found = sm.study_in_memory(model, data, sm.StudySettings(units=units.split(","), controls=19)).effects()
    edit = sm.edits.zero(sm.parse_units(model, units))
    edits = [edit, *sm.null_sets(model, edit, 19)]
    train, test = (sm.evaluate(model, edits, samples) for samples in (data.train, data.test))
    expected = sm.effects(train, data.train, unseen=(test, data.test))
    here = found[found["split"] == "train"].reset_index(drop=True)
    assert here["group_name"].tolist() == expected["group"].tolist()
    assert here["n_controls"].unique().tolist() == [19]
    for name in (
        "accuracy_change",
        "margin_change",
        "p",
        "p_adjusted",
        "control_low",
        "control_median",
        "difference",
        "p_selective",
        "majority_change",
    ):
        np.testing.assert_allclose(here[name].astype(float), expected[name].astype(float), atol=1e-5, err_msg=name)
    assert here["influential"].tolist() == expected["influential"].tolist()
    norms = folded_norms(model)

    def log_norm(units: sm.Units) -> float:
        squares = [float(norms[name][i] ** 2 / norms[name].square().mean()) for name, i in units]
        return float(np.log(np.sqrt(np.mean(squares)) + 1e-3))

    log_norms = [log_norm(other.units) for other in edits]
    assert here["norm_ratio"].iloc[0] == pytest.approx(np.exp(np.median(log_norms[1:]) - log_norms[0]))


@pytest.mark.slow
def test_rewind_in_memory_needs_an_older_network():
    settings = sm.StudySettings(units=("0:3",), controls=0, edit=("rewind:epochs=1", "mean"))
    with pytest.raises(sm.UserError, match="rewind needs the state dict"):
        sm.study_in_memory(MODEL, images(), settings)
    found = sm.study_in_memory(MODEL, images(), settings, older=MODEL.state_dict()).effects()
    same = found[found["kind"] == "rewind"]
    assert (same["accuracy_change"] == 0).all()
    assert set(found["kind"]) == {"rewind", "mean"}
    assert isinstance(found, pd.DataFrame)
