"""The report: its numbers are those that are stored, its images the right ones, and text stays text."""

from __future__ import annotations

import base64
import csv
import io
import json
import shutil
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from PIL import Image
from report_page import Page

import spurious_memorization as sm
from spurious_memorization.datasets.sources import Images
from spurious_memorization.reporting import top_activating as exciting_module
from spurious_memorization.reporting.figure import CHOOSERS
from spurious_memorization.reporting.tables import edit_text, findings, selected_by
from spurious_memorization.reporting.top_activating import top_activating

pytestmark = pytest.mark.filterwarnings("ignore:all .* samples .* are classified correctly", "ignore:only .* controls")

Capture = pytest.CaptureFixture[str]

NAMES = ("class 0 with color 0", "class 0 with color 1", "class 1 with color 0", "class 1 with color 1")


@pytest.fixture
def run(studied: sm.Study, tmp_path: Path) -> sm.Run:
    return tiny.copied(sm.Run(studied.path.parent.parent), tmp_path / "run")


def test_accuracies_are_those_of_the_history(page: Page, trained: sm.Run) -> None:
    history = pd.read_parquet(trained.path / "history.parquet")
    stored = {(NAMES[row.group], str(row.split), row.epoch): (row.correct, row.n) for row in history.itertuples()}
    table = page.tables["accuracy"]
    assert len(table) == len(stored) == 4 * 4 * 3
    for row, shown in zip(table, page.shown["accuracy"], strict=True):
        correct, n = stored.pop((row["group"], row["split"], row["epoch"]))
        assert (row["correct"], row["n"], row["accuracy"]) == (correct, n, correct / n)
        assert shown["accuracy"] == f"{100 * correct / n:.1f} %"
        assert row["low"] <= row["accuracy"] <= row["high"]
    drawn = page.rows("accuracy")
    assert drawn["accuracy"].tolist() == [row["accuracy"] for row in table]
    assert drawn["epoch"].tolist() == [row["epoch"] for row in table]


def test_counts_of_the_data_set(page: Page, squares: Path) -> None:
    table = pd.read_csv(squares / "metadata.csv")
    for row in page.tables["counts"]:
        here = table[table["y"] * 2 + table["a"] == NAMES.index(row["group"])]
        for split in ("train", "val", "test"):
            assert row[f"n_{split}"] == (here["split"] == split).sum()


def in_words(effects: pd.DataFrame) -> pd.DataFrame:
    words = [(edit_text(row), selected_by(row)) for row in effects.to_dict(orient="records")]
    return effects.assign(
        edit=[edit for edit, _ in words], criterion=[by for _, by in words], group=effects["group_name"]
    )


def test_shifts_are_those_of_the_effects_and_results(page: Page, studied: sm.Study) -> None:
    effects = in_words(pd.read_parquet(studied.path / "effects.parquet"))
    keys = ["split", "edit", "criterion", "size", "group"]
    stored = effects.set_index(keys)
    assert len(page.tables["accuracy_changes"]) == len(effects)
    columns = {"accuracy_change_low": "low", "accuracy_change_high": "high"}
    for row, shown in zip(page.tables["accuracy_changes"], page.shown["accuracy_changes"], strict=True):
        of = stored.loc[tuple(row[key] for key in keys)]
        for name in (
            "n", "accuracy_before", "accuracy_after", "accuracy_change", "accuracy_change_low", "accuracy_change_high", "margin_change", "n_controls",
            "n_controls_as_large", "tested_accuracy_change", "control_low", "control_median", "control_high", "norm_ratio",
        ):  # fmt: skip
            expected = of[columns.get(name, name)]
            if pd.isna(expected):
                assert shown[name] == "-"
            else:
                assert row[name] == expected, name
        assert shown["accuracy_change"] == f"{round(100 * of['accuracy_change'], 1) + 0.0:+.1f}"
    results, variants = pd.read_parquet(studied.path / "results.parquet"), studied.variants()
    whole = results[results["subset"] == "all"].merge(
        variants.query("family == 'selected' and fold == -1"), on="variant"
    )
    summed = whole.groupby(["split", "selected_set", "group_x"])[["n", "correct_before", "correct_after"]].sum()
    accuracy_changes = ((summed["correct_after"] - summed["correct_before"]) / summed["n"]).to_dict()
    for row in effects.itertuples():
        number = NAMES.index(row.group_name)
        assert row.accuracy_change == pytest.approx(accuracy_changes[row.split, row.selected_set, number])


def test_drawn_controls_are_those_of_the_results(page: Page, studied: sm.Study) -> None:
    """For each set, the accuracy change of every control on the samples where it stands beside the set, counted anew."""
    results, variants = pd.read_parquet(studied.path / "results.parquet"), studied.variants()
    effects = in_words(studied.effects())
    drawn = page.rows("accuracy_changes")
    keys = ["split", "edit", "criterion", "size", "group"]
    drawn_of = dict(list(drawn.groupby(keys)))
    seen = 0
    for (number, split, group), rows in effects.groupby(["selected_set", "split", "group"]):
        about = rows.iloc[0]
        tested = variants[(variants["selected_set"] == number) & (variants["pool"] >= 0)]
        sums: dict[tuple[int, int], Counter[str]] = {}
        for pool, fold in set(zip(tested["pool"], tested["fold"], strict=True)):
            drawn_there = variants[(variants["family"] == "random") & (variants["pool"] == pool)]
            same = (drawn_there[["size", "kind", "parameters"]] == about[["size", "kind", "parameters"]]).all(axis=1)
            for control in drawn_there[same].itertuples():
                here = results[(results["variant"] == control.variant) & (results["split"] == split)]
                here = here[(here["group"] == NAMES.index(group)) & (here["subset"] == "per_group_4")]
                here = here if fold == -1 else here[here["half"] == 1 - fold]
                counts = sums.setdefault((control.control, control.repeat), Counter())
                counts.update({"n": int(here["n"].sum())})
                counts["wrong"] += int(here["correct_before"].sum() - here["correct_after"].sum())
        by_control: dict[int, list[float]] = {}
        for (control, _), counts in sums.items():
            by_control.setdefault(control, []).append(-counts["wrong"] / counts["n"])
        expected = Counter(round(float(np.mean(values)), 9) for values in by_control.values())
        rows = drawn_of[split, about["edit"], about["criterion"], about["size"], group]
        there = rows[rows["kind"].str.startswith("matched")]
        assert (
            Counter(dict(zip(there["accuracy_change"].round(9), there["count"].astype(int), strict=True))) == expected
        )
        (diamond,) = rows.loc[rows["kind"].str.contains("controls'"), "accuracy_change"]
        (whole,) = rows.loc[rows["kind"].str.contains("all samples"), "accuracy_change"]
        assert (diamond, whole) == (about["tested_accuracy_change"], about["accuracy_change"])
        seen += 1
    assert seen == len(effects)


def test_verdicts_are_those_of_the_effects(page: Page, studied: sm.Study) -> None:
    stored = in_words(studied.effects()).set_index(["split", "edit", "criterion", "size", "group"])
    assert {row["group"] for row in page.tables["verdicts"]} == {NAMES[1], NAMES[2]}
    for row in page.tables["verdicts"]:
        of = stored.loc[tuple(row[key] for key in ("split", "edit", "criterion", "size", "group"))]
        assert row["verdict"] == of["verdict"]
        for name in ("p_adjusted", "difference", "p_selective", "contrast", "contrast_low", "contrast_high"):
            assert row[name] == ("-" if pd.isna(of[name]) else of[name])
        for name in ("influential", "selective", "memorizing"):
            assert row[name] == ("-" if of[name] is None else of[name])


def test_the_map_of_layers_counts_the_selected_units(page: Page, studied: sm.Study) -> None:
    variants = studied.variants().query("family == 'selected' and fold == -1 and repeat == 0")
    expected: Counter[tuple[str, str]] = Counter()
    for row in variants.itertuples():
        expected.update((row.size, unit.split(":")[0]) for unit in row.units.split(","))
    found: Counter[tuple[str, str]] = Counter()
    for row in page.tables["layers"]:
        found[row["size"], row["layer"]] += row["n_in_layer"]
        assert len(row["units"].split(", ")) == row["n_in_layer"]
    assert found == expected


def test_the_ablation_map(page: Page, studied: sm.Study) -> None:
    (file,) = (studied.path.parent.parent / "ablations").glob("*/map.parquet")
    effects = pd.read_parquet(file)
    for row in page.tables["ablation"]:
        here = (effects["tensor"] == f"{row['layer']}.weight") & (effects["group"] == row["group"])
        accuracy_changes = effects.loc[here, "margin_change"]
        assert row["n_in_layer"] == len(accuracy_changes)
        assert (row["least"], row["most"]) == (accuracy_changes.min(), accuracy_changes.max())
        assert row["middle"] == pytest.approx(accuracy_changes.median())


def test_the_finding_stands_first(page: Page, studied: sm.Study) -> None:
    sentences = findings(studied.effects())
    assert len(sentences) == 2
    places = [page.text.index(sentence) for sentence in sentences]
    assert places == sorted(places)
    assert places[-1] < page.text.index("Right in training, wrong in test?")


def test_changed_images_are_those_of_the_outcomes(page: Page, studied: sm.Study, squares: Path) -> None:
    paths = pd.read_csv(squares / "metadata.csv")["path"]
    y = pd.read_csv(squares / "metadata.csv")["y"]
    outcomes, variants = studied.outcomes("train"), studied.variants()
    before = outcomes.query("variant == -1").set_index("sample")["predicted"]
    selected = variants.query("family == 'selected' and fold == -1 and repeat == 0")
    items = page.data["gallery"]["items"]
    assert len(items) == len(selected)
    for row in selected.itertuples():
        about = in_words(studied.effects()).query("selected_set == @row.selected_set").iloc[0]
        (shown,) = [e for e in items if all(e[name] == about[name] for name in ("edit", "criterion", "size"))]
        after = outcomes.query("variant == @row.variant").set_index("sample")["predicted"]
        changed = set(after.index[after != before[after.index]])
        assert sum(shown["selected"]["changed"].values()) == len(changed)
        assert shown["selected"]["units"] == row.units.split(",")
        samples = {int(p["sample"].split(":")[1]): p for p in shown["selected"]["images"]}
        assert set(samples) <= changed
        for group, n in shown["selected"]["changed"].items():
            assert sum(p["group"] == group for p in samples.values()) == min(n, 6)
        for sample, image in samples.items():
            assert (image["before"], image["after"]) == (f"class {before[sample]}", f"class {after[sample]}")
            stored = page.data["gallery"]["samples"][image["sample"]]
            assert stored["path"] == paths[sample]
            assert stored["label"] == f"class {y[sample]}"


def test_images_are_the_right_files(page: Page, squares: Path) -> None:
    assert page.data["gallery"]["samples"]
    paths = pd.read_csv(squares / "metadata.csv")["path"]
    originals = {path: np.asarray(Image.open(squares / path).convert("RGB"), float) for path in paths}
    for sample in page.data["gallery"]["samples"].values():
        kind, _, encoded = sample["image"].partition(",")
        assert kind == "data:image/jpeg;base64"
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB"), float)
        others = [other for path, other in originals.items() if path != sample["path"]]
        assert all(np.abs(shown - other).mean() > np.abs(shown - originals[sample["path"]]).mean() for other in others)


def test_exciting_images_by_hand(page: Page, studied: sm.Study, squares: Path) -> None:
    """conv1 stands before a batch norm, conv2 doesn't."""
    run = sm.Run(studied.path.parent.parent)
    network, train = run.network(3), run.read_data(squares).train
    with torch.no_grad():
        network.bn1.weight[3] *= -1
        first = network.conv1(train.batch().inputs)
        second = network.conv2(network.relu1(network.bn1(first)))
    found = top_activating(network, train, ["conv1:3", "conv2:7", "conv1:0"], k=5)
    for unit, values in (("conv1:3", -first[:, 3]), ("conv2:7", second[:, 7]), ("conv1:0", first[:, 0])):
        best = values.amax((1, 2))
        order = best.argsort(descending=True)[:5]
        rows = found[found["unit"] == unit]
        assert rows["sample"].tolist() == train.index[order.numpy()].tolist()
        np.testing.assert_allclose(rows["activation"], best[order], rtol=1e-4)
    for item in page.data["gallery"]["items"]:
        assert set(item["top_activating"]) == {*item["selected"]["units"], *item["control"]["units"]}
        assert item["n_seen"] == len(train)
    stored = pd.read_parquet(studied.path / "top-activating.parquet")
    assert stored.groupby("unit").size().eq(12).all()


def test_the_pass_over_the_images_is_kept(run: sm.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    first = sm.report([run.path]).read_bytes()
    monkeypatch.setattr(exciting_module, "top_activating", None)
    assert sm.report([run.path]).read_bytes() == first


def test_the_pages_choosers_are_those_of_the_command(page: Page) -> None:
    assert set(CHOOSERS) - {"run"} == set(sm.FigureSettings.model_fields) - {"format"}
    for name, figure in page.data["figures"].items():
        assert set(figure["choosers"]) <= set(CHOOSERS), name


def test_nothing_is_loaded_and_no_script_runs_but_ours(file: Path, page: Page) -> None:
    text = file.read_text(encoding="utf-8")
    assert "default-src &#39;none&#39;; script-src &#39;sha256-" in text
    assert page.elements["script"] == 3
    assert page.elements["img"] == page.elements["link"] == page.elements["iframe"] == 0
    assert {"src", "href", "onload", "onerror", "onclick"} & set(page.attributes) == set()
    assert file.stat().st_size < 5_000_000


def test_names_can_inject_nothing(hostile: sm.Run, page: Page, tmp_path: Path) -> None:
    shown = Page(sm.report([hostile.path], tmp_path / "page.html"))
    for tag in ("script", "img", "b", "table", "section", "h1"):
        assert shown.elements[tag] == page.elements[tag], tag
    assert set(shown.attributes) == set(page.attributes)
    groups = {row["group"] for row in shown.tables["accuracy"]}
    expected = {f"{c} with {a}" for c in tiny.HOSTILE["classes"] for a in tiny.HOSTILE["attributes"]}
    assert groups == expected
    for name in ("svg", "latex"):
        files = sm.draw("all", [hostile.path], tmp_path / name, sm.FigureSettings(format=name))
        assert len(files) >= 6
    for drawn in (tmp_path / "svg").iterdir():
        tags = {element.tag.rpartition("}")[2] for element in ET.parse(drawn).iter()}
        assert not tags & {"script", "b", "img"}


def test_without_the_data_the_page_says_why_there_are_no_images(
    squares: Path, run: sm.Run, tmp_path: Path, capsys: Capture
) -> None:
    record = json.loads((run.path / "run.json").read_text())
    record["data"]["folder"] = str(tmp_path / "gone")
    (run.path / "run.json").write_text(json.dumps(record))
    said = tiny.spurmem(capsys, "report", run.path)
    assert said.status == 0, said.err
    without = Page(run.path / "report.html")
    assert f"No images of {run.path}: the run's data folder {tmp_path / 'gone'} is gone" in without.text
    assert without.tables["accuracy_changes"]
    shutil.copytree(squares, tmp_path / "moved")
    said = tiny.spurmem(capsys, "report", run.path, "--data", tmp_path / "moved", "--json")
    assert json.loads(said.out) == {"report": str(run.path / "report.html")}
    assert "No images" not in Page(run.path / "report.html").text


def test_a_run_without_a_study(trained: sm.Run, tmp_path: Path) -> None:
    run = tiny.copied(trained, tmp_path / "run")
    shown = Page(sm.report([run.path]))
    assert f"`spurmem study {run.path}` measures edits of it" in shown.text
    assert set(shown.tables) == {"accuracy", "counts"}


def test_several_runs(run: sm.Run, trained: sm.Run, tmp_path: Path) -> None:
    shown = Page(sm.report([run.path, trained.path], tmp_path / "page.html"))
    history = trained.history().query("epoch == 3")
    for row in shown.tables["comparison"]:
        here = history[history["group"] == NAMES.index(row["group"])].set_index("split")
        for split in ("train", "val", "test"):
            assert row[split] == here["correct"][split] / here["n"][split]
        assert row["gap"] == pytest.approx(row["train"] - row["test"])
    assert len(shown.tables["comparison"]) == 8
    assert {row["run"] for row in shown.tables["accuracy"]} == {str(run.path), str(trained.path)}
    images = [sample["image"] for sample in shown.data["gallery"]["samples"].values()]
    assert len(set(images)) == len(images)


DRAWN = {"accuracy", "accuracy_changes", "layers", "ablation", "comparison", "images"}


def test_every_figure_as_svg(run: sm.Run, tmp_path: Path, capsys: Capture) -> None:
    said = tiny.spurmem(capsys, "figure", "all", run.path, "--out", tmp_path)
    assert said.status == 0, said.err
    assert {file.name for file in tmp_path.glob("*.*")} == {f"{name}.svg" for name in DRAWN}
    for file in tmp_path.glob("*.svg"):
        text = file.read_text()
        assert ET.fromstring(text).tag.endswith("svg")
        assert "var(--" not in text
        assert text.count("<path") + text.count("<image") > 5, file.name


@pytest.mark.slow
def test_every_figure_as_png_and_pdf(run: sm.Run, tmp_path: Path, capsys: Capture) -> None:
    for style in ("png", "pdf"):
        said = tiny.spurmem(capsys, "figure", "all", run.path, "--format", style, "--out", tmp_path / style)
        assert said.status == 0, said.err
        assert {file.name for file in (tmp_path / style).iterdir()} == {f"{name}.{style}" for name in DRAWN}
    for file in (tmp_path / "png").iterdir():
        with Image.open(file) as image:
            assert min(image.size) > 200
    assert all(file.read_bytes().startswith(b"%PDF") for file in (tmp_path / "pdf").iterdir())


def test_every_table_in_every_format(run: sm.Run, tmp_path: Path, capsys: Capture) -> None:
    for style, ending in (("latex", "tex"), ("markdown", "md"), ("csv", "csv")):
        said = tiny.spurmem(capsys, "figure", "all", run.path, "--format", style, "--out", tmp_path / style)
        assert said.status == 0, said.err
        names = {f"{name}.{ending}" for name in {*DRAWN, "verdicts", "counts"}}
        assert {file.name for file in (tmp_path / style).iterdir()} == names
    assert r"\toprule" in (tmp_path / "latex" / "accuracy_changes.tex").read_text()
    assert (tmp_path / "markdown" / "verdicts.md").read_text().startswith("**Verdicts on minority groups**\n\n| ")
    rows = list(csv.DictReader((tmp_path / "csv" / "comparison.csv").read_text().splitlines()))
    history = run.history().query("epoch == 3 and split == 'test'").set_index("group")
    assert [float(row["test"]) for row in rows] == (history["correct"] / history["n"]).tolist()


def test_a_choice_takes_rows_out(run: sm.Run, tmp_path: Path, capsys: Capture) -> None:
    flags = ("--split=test", "--criterion=gradient", "--size=2", "--group", NAMES[1], "--edit=zero", "--format=csv")
    said = tiny.spurmem(capsys, "figure", "accuracy_changes", run.path, *flags, "--out", tmp_path)
    assert said.status == 0, said.err
    table = pd.read_csv(tmp_path / "accuracy_changes.csv")
    assert len(table) == 2
    assert set(table["criterion"]) == {f"gradient ({NAMES[1]})", f"gradient ({NAMES[2]})"}
    assert (table["split"] == "test").all()
    assert (table["size"] == 2).all()
    assert (table["group"] == NAMES[1]).all()


def test_images_of_a_choice(run: sm.Run, tmp_path: Path) -> None:
    choice = sm.FigureSettings(criterion="weight_norm", size="2", edit="zero", group=NAMES[1], format="csv")
    (file,) = sm.draw("images", [run.path], tmp_path, choice)
    table = pd.read_csv(file)
    assert (table["group"] == NAMES[1]).all()
    assert (table["criterion"] == "weight_norm").all()
    source = run.read_data().source
    assert isinstance(source, Images)
    assert [source.paths[i] for i in table["sample"]] == table["path"].tolist()


ERRORS = [
    (("figure", "accuracy_changes", "RUN", "--size=7"), "accuracy_changes has no size '7': choose among '1', '2'"),
    (("figure", "accuracy_changes", "RUN", "--group=nobody"), "accuracy_changes has no group 'nobody'"),
    (("figure", "verdicts", "RUN"), "verdicts is a table: write it with --format latex, markdown or csv"),
    (("figure", "accuracy_changes", "RUN", "--format=gif"), "gif"),
    (("figure", "accuracies", "RUN"), "accuracies"),
    (("figure", "images", "RUN", "--criterion=taylor"), "images has no criterion 'taylor'"),
    (("report", "RUN", "RUN"), "a run is named twice"),
    (("report", "RUN", "--study=other"), "no finished study 'other'"),
    (("report", "nowhere"), "nowhere is no run"),
    (("report",), "no run is named"),
    (("figure", "accuracy_changes"), "no run is named"),
    (("report", "RUN", "--out=RUN/run.json/page.html"), "is not a folder"),
]


@pytest.mark.parametrize(("words", "error"), ERRORS, ids=[" ".join(words) for words, _ in ERRORS])
def test_errors_are_one_line(words: tuple[str, ...], error: str, run: sm.Run, tmp_path: Path, capsys: Capture) -> None:
    before = tiny.files_below(run.path)
    said = tiny.spurmem(capsys, *(word.replace("RUN", str(run.path)) for word in words))
    assert error in said.error
    assert tiny.files_below(run.path) <= before | {"studies/both/top-activating.parquet"}


def test_what_was_not_measured_is_said(trained: sm.Run, tmp_path: Path, capsys: Capture) -> None:
    run = tiny.copied(trained, tmp_path / "run")
    assert "--criterion ablation" in tiny.spurmem(capsys, "figure", "ablation", run.path).error
    assert "spurmem study" in tiny.spurmem(capsys, "figure", "accuracy_changes", run.path).error
    assert "spurmem study" in tiny.spurmem(capsys, "figure", "images", run.path).error


def test_single_weights_and_heads_have_no_exciting_images(trained: sm.Run, tmp_path: Path) -> None:
    run = tiny.copied(trained, tmp_path / "run")
    sm.study(run, sm.StudySettings(criterion=("weight_norm",), unit="weight", size=("3", "50%"), controls=2))
    shown = Page(sm.report([run.path]))
    (item,) = shown.data["gallery"]["items"]  # the units of the large set aren't listed
    assert item["top_activating"] == {}
    assert item["size"] == "3"
    assert len(shown.tables["accuracy_changes"]) == 2 * 2 * 4
