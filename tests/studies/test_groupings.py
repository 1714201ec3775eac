"""A study of candidate groups is repeated with the groups that each seed of the discovery draws alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny

import spurious_memorization as sm

Capture = pytest.CaptureFixture[str]

SETTINGS = {"criterion": ("weight_norm",), "size": ("1",), "controls": 19}


@pytest.fixture(scope="module")
def table(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Candidate groups: seed 0 draws the same ones, seed 1 others, and seed 2 none in class 1 of the training split."""
    rows = pd.read_csv(squares / "metadata.csv")[["path", "y", "split"]]
    drawn = np.random.default_rng(0).random((2, len(rows))) < 0.4
    is_left_out = ((rows["y"] == 1) & (rows["split"] == "train")).to_numpy()
    atypical = {"attribute": drawn[0], "seed_0": drawn[0], "seed_1": drawn[1], "seed_2": drawn[1] & ~is_left_out}
    for name, of in atypical.items():
        rows[name] = np.where(of, "atypical", "typical")
    file = tmp_path_factory.mktemp("candidates") / "groups.csv"
    rows.sample(frac=1, random_state=0).to_csv(file, index=False)
    return file


@pytest.fixture(scope="module")
def run(squares: Path, table: Path) -> sm.Run:
    return trained(squares, table, table.with_name("run"))


@pytest.fixture(scope="module")
def studied(run: sm.Run) -> sm.Study:
    return sm.study(run, sm.StudySettings(**SETTINGS), name="own")


def trained(folder: Path, table: Path, out: Path) -> sm.Run:
    return sm.train(folder, out, sm.TrainSettings(**tiny.QUICK, attribute=str(table)))


def of_seed(studied: sm.Study, seed: int) -> sm.Study:
    return sm.Study(studied.path / "groupings" / f"seed_{seed}" / "studies" / "own")


def test_the_same_groups_give_the_same_effects(studied: sm.Study) -> None:
    pd.testing.assert_frame_equal(of_seed(studied, 0).effects(), studied.effects())


@pytest.mark.slow
def test_other_groups_give_what_a_study_of_them_gives(
    squares: Path, table: Path, studied: sm.Study, tmp_path: Path
) -> None:
    rows = pd.read_csv(table)
    file = tmp_path / "groups.csv"
    rows.assign(attribute=rows["seed_1"]).drop(columns=["seed_0", "seed_1", "seed_2"]).to_csv(file, index=False)
    alone = sm.study(trained(squares, file, tmp_path / "run"), sm.StudySettings(**SETTINGS))
    assert alone.groupings() is None
    pd.testing.assert_frame_equal(of_seed(studied, 1).effects(), alone.effects())
    assert not studied.effects().equals(alone.effects())


def test_the_table_of_groupings(studied: sm.Study, table: Path) -> None:
    found, rows = studied.groupings(), pd.read_csv(table)
    assert found is not None
    assert found["grouping"].drop_duplicates().tolist() == ["all seeds", "seed_0", "seed_1", "seed_2"]
    column = found["grouping"].replace("all seeds", "attribute")
    label = found["group_name"].str.extract(r"class (\d)", expand=False).astype(int)
    is_train = rows["split"] == "train"
    assert found["n_train"].tolist() == [
        int(((rows[name] == "atypical") & (rows["y"] == y) & is_train).sum())
        for name, y in zip(column, label, strict=True)
    ]
    rank = ("memorizing", "critical", "influential", "selective", "none", "no verdict").index
    for seed in (0, 1):
        effects = of_seed(studied, seed).effects().query("split == 'train' and minority")
        best = effects.groupby("group_name")["verdict"].agg(lambda verdicts: min(verdicts, key=rank))
        here = found[found["grouping"] == f"seed_{seed}"].set_index("group_name")["verdict"]
        assert here.to_dict() == best.to_dict()


def test_a_group_that_a_seed_leaves_empty_has_no_verdict(studied: sm.Study) -> None:
    found = studied.groupings()
    assert found is not None
    empty = found[(found["grouping"] == "seed_2") & (found["group_name"] == "class 1, atypical")]
    assert empty[["n_train", "verdict"]].to_numpy().tolist() == [[0, "no verdict"]]
    assert empty[["memorized", "units"]].isna().all(axis=None)


def test_the_finding_says_how_often_seeds_agree(run: sm.Run, studied: sm.Study, capsys: Capture) -> None:
    flags = ("--criterion", "weight_norm", "--size", "1", "--controls", "19", "--name", "own")
    said = json.loads(tiny.spurmem(capsys, "study", run.path, *flags, "--json").out)
    found = studied.groupings()
    assert found is not None
    sizes = found[(found["group_name"] == "class 0, atypical") & (found["grouping"] != "all seeds")]["n_train"]
    start = f"Each of 3 seeds draws class 0, atypical anew, with {sizes.min()} to {sizes.max()} training samples"
    assert any(sentence.startswith(start) for sentence in said["findings"])
    assert len(said["groupings"]) == 8
    assert "drawn by" in tiny.spurmem(capsys, "study", run.path, *flags, "--verbose").out


@pytest.mark.slow
def test_a_study_without_the_groupings(run: sm.Run, table: Path) -> None:
    alone = sm.study(run, sm.StudySettings(**SETTINGS, groupings=False), name="alone")
    assert alone.groupings() is None
    assert not (alone.path / "groupings").exists()


def test_a_study_that_changes_the_groups_is_not_repeated(run: sm.Run) -> None:
    drawn = sm.study(run, sm.StudySettings(**SETTINGS, pseudo_minority=0), name="drawn")
    assert drawn.groupings() is None
    assert set(drawn.effects().query("minority")["group_name"]) == {
        "class 0, a random draw (0)",
        "class 1, a random draw (0)",
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.iloc[:-1], "has no row for"),
        (lambda rows: rows.replace({"seed_1": {"atypical": "odd"}}), "seed_1 has the value 'odd'"),
    ],
)
def test_tables_that_changed(squares: Path, tmp_path: Path, change: object, message: str, table: Path) -> None:
    rows, file = pd.read_csv(table), tmp_path / "groups.csv"
    rows.to_csv(file, index=False)
    data = sm.read_data(squares, attribute=str(file))
    change(rows).to_csv(file, index=False)  # type: ignore[operator]
    from spurious_memorization.datasets.candidate_groups import groupings

    with pytest.raises(sm.UserError, match=message):
        groupings(data, file)
