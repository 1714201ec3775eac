"""Studies of the head's input features: the head alone on stored features, against the whole network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

import spurious_memorization as sm

FEATURE = sm.Selection(unit="feature")
SETTINGS = sm.StudySettings(
    criterion=("taylor",), unit="feature", size=("1..2",), controls=4, split=("test",), edit=("zero", "mean")
)


@pytest.fixture(scope="module")
def run(trained: sm.Run, tmp_path_factory: pytest.TempPathFactory) -> sm.Run:
    return tiny.copied(trained, tmp_path_factory.mktemp("features") / "run")


@pytest.fixture(scope="module")
def study(run: sm.Run) -> sm.Study:
    return sm.study(run, SETTINGS.model_copy(update={"other_epochs": ("1",)}), name="features")


@pytest.mark.slow
def test_outcomes_are_those_of_the_whole_network(study: sm.Study, run: sm.Run, squares: Path) -> None:
    network, data = run.network(3), sm.read_data(squares)
    means = sm.edits.feature_means(network, data.train)
    found = study.outcomes("test")
    variants = study.variants().set_index("variant", drop=False).loc[sorted({*found["variant"]} - {-1})]
    assert set(variants["unit"]) == {"feature"}
    assert set(variants["kind"]) == {"zero", "mean"}
    for row in variants.itertuples():
        units = sm.parse_units(network, row.units, FEATURE)
        edit = sm.edits.zero(units) if row.kind == "zero" else sm.edits.mean(units, means)
        expected = sm.evaluate(network, [edit], data.test).after
        of = found[found["variant"] == row.variant].sort_values("sample")
        at = np.searchsorted(data.test.index, of["sample"])
        assert np.array_equal(of["predicted"], expected.predicted[0, at])
        np.testing.assert_allclose(of["loss"], expected.loss[0, at], atol=1e-4)


@pytest.mark.slow
def test_other_epochs_have_their_own_features(study: sm.Study, run: sm.Run, squares: Path) -> None:
    network, data = run.network(1), sm.read_data(squares)
    variants = study.variants().query("family == 'selected' and fold == -1 and kind == 'zero'")
    table = study.store.frame("other_epochs")
    for row in variants.itertuples():
        edit = sm.edits.zero(sm.parse_units(network, row.units, FEATURE))
        result = sm.evaluate(network, [edit], data.test)
        effects = table.query(f"selected_set == {row.selected_set} and epoch == 1").set_index("group")
        for group in range(4):
            member = data.g[data.test.index] == group
            change = [(of.predicted[0][member] == data.test.y[member]).mean() for of in (result.before, result.after)]
            assert effects["accuracy_change"][group] == pytest.approx(change[1] - change[0], abs=1e-6)


@pytest.mark.slow
def test_in_memory_it_is_the_same(study: sm.Study, run: sm.Run, squares: Path) -> None:
    found = sm.study_in_memory(run.network(3), sm.read_data(squares), SETTINGS)
    columns = ["variant", "split", "group", "n", "correct_before", "correct_after"]
    assert found.results()[columns].equals(study.results()[columns])


def test_from_the_command_line(run: sm.Run, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--unit=feature", "--criterion=weight_norm", "--size=1", "--controls=3", "--split=test")
    printed = tiny.spurmem(capsys, "study", run.path, *flags)
    assert printed.status == 0, printed.err
    traced = tiny.spurmem(capsys, "trace", run.path, "--unit=feature", "--criterion=gradient")
    assert traced.status == 0, traced.err
    assert "fc:" in traced.out


@pytest.mark.slow
def test_a_second_study_reads_the_features(run: sm.Run, capsys: pytest.CaptureFixture[str]) -> None:
    sm.study(run, SETTINGS.model_copy(update={"controls": 3}), name="again")
    assert "from an earlier call" in capsys.readouterr().err


def test_a_network_without_one_head(squares: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    with pytest.raises(sm.UserError, match="--unit feature needs one linear layer that gives the logits"):
        sm.study_in_memory(model, sm.read_data(squares), SETTINGS)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:all .* samples .* are classified correctly")
def test_the_papers_preset(run: sm.Run) -> None:
    settings = SETTINGS.model_copy(update={"preset": "paper", "criterion": ("gradient",), "controls": 0})
    assert set(sm.study(run, settings).variants()["unit"]) == {"feature"}


def test_other_epochs_that_are_missing_are_told_before_anything_is_measured(run: sm.Run) -> None:
    with pytest.raises(sm.UserError, match="no checkpoint of epoch '9'"):
        sm.study(run, SETTINGS.model_copy(update={"other_epochs": ("9",)}), name="missing")
    assert not (run.path / "studies" / "missing").exists()
