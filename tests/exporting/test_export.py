"""Exports, read back by pandas, Hugging Face's datasets and the rules of FiftyOne's importer."""

from __future__ import annotations

import json
import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
from PIL import Image

import datasets
import spurious_memorization as sm
from spurious_memorization.datasets.negated_pairs import make_negated_pairs
from spurious_memorization.datasets.settings import NegatedPairsSettings
from spurious_memorization.exporting.fiftyone import field_names

pytestmark = pytest.mark.filterwarnings("ignore:all .* samples .* are classified correctly", "ignore:only .* null sets")

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def run(studied: sm.Study) -> sm.Run:
    return sm.Run(studied.path.parent.parent)


@pytest.fixture(scope="module")
def scores(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Memorization scores of three networks."""
    folder = tmp_path_factory.mktemp("memorization") / "scores"
    settings = sm.MemorizationSettings(**{**tiny.QUICK, "epochs": 1}, networks=3)
    sm.memorization_scores(squares, folder, settings)
    return folder


def test_the_table_says_what_is_stored_of_each_sample(
    run: sm.Run, studied: sm.Study, squares: Path, scores: Path
) -> None:
    epoch = studied.record["epoch"]
    table = sm.sample_table(run, epoch=epoch, memorization=scores).set_index("sample")
    given = pd.read_csv(squares / "metadata.csv")
    assert table["path"].tolist() == given["path"].tolist()
    assert table["split"].tolist() == given["split"].tolist()
    assert table["label"].tolist() == [f"class {y}" for y in given["y"]]
    assert table["attribute"].tolist() == [f"color {a}" for a in given["a"]]
    assert table["group"].tolist() == [f"class {y} with color {a}" for y, a in zip(given["y"], given["a"], strict=True)]
    assert table["minority"].tolist() == (given["y"] != given["a"]).tolist()
    stored = run.predictions(epoch, "test")
    shown = table.loc[stored.index]
    assert shown["probability of class 1"].tolist() == stored["class 1"].tolist()
    assert shown["predicted"].tolist() == [f"class {c}" for c in stored.to_numpy().argmax(1)]
    history = run.history()
    counted = history[(history["epoch"] == epoch) & (history["split"] == "test")]
    assert shown["correct"].sum() == counted["correct"].sum()
    estimated = sm.MemorizationScores(scores).scores().set_index("sample")
    of_train = table[table["split"] == "train"]
    assert of_train["memorization_score"].equals(estimated["score"].rename("memorization_score"))
    assert table.loc[table["split"] != "train", "memorization_score"].isna().all()
    order = ["memorizing", "critical", "influential", "selective", "none", "no verdict"]
    tests = studied.effects().query("split == 'train'")
    for name, rows in table.groupby("group"):
        strongest = min(tests.loc[tests["group_name"] == name, "verdict"], key=order.index)
        assert set(rows["group_verdict"]) == {strongest}
    memorized = studied.groups().set_index("group_name")["memorized"]
    assert all(row.group_memorized == memorized[row.group] for row in table.itertuples())


def test_verdicts_are_those_of_the_same_epoch(run: sm.Run, studied: sm.Study, capsys: Capture, tmp_path: Path) -> None:
    other = next(epoch for epoch in run.epochs() if epoch != studied.record["epoch"])
    assert "group_verdict" not in sm.sample_table(run, epoch=other)
    flags = ("--epoch", other, "--study", studied.name, "--out", tmp_path / "samples.csv")
    assert f"add --epoch {studied.record['epoch']}" in tiny.spurmem(capsys, "export", "csv", run.path, *flags).error


def test_candidate_groups_bring_their_scores(squares: Path, tmp_path: Path) -> None:
    table = pd.read_csv(squares / "metadata.csv")[["path", "y", "split"]]
    table["attribute"] = np.where(np.arange(len(table)) % 3 == 0, "atypical", "typical")
    table["minority_score"] = np.arange(len(table)) / 100
    table.sample(frac=1, random_state=0).to_csv(tmp_path / "groups.csv", index=False)
    flags = {**tiny.QUICK, "epochs": 1}
    run = sm.train(squares, tmp_path / "run", sm.TrainSettings(**flags, attribute=str(tmp_path / "groups.csv")))
    samples = sm.sample_table(run)
    assert samples["minority_score"].tolist() == table["minority_score"].tolist()
    assert samples["attribute"].tolist() == table["attribute"].tolist()
    assert "candidate groups, which were discovered" in sm.model_card(run)


def test_csv(run: sm.Run, tmp_path: Path, capsys: Capture) -> None:
    said = tiny.spurmem(capsys, "export", "csv", run.path, "--out", tmp_path / "samples.csv")
    assert said.status == 0, said.err
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "samples.csv"), sm.sample_table(run), check_dtype=False)


def test_datasets(run: sm.Run, squares: Path, tmp_path: Path) -> None:
    sm.export("datasets", run, tmp_path / "saved")
    saved = datasets.load_from_disk(str(tmp_path / "saved"))
    table = sm.sample_table(run)
    assert {name: len(rows) for name, rows in saved.items()} == {"train": 40, "validation": 12, "test": 12}
    assert saved["test"].features["label"].names == ["class 0", "class 1"]
    row, expected = saved["test"][5], table[table["split"] == "test"].iloc[5]
    assert np.array_equal(np.array(row["image"]), np.array(Image.open(squares / expected["path"])))
    assert (row["group"], row["sample"]) == (expected["group"], expected["sample"])
    assert saved["test"].features["predicted"].int2str(row["predicted"]) == expected["predicted"]
    assert row["probability of class 0"] == expected["probability of class 0"]


def imported_by_fiftyone(folder: Path) -> dict[Path, tuple[str, dict[str, object]]]:
    """What FiftyOne's importer of FiftyOneImageClassificationDataset makes of a folder: {image: (label, attributes)}.

    Relative places are below the folder, and a label is the number of a class if there are classes.
    """
    places = json.loads((folder / "data.json").read_text())
    labels = json.loads((folder / "labels.json").read_text())
    return {
        folder / places[name]: (labels["classes"][target["label"]], target["attributes"])
        for name, target in labels["labels"].items()
    }


def test_fiftyone(run: sm.Run, squares: Path, tmp_path: Path) -> None:
    sm.export("fiftyone", run, tmp_path / "folder")
    found = imported_by_fiftyone(tmp_path / "folder")
    table = sm.sample_table(run)
    assert list(found) == [squares / path for path in table["path"]]
    assert all(place.is_file() for place in found)
    for (label, attributes), row in zip(found.values(), table.to_dict(orient="records"), strict=True):
        assert label == row["label"]
        assert (attributes["group"], attributes["correct"]) == (row["group"], row["correct"])
        assert attributes["probability_of_class_0"] == row["probability of class 0"]


def test_fields_of_fiftyone_have_names_of_their_own(squares: Path, tmp_path: Path) -> None:
    shutil.copytree(squares, tmp_path / "data")
    (tmp_path / "data" / "dataset.yaml").write_text("image_size: 16\nclasses: [sea gull, sea_gull]\n")
    run = sm.train(tmp_path / "data", tmp_path / "run", sm.TrainSettings(**{**tiny.QUICK, "epochs": 1}))
    sm.export("fiftyone", run, tmp_path / "folder")
    table = sm.sample_table(run)
    found = [attributes for _, attributes in imported_by_fiftyone(tmp_path / "folder").values()]
    for field, column in (("probability_of_sea_gull", "sea gull"), ("probability_of_sea_gull_2", "sea_gull")):
        assert [one[field] for one in found] == table[f"probability of {column}"].tolist()


@pytest.mark.parametrize(
    ("columns", "fields"),
    [
        (["a b", "a.b", "a_b"], ["a_b", "a_b_2", "a_b_3"]),
        (["a b", "a_b_2", "a.b"], ["a_b", "a_b_2", "a_b_3"]),
        (["a b", "a.b", "a_b_2"], ["a_b", "a_b_2", "a_b_2_2"]),
    ],
)
def test_no_two_columns_are_one_field(columns: list[str], fields: list[str]) -> None:
    assert list(field_names(columns).values()) == fields


def test_images_in_larger_files_become_files_for_fiftyone(squares: Path, tmp_path: Path) -> None:
    given = pd.read_csv(squares / "metadata.csv")
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(2), a=datasets.Value("int64"))
    rows = given[["path", "y", "a"]].assign(path=[str(squares / path) for path in given["path"]])
    rows = rows.rename(columns={"path": "image", "y": "label"})
    parts = {
        name: datasets.Dataset.from_dict(rows[given["split"] == split].to_dict(orient="list"), features=features)
        for name, split in (("train", "train"), ("validation", "val"), ("test", "test"))
    }
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "shards"))
    settings = sm.TrainSettings(**{**tiny.QUICK, "epochs": 1}, image_size=16, attribute="a")
    run = sm.train(tmp_path / "shards", tmp_path / "run", settings)
    table = sm.sample_table(run)
    sm.export("fiftyone", run, tmp_path / "folder")
    found = imported_by_fiftyone(tmp_path / "folder")
    first_test = table.index[table["split"] == "test"][0]
    original = rows.loc[given["split"] == "test", "image"].iloc[0]
    copy = list(found)[first_test]
    assert copy.suffix == ".png"
    assert np.array_equal(np.array(Image.open(copy)), np.array(Image.open(original)))
    sm.export("datasets", run, tmp_path / "saved")
    stored = datasets.load_from_disk(str(tmp_path / "saved"))["test"].cast_column("image", datasets.Image(decode=False))
    assert np.array_equal(np.array(Image.open(BytesIO(stored[0]["image"]["bytes"]))), np.array(Image.open(original)))


def test_texts(tmp_path: Path, capsys: Capture) -> None:
    pytest.importorskip("transformers")
    make_negated_pairs(tmp_path / "pairs", NegatedPairsSettings(train=40, val=12, test=16))
    model = f"hf:{tmp_path / 'pairs' / 'network'}"
    run = sm.train(tmp_path / "pairs", tmp_path / "run", sm.TrainSettings(model=model, weights="none", epochs=1))
    given = pd.read_csv(tmp_path / "pairs" / "metadata.csv")
    table = sm.sample_table(run)
    assert table[["text", "text_pair"]].to_numpy().tolist() == given[["text", "text_pair"]].to_numpy().tolist()
    sm.export("datasets", run, tmp_path / "saved")
    saved = datasets.load_from_disk(str(tmp_path / "saved"))["train"]
    assert saved["text"][:] == given.loc[given["split"] == "train", "text"].tolist()
    assert "image" not in saved.features
    said = tiny.spurmem(capsys, "export", "fiftyone", run.path, "--out", tmp_path / "folder")
    assert "choose csv or datasets" in said.error
    assert sm.model_card(run).startswith("## Evaluation")
    groups = tmp_path / "groups.csv"
    table[["path", "attribute"]].to_csv(groups, index=False)
    assert "CLIP compares images" in tiny.spurmem(capsys, "words", tmp_path / "pairs", groups).error


@pytest.mark.parametrize("format", ["datasets", "fiftyone"])
def test_nothing_is_overwritten_and_nothing_is_left_half_written(
    format: str, run: sm.Run, squares: Path, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    said = tiny.spurmem(capsys, "export", format, run.path, "--out", tmp_path / "mine")
    assert "is not empty: choose another place" in said.error
    shutil.copytree(squares, tmp_path / "moved")
    (tmp_path / "moved" / "test_0_00.png").unlink()
    flags = ("--data", tmp_path / "moved", "--out", tmp_path / "new")
    assert "moved" in tiny.spurmem(capsys, "export", format, run.path, *flags).error
    assert not (tmp_path / "new").exists()


def test_the_model_card(run: sm.Run, studied: sm.Study, scores: Path, tmp_path: Path, capsys: Capture) -> None:
    flags = ("--memorization", scores, "--epoch", studied.record["epoch"], "--out", tmp_path / "card.md")
    said = tiny.spurmem(capsys, "export", "model-card", run.path, *flags)
    assert said.status == 0, said.err
    card = (tmp_path / "card.md").read_text()
    template = ["## Evaluation", "### Testing Data, Factors & Metrics", "#### Testing Data", "#### Factors"]
    template += ["#### Metrics", "### Results", "#### Summary"]
    headings = [line for line in card.splitlines() if line.startswith("#")]
    assert [line for line in headings if line in template] == template
    history = run.history()
    test = history[(history["epoch"] == studied.record["epoch"]) & (history["split"] == "test")].set_index("group")
    worst = (test["correct"] / test["n"]).min()
    assert f"an accuracy of {100 * worst:.1f} %" in card
    assert f"The average is {100 * test['correct'].sum() / test['n'].sum():.1f} %" in card
    for name in run.record.data.groups.names:
        assert f"| {name}" in card
    assert "Memorization scores" in card
    assert f"(study {studied.name})" in card


def test_gaps_are_those_of_the_other_samples_times_their_share() -> None:
    from statsmodels.stats.proportion import confint_proportions_2indep

    from spurious_memorization.exporting.model_card import group_gaps

    counts = pd.DataFrame({"group_name": ["a", "b", "none", "c"], "n": [40, 10, 0, 50], "correct": [36, 4, 0, 45]})
    gaps = group_gaps(counts).set_index("group_name")
    assert gaps.index.tolist() == ["a", "b", "c"]
    assert gaps.loc["b", "gap"] == pytest.approx(0.85 - 0.4)
    low, high = confint_proportions_2indep(81, 90, 4, 10, method="newcomb")
    assert gaps.loc["b", ["gap_low", "gap_high"]].tolist() == pytest.approx([0.9 * low, 0.9 * high])
    alone = group_gaps(counts[:1]).iloc[0]
    assert (alone["gap"], np.isnan(alone["gap_low"])) == (0, True)


def test_a_name_with_html_stays_text(tmp_path: Path) -> None:
    settings = sm.TrainSettings(**{**tiny.QUICK, "epochs": 1})
    run = sm.train(tiny.hostile_images(tmp_path / "data"), tmp_path / "run", settings)
    card = sm.model_card(run)
    assert "<" not in card
    assert "&lt;" in card
    samples = sm.sample_table(run)
    sm.export("csv", run, tmp_path / "samples.csv")
    assert pd.read_csv(tmp_path / "samples.csv", keep_default_na=False)["group"].tolist() == samples["group"].tolist()
