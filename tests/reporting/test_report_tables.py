"""The numbers of the report page are the stored ones."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from report_page import NAMES, Page, in_words

import spurious_memorization as sm
from spurious_memorization.calibration.rates import published_rates
from spurious_memorization.reporting.tables.findings import findings, headline

pytestmark = pytest.mark.filterwarnings("ignore:all .* samples .* are classified correctly", "ignore:only .* null sets")


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


def test_accuracy_changes_are_those_of_the_effects_and_results(page: Page, studied: sm.Study) -> None:
    effects = in_words(pd.read_parquet(studied.path / "effects.parquet"))
    keys = ["split", "edit", "criterion", "size", "group"]
    stored = effects.set_index(keys)
    assert len(page.tables["accuracy_changes"]) == len(effects)
    columns = {"accuracy_change_low": "low", "accuracy_change_high": "high"}
    for row, shown in zip(page.tables["accuracy_changes"], page.shown["accuracy_changes"], strict=True):
        of = stored.loc[tuple(row[key] for key in keys)]
        for name in (
            "n", "accuracy_before", "accuracy_after", "accuracy_change", "accuracy_change_low", "accuracy_change_high",
            "margin_change", "n_controls", "n_controls_as_large", "tested_accuracy_change", "control_low",
            "control_median", "control_high", "norm_ratio",
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


@pytest.mark.slow
def test_drawn_controls_are_those_of_the_results(page: Page, studied: sm.Study) -> None:
    """For each set, the accuracy change of every control on the samples on which the two are compared, counted anew."""
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
        there = rows[rows["kind"].str.startswith("null sets")]
        assert (
            Counter(dict(zip(there["accuracy_change"].round(9), there["count"].astype(int), strict=True))) == expected
        )
        (diamond,) = rows.loc[rows["kind"].str.contains("null sets' samples"), "accuracy_change"]
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
        for name in (
            "p_adjusted", "p_beyond_norm", "difference", "p_selective", "p_selective_margin", "majority_change",
            "overlap", "damage", "n_damage_matched", "damage_ratio", "matched_drop", "p_localized", "contrast",
            "matched_contrast", "p_memorizing", "p_contrast",
        ):  # fmt: skip
            assert row[name] == ("-" if pd.isna(of[name]) else of[name])
        for name in ("influential", "selective", "localized", "memorizing"):
            assert row[name] == ("-" if of[name] is None else of[name])


def test_groups_are_those_of_the_study(page: Page, studied: sm.Study) -> None:
    stored = studied.groups()
    assert len(page.tables["groups"]) == len(stored) == 4
    for row, shown, of in zip(
        page.tables["groups"], page.shown["groups"], stored.to_dict(orient="records"), strict=True
    ):
        assert row["group"].removesuffix(" (minority)") == of["group_name"]
        assert row["group"].endswith(" (minority)") == of["minority"]
        for name in ("n_train", "train_accuracy", "n_unseen", "unseen_accuracy", "difference"):
            assert row[name] == of[name]
        assert (row["difference_low"], row["difference_high"]) == (of["low"], of["high"])
        assert shown["memorized"] == ("yes" if of["memorized"] else "no")


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


def test_the_page_answers_its_questions_in_order(page: Page, studied: sm.Study) -> None:
    sentences = findings(studied.effects(), studied.groups())
    assert len(sentences) == 3
    first = headline(studied.effects(), studied.groups())
    assert first in sentences
    words = ["In short", "What does this network memorize?", first[1:-1], "Is a group memorized?"]
    words += ["Where in the network?", *sentences, "How sure is that?", "Which images?", "How this was made"]
    places = [0]
    for word in words:
        places.append(page.text.index(word, places[-1]))


def test_the_page_shows_the_rates_of_the_calibration(page: Page) -> None:
    rows = {(row["question"], row["null"]): row for row in page.unnamed if "null" in row}
    rate = published_rates().rates["never_trained_verdict"]
    shown = rows["verdict memorizing", "layers that were never trained, by gradient"]
    assert (shown["n"], shown["rate"]) == (rate.n, rate.value)
    assert "They were not measured on your network." in page.text.replace("\n", " ")
