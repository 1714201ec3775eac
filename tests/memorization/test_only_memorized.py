"""Studies of memorized samples alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny

import spurious_memorization as sm

pytestmark = pytest.mark.filterwarnings("ignore:all .* samples .* are classified correctly", "ignore:only .* null sets")

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def scores(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> sm.MemorizationScores:
    settings = sm.MemorizationSettings(**tiny.QUICK, networks=4, share=0.5)
    return sm.memorization_scores(squares, tmp_path_factory.mktemp("scores") / "scores", settings)


@pytest.fixture
def run(trained: sm.Run, tmp_path: Path) -> sm.Run:
    return tiny.copied(trained, tmp_path / "run")


def scored(data: sm.Dataset, score: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"sample": data.train.index, "score": score})


def test_minority_samples_with_low_scores_belong_to_no_split(squares: Path) -> None:
    data = sm.read_data(squares)
    score = np.random.default_rng(0).uniform(0.0, 0.5, len(data.train))
    minority = np.isin(data.train.g, data.minority)
    score[np.flatnonzero(minority)[:2]] = [0.25, np.nan]
    kept = sm.only_memorized(data, scored(data, score))
    expected = [i for i, s, m in zip(data.train.index, score, minority, strict=True) if not m or s >= 0.25]
    assert kept.train.index.tolist() == expected
    assert kept.minority == data.minority
    assert kept.test.index.tolist() == data.test.index.tolist()


def test_wrong_scores_are_refused(squares: Path) -> None:
    data = sm.read_data(squares)
    low = scored(data, np.zeros(len(data.train)))
    with pytest.raises(sm.UserError, match="no training sample of 'class 0 with color 1' has a memorization score"):
        sm.only_memorized(data, low)
    with pytest.raises(sm.UserError, match="of other training samples"):
        sm.only_memorized(data, low.iloc[1:])


@pytest.mark.slow
def test_a_study_selects_and_measures_memorized_samples_alone(
    run: sm.Run, scores: sm.MemorizationScores, capsys: Capture
) -> None:
    table = scores.scores()
    least = float(table.loc[table["minority"], "score"].groupby(table["group"]).max().min())
    flags = ("--criterion=gradient", "--size=1", "--controls=2", "--split=train,test", "--json")
    said = tiny.spurmem(
        capsys, "study", run.path, *flags, "--memorized-in", scores.path, f"--min-score={least - 1e-3}"
    )  # fmt: skip
    assert said.status == 0, said.err
    studied = sm.Study(Path(json.loads(said.out)["study"]))
    measured = set(studied.outcomes("train")["sample"])
    kept = set(table.loc[~table["minority"] | (table["score"] >= least - 1e-3), "sample"])
    assert measured == kept
    ranking = studied.record["rankings"][0]
    assert ranking["left_out"] is not None
    plain = tiny.spurmem(capsys, "study", run.path, *flags)
    other = sm.Study(Path(json.loads(plain.out)["study"]))
    assert other.record["rankings"][0]["left_out"] is None
    assert len(set(other.outcomes("train")["sample"])) == len(table)
    assert sm.report([run.path]).is_file()


def test_scores_of_other_data_and_two_minorities_are_refused(
    run: sm.Run, scores: sm.MemorizationScores, tmp_path: Path, capsys: Capture
) -> None:
    folder = tiny.make_images(tmp_path / "other", train=10)
    other = sm.train(folder, tmp_path / "theirs", sm.TrainSettings(**{**tiny.QUICK, "epochs": 1}))
    words = ("--size=1", "--controls=2", "--memorized-in", scores.path)
    assert "holds the scores of other data" in tiny.spurmem(capsys, "study", other.path, *words).error
    said = tiny.spurmem(capsys, "study", run.path, *words, "--pseudo-minority=1")
    assert "leave out --pseudo-minority" in said.error
    missing = tiny.spurmem(capsys, "study", run.path, "--memorized-in", tmp_path / "nothing")
    assert "holds no memorization scores" in missing.error
