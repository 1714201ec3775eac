"""What the groups look like: the images of candidate groups and of given groups."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import yaml
from report_page import NAMES, Page

import spurious_memorization as sm
from spurious_memorization.reporting.gallery.group_images import MAX_CANDIDATE_CLASSES, MAX_GROUPS
from spurious_memorization.reporting.page import page_data

pytestmark = pytest.mark.filterwarnings("ignore:all .* samples .* are classified correctly", "ignore:only .* null sets")

Capture = pytest.CaptureFixture[str]

QUICK = {**tiny.QUICK, "epochs": 1}


def plain_images(folder: Path, change: Callable[[pd.DataFrame], pd.DataFrame] = lambda table: table) -> Path:
    """Images whose table has labels and splits only, after a change of it."""
    tiny.make_images(folder)
    table = change(pd.read_csv(folder / "metadata.csv").drop(columns="a"))
    table.to_csv(folder / "metadata.csv", index=False)
    (folder / "dataset.yaml").write_text(yaml.safe_dump({"image_size": 16}))
    return folder


def candidates(folder: Path, file: Path) -> pd.DataFrame:
    """A table as `discover` writes it: every third sample is atypical, and the scores rise and fall."""
    table = pd.read_csv(folder / "metadata.csv")[["path", "y", "split"]]
    number = np.arange(len(table))
    table["attribute"] = np.where(number % 3 == 0, "atypical", "typical")
    table["minority_score"] = (number * 7 % 31) / 31
    table["unsure"] = False
    table.sample(frac=1, random_state=0).to_csv(file, index=False)
    return table


def trained(folder: Path, table: Path, out: Path) -> sm.Run:
    return sm.train(folder, out, sm.TrainSettings(**QUICK, attribute=str(table)))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plain_images(tmp_path_factory.mktemp("labels") / "images")


@pytest.fixture(scope="module")
def table(plain: Path) -> Path:
    candidates(plain, plain.with_name("groups.csv"))
    return plain.with_name("groups.csv")


@pytest.fixture(scope="module")
def discovered(plain: Path, table: Path) -> sm.Run:
    """A network trained with candidate groups, without a study. Tests leave it as it is."""
    return trained(plain, table, plain.with_name("run"))


def gallery(shown: Page) -> dict:
    (found,) = shown.data["gallery"]["groups"]
    return found


def paths(shown: Page, group: dict) -> list[str]:
    return [shown.data["gallery"]["samples"][image["sample"]]["path"] for image in group["images"]]


def test_candidate_groups_stand_class_by_class(plain: Path, table: Path, discovered: sm.Run, tmp_path: Path) -> None:
    shown = Page(sm.report([discovered.path], tmp_path / "page.html"))
    found = gallery(shown)
    assert [group["name"] for group in found["groups"]] == [
        "0, atypical", "0, typical", "1, atypical", "1, typical",
    ]  # fmt: skip
    rows = pd.read_csv(table)
    for group in found["groups"]:
        label, _, value = group["name"].partition(", ")
        of_group = rows[(rows["y"] == int(label)) & (rows["attribute"] == value)]
        counts = of_group["split"].value_counts()
        assert group["counts"] == ", ".join(f"{counts[split]} in {split}" for split in ("train", "val", "test"))
        train = of_group[of_group["split"] == "train"].sort_values("minority_score", ascending=False)
        if value == "atypical":
            assert paths(shown, group) == train["path"].tolist()[:8]
        assert set(paths(shown, group)) <= set(train["path"])
        assert len(group["images"]) == min(len(train), 8)
        scores = train.set_index("path")["minority_score"][paths(shown, group)]
        assert [image["label"] for image in group["images"]] == [f"score {score:.2f}" for score in scores]
    assert found["caption"] == (
        f"These groups were discovered, not given. They are candidates from {table}: look at them, and don't take them "
        "for facts. Of the atypical images in train, those with the highest minority score are shown; of the others, "
        "a random draw."
    )
    assert f"No images of {discovered.path}" not in shown.text
    again = Page(sm.report([discovered.path], tmp_path / "again.html"))
    assert gallery(again) == found


@pytest.mark.slow
def test_a_study_says_that_the_groups_are_candidates(
    table: Path, discovered: sm.Run, studied: sm.Study, tmp_path: Path, capsys: Capture
) -> None:
    run = tiny.copied(discovered, tmp_path / "run")
    sentence = f"The groups are candidates from {table}, not labels: look at their images before you trust a verdict."
    flags = ("--criterion", "weight_norm", "--size", "1", "--controls", "3")
    said = tiny.spurmem(capsys, "study", run.path, *flags, "--json")
    assert json.loads(said.out)["findings"][-1].startswith(sentence)
    assert " ".join(sentence.split()[:6]) in tiny.spurmem(capsys, "study", run.path, *flags).out
    assert sentence in Page(sm.report([run.path])).text
    given = tiny.copied(sm.Run(studied.path.parent.parent), tmp_path / "given")
    assert "candidates from" not in Page(sm.report([given.path])).text


def test_a_table_that_is_gone(plain: Path, tmp_path: Path) -> None:
    file = tmp_path / "groups.csv"
    candidates(plain, file)
    run = trained(plain, file, tmp_path / "run")
    file.unlink()
    shown = Page(sm.report([run.path]))
    assert f"No images of {run.path}: {file} does not exist" in shown.text
    assert shown.data["gallery"]["groups"] == []
    assert {row["group"] for row in shown.tables["accuracy"]} >= {"0, atypical", "1, typical"}


@pytest.mark.parametrize("change", ["no column", "no numbers"])
def test_a_table_without_scores_is_drawn_from(plain: Path, tmp_path: Path, change: str) -> None:
    file = tmp_path / "groups.csv"
    rows = candidates(plain, file).assign(minority_score="high")
    (rows.drop(columns="minority_score") if change == "no column" else rows).to_csv(file, index=False)
    shown = Page(sm.report([trained(plain, file, tmp_path / "run").path]))
    found = gallery(shown)
    assert found["caption"].endswith("All are a random draw from the images in train.")
    for group in found["groups"]:
        of_group = rows[(rows["attribute"] == group["name"].split()[-1]) & (rows["split"] == "train")]
        assert set(paths(shown, group)) <= set(of_group["path"])
        assert [image["label"] for image in group["images"]] == [""] * min(8, len(group["images"]))


def test_values_that_a_person_named_are_no_candidates(plain: Path, tmp_path: Path) -> None:
    file = tmp_path / "groups.csv"
    rows = candidates(plain, file)
    rows.assign(attribute=rows["attribute"].replace({"atypical": "night", "typical": "day"})).to_csv(file, index=False)
    found = gallery(Page(sm.report([trained(plain, file, tmp_path / "run").path])))
    assert found["caption"] == "A random draw from the images in train, minority groups (*) first."


def test_odd_names_stay_text(page: Page, tmp_path: Path) -> None:
    folder = tiny.hostile_images(tmp_path / "data")
    odd = tmp_path / "<img src=x onerror=window.hacked=6>'&\".csv"
    candidates(folder, odd)
    shown = Page(sm.report([trained(folder, odd, tmp_path / "run").path]))
    found = gallery(shown)
    expected = [f"{name}, {value}" for name in tiny.HOSTILE["classes"] for value in ("atypical", "typical")]
    assert [group["name"] for group in found["groups"]] == expected
    assert odd.name in found["caption"]
    assert all("window.hacked=4" in path for group in found["groups"] for path in paths(shown, group))
    for tag in ("script", "img", "b", "section"):
        assert shown.elements[tag] == page.elements[tag], tag


def test_given_groups(page: Page, squares: Path) -> None:
    found = gallery(page)
    assert [group["name"] for group in found["groups"]] == [NAMES[1], NAMES[2], NAMES[0], NAMES[3]]
    assert [group["minority"] for group in found["groups"]] == [True, True, False, False]
    table = pd.read_csv(squares / "metadata.csv").set_index("path")
    for group in found["groups"]:
        assert len(group["images"]) == 4
        rows = table.loc[paths(page, group)]
        assert set(zip(rows["y"], rows["a"], rows["split"], strict=True)) == {
            (*divmod(NAMES.index(group["name"]), 2), "train")
        }
    assert "discovered" not in found["caption"]


@pytest.mark.slow
def test_many_groups(tmp_path: Path) -> None:
    folder = tiny.make_images(tmp_path / "data", classes=3, attributes=6, train=30)
    shown = Page(sm.report([sm.train(folder, tmp_path / "run", sm.TrainSettings(**QUICK)).path]))
    found = gallery(shown)
    is_minority = [group["minority"] for group in found["groups"]]
    assert len(is_minority) == MAX_GROUPS
    assert is_minority == sorted(is_minority, reverse=True)
    n = len(np.unique(sm.read_data(folder).train.g))
    assert found["caption"].endswith(f" {MAX_GROUPS} of {n} groups are shown.")


def test_many_classes_and_an_empty_group(tmp_path: Path) -> None:
    folder = plain_images(tmp_path / "data", lambda table: table.assign(y=np.arange(len(table)) % 14))
    file = tmp_path / "groups.csv"
    rows = candidates(folder, file)
    rows.loc[rows["y"] == 0, "attribute"] = "typical"
    rows.to_csv(file, index=False)
    found = gallery(Page(sm.report([trained(folder, file, tmp_path / "run").path])))
    assert len(found["groups"]) == 2 * MAX_CANDIDATE_CLASSES
    assert found["caption"].endswith(f" The first {MAX_CANDIDATE_CLASSES} of 14 classes are shown.")
    empty = found["groups"][0]
    assert (empty["counts"], empty["images"]) == ("0 in train, 0 in val, 0 in test", [])


@pytest.mark.slow
def test_runs_with_the_same_groups_share_their_images(
    discovered: sm.Run, trained: sm.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = tiny.copied(discovered, tmp_path / "second")
    runs = [discovered.path, trained.path, second.path]
    shown = Page(sm.report(runs, tmp_path / "page.html"))
    assert [found["runs"] for found in shown.data["gallery"]["groups"]] == [
        [str(discovered.path), str(second.path)], [str(trained.path)],
    ]  # fmt: skip
    monkeypatch.setattr(page_data, "MAX_GROUP_IMAGES", 20)
    small = Page(sm.report(runs, tmp_path / "small.html"))
    assert [found["runs"] for found in small.data["gallery"]["groups"]] == [[str(trained.path)]]
    assert f"The images of the groups of {discovered.path}, {second.path} would make this page too large" in small.text
    assert len(small.data["gallery"]["samples"]) <= 20


@pytest.mark.slow
def test_an_image_that_cannot_be_read_is_named(trained: sm.Run, squares: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(squares, tmp_path / "data")
    whole = Page(sm.report([trained.path], tmp_path / "whole.html", data_folder=folder))
    first = paths(whole, gallery(whole)["groups"][0])[0]
    (folder / first).write_bytes(b"\0" * (folder / first).stat().st_size)
    shown = Page(sm.report([trained.path], tmp_path / "page.html", data_folder=folder))
    assert f"These images can't be read and are not shown: {first}." in shown.text
    assert gallery(shown) == gallery(whole)
    (folder / first).unlink()
    gone = Page(sm.report([trained.path], tmp_path / "gone.html", data_folder=folder))
    assert f"No images of {trained.path}" in gone.text


def test_the_words_of_candidate_groups(plain: Path, tmp_path: Path) -> None:
    file = tmp_path / "groups.csv"
    rows = candidates(plain, file)
    counts = rows[rows["split"] == "train"].groupby(["y", "attribute"]).size()
    words = pd.DataFrame(
        [
            (f"{y}, {value}", n, word, fits)
            for (y, value), n in counts.items()
            for word, fits in (("water", value == "atypical"), ("<b>snow</b>", y == 0), ("grass", False))
        ],
        columns=["group", "n", "word", "fits_better"],
    )
    words.loc[words["group"] == "1, typical", "n"] += 1  # found before the table changed
    words.to_csv(tmp_path / "groups_words.csv", index=False)
    found = gallery(Page(sm.report([trained(plain, file, tmp_path / "run").path])))
    assert {group["name"]: group["words"] for group in found["groups"]} == {
        "0, atypical": "water, <b>snow</b>",
        "0, typical": "<b>snow</b>",
        "1, atypical": "water",
        "1, typical": None,
    }
    assert "by CLIP (adjusted p at most 0.05)" in found["caption"]
