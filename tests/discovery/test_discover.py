"""`spurmem discover` on images with labels only, and what takes its table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
from sklearn.metrics import roc_auc_score

import spurious_memorization as sm
from spurious_memorization.discovery.settings import METHODS

Capture = pytest.CaptureFixture[str]

FLAGS = ("--model", tiny.NETWORK, "--epochs", 3, "--batch-size", 8, "--lr", 0.01, "--no-augment")
FEW = ("--seeds", "0..1", "--eiil-steps", 50)
SETTINGS = sm.DiscoverSettings(**{**tiny.QUICK, "image_size": 16, "seeds": "0..1", "augment": False, "eiil_steps": 50})


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images whose table has labels and splits, and no attribute."""
    folder = tiny.make_images(tmp_path_factory.mktemp("discovery") / "images", train=30)
    table = pd.read_csv(folder / "metadata.csv")
    table.drop(columns="a").to_csv(folder / "metadata.csv", index=False)
    (folder / "dataset.yaml").unlink()
    table.to_csv(folder.with_name("known.csv"), index=False)
    return folder


@pytest.fixture(scope="module")
def groups(plain: Path) -> Path:
    sm.discover(plain, plain.with_name("groups.csv"), SETTINGS)
    return plain.with_name("groups.csv")


def test_groups_without_an_attribute_are_the_classes(plain: Path, capsys: Capture) -> None:
    data = sm.read_data(plain)
    assert data.groups.names == ("0", "1")
    assert data.train_counts.tolist() == [30, 30]
    assert "no attribute column, so the groups are the classes" in capsys.readouterr().err
    assert data.minority == ()


def test_the_check_needs_no_attribute_and_no_other_split(plain: Path, tmp_path: Path, capsys: Capture) -> None:
    said = tiny.spurmem(capsys, "data", "check", plain)
    assert said.status == 0, said.err
    assert f"spurmem train {plain} --attribute none" in said.out.replace("\n", " ")
    folder = tmp_path / "data"
    folder.mkdir()
    for file in plain.iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "metadata.csv").unlink()
    table = pd.read_csv(plain / "metadata.csv")
    table[table["split"] == "train"].to_csv(folder / "metadata.csv", index=False)
    assert "Traceback" not in tiny.spurmem(capsys, "data", "check", folder).err


def test_attribute_none_leaves_columns_out(squares: Path) -> None:
    data = sm.read_data(squares, attribute="none")
    assert data.groups.names == ("class 0", "class 1")
    assert len(sm.read_data(squares).groups) == 4


@pytest.mark.slow
@pytest.mark.parametrize("on", ["processes:2", "ray"])
@pytest.mark.usefixtures("two_ray_workers")
def test_workers_give_the_same_table(
    on: str, plain: Path, groups: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Relative paths mean the same to workers."""
    (tmp_path / "images").symlink_to(plain)
    monkeypatch.chdir(tmp_path)
    sm.discover("images", "groups.csv", SETTINGS, execution=sm.TrainingsExecution(on=on))
    assert "is done, 2 of 2" in capsys.readouterr().err
    assert Path("groups.csv").read_bytes() == groups.read_bytes()
    networks = groups.with_name("groups_networks")
    assert tiny.files_below(Path("groups_networks")) == tiny.files_below(networks)
    for seed in (0, 1):
        runs = [sm.Run(place / "erm" / f"seed_{seed}") for place in (networks, Path("groups_networks"))]
        assert tiny.same_networks(*runs)


def test_the_table(plain: Path, groups: Path) -> None:
    table, data = pd.read_csv(groups), sm.read_data(plain)
    assert list(table) == ["path", "y", "split", "attribute", "minority_score", "unsure", "seed_0", "seed_1"]
    assert table["unsure"].equals(table["seed_0"] != table["seed_1"])
    assert len(table) == len(data)
    assert set(table["attribute"]) <= {"typical", "atypical"}
    assert table["minority_score"].between(0, 1).all()
    known = pd.read_csv(plain.with_name("known.csv"))
    assert table["path"].tolist() == known["path"].tolist()


def test_the_table_is_an_attribute(plain: Path, groups: Path, tmp_path: Path, capsys: Capture) -> None:
    table = pd.read_csv(groups)
    table.loc[::3, "attribute"] = np.where(table["attribute"][::3] == "typical", "atypical", "typical")
    shuffled = tmp_path / "groups.csv"
    table.sample(frac=1, random_state=0).to_csv(shuffled, index=False)
    data = sm.read_data(plain, attribute=str(shuffled))
    assert data.groups.attributes == ("atypical", "typical")
    assert [data.groups.attributes[a] for a in data.a] == table["attribute"].tolist()
    said = tiny.spurmem(
        capsys, "train", plain, "--attribute", shuffled, *FLAGS, "--image-size", 16, "--out", tmp_path / "run"
    )
    assert said.status == 0, said.err
    assert "0, atypical" in said.out
    again = sm.Run(tmp_path / "run").read_data()
    assert again.groups.names == ("0, atypical", "0, typical", "1, atypical", "1, typical")
    assert again.minority == (0, 2)
    assert again.majority == (1, 3)
    named = sm.read_data(plain, attribute=str(shuffled), minority=("0, typical",))
    assert named.minority == (1,)
    assert named.majority == (3,)


def test_a_table_without_splits_has_those_of_the_discovery(plain: Path, groups: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for file in plain.iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "metadata.csv").unlink()
    pd.read_csv(plain / "metadata.csv").drop(columns="split").to_csv(folder / "metadata.csv", index=False)
    data = sm.read_data(folder, attribute=str(groups))
    assert data.split.tolist() == pd.read_csv(groups)["split"].tolist()
    assert data.split_seed is None


def test_tables_that_do_not_fit(plain: Path, groups: Path, tmp_path: Path) -> None:
    table, file = pd.read_csv(groups), tmp_path / "other.csv"

    def refused(changed: pd.DataFrame) -> str:
        changed.to_csv(file, index=False)
        with pytest.raises(sm.UserError) as error:
            sm.read_data(plain, attribute=str(file))
        return str(error.value)

    assert "has no column 'attribute'" in refused(table.drop(columns="attribute"))
    assert f"has no row for {table['path'][3]!r}" in refused(table.drop(index=3))
    assert f"has the path {table['path'][0]!r} twice" in refused(pd.concat([table, table[:1]]))
    with pytest.raises(sm.UserError, match="does not exist"):
        sm.read_data(plain, attribute=str(tmp_path / "missing.csv"))


@pytest.mark.slow
def test_the_command_continues_and_judges_methods(squares: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "groups.csv"
    said = tiny.spurmem(capsys, "discover", squares, *FLAGS, *FEW, "--out", out, "--compare-with", "a", "--json")
    assert said.status == 0, said.err
    facts = json.loads(said.out)
    assert [row["method"] for row in facts["methods"]] == list(METHODS)
    networks = tmp_path / "groups_networks"
    before = {name: (networks / name).stat().st_mtime_ns for name in tiny.files_below(networks)}
    again = tiny.spurmem(capsys, "discover", squares, *FLAGS, *FEW, "--out", out, "--method", "eiil", "--format", "csv")
    assert again.status == 0, again.err
    assert before == {name: (networks / name).stat().st_mtime_ns for name in tiny.files_below(networks)}
    scores = pd.read_csv(pd.io.common.StringIO(again.out))
    data = sm.read_data(squares)
    minority, is_train = np.isin(data.g, data.minority), data.split == "train"
    for row in facts["methods"]:
        expected = roc_auc_score(minority[is_train], scores[row["method"]][is_train])
        assert row["auroc"] == pytest.approx(expected, abs=1e-6)
    other = tiny.spurmem(capsys, "discover", squares, *FLAGS, *FEW, "--lr", 0.02, "--out", out)
    assert "lr" in other.error
    assert other.status == 2


def test_bad_calls(squares: Path, tmp_path: Path, capsys: Capture) -> None:
    assert "name a file that ends in .csv" in tiny.spurmem(capsys, "discover", squares, "--out", tmp_path / "g").error
    flags = ("--out", tmp_path / "groups.csv", "--attribute", "a")
    assert "give --compare-with" in tiny.spurmem(capsys, "discover", squares, *flags).error
    flags = ("--out", tmp_path / "groups.csv", "--compare-with", "b")
    assert "no attribute column 'b'" in tiny.spurmem(capsys, "discover", squares, *flags).error
    assert not (tmp_path / "groups_networks").exists()


def test_the_wanted_epochs_must_be_there(squares: Path, tmp_path: Path, capsys: Capture) -> None:
    error = tiny.spurmem(
        capsys, "discover", squares, *FLAGS, *FEW, "--early", 9, "--out", tmp_path / "groups.csv"
    ).error
    assert "--early 9" in error
    assert not (tmp_path / "groups_networks").exists()
