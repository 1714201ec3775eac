"""A study's answer: sentences and tables."""

from __future__ import annotations

import pandas as pd
import pytest

import spurious_memorization as sm
from spurious_memorization.reporting.tables.findings import findings
from spurious_memorization.reporting.tables.study_tables import (
    MAX_SUMMARY_ROWS,
    all_study_tables,
    groups_table,
    summary_table,
    verdict_table,
)

TEST = {
    "split": "train", "criterion": "gradient", "traced_on": "b on water", "kind": "zero", "parameters": "{}",
    "size": "1", "unit": "channel", "n_units": 1, "units": "conv1:5", "selected_set": 0, "group": 1,
    "group_name": "b on water", "minority": True, "accuracy_change": -0.3, "tested_accuracy_change": -0.25,
    "control_low": -0.02, "control_median": 0.0, "control_high": 0.01, "n_controls": 99, "p_adjusted": 0.0001,
    "p_beyond_norm": 0.003, "drawn_from": "random, of the same layers",
    "matched_from": "random, of any size, of the same layers", "controls_on": "all",
    "difference": 0.2, "p_selective": 0.002, "p_localized": 0.02, "matched_drop": 0.05, "contrast": 0.5,
    "majority_change": -0.05,
    "matched_contrast": 0.4, "p_memorizing": 0.01, "p_contrast": 0.3, "influential": True, "selective": True,
    "localized": True, "memorizing": False, "verdict": "none", "reason": "",
}  # fmt: skip
GROUP = {
    "group": 1, "group_name": "b on water", "minority": True, "n_train": 50, "train_accuracy": 1.0, "n_unseen": 90,
    "unseen_accuracy": 0.333, "difference": 0.667, "low": 0.53, "high": 0.772, "memorized": True,
}  # fmt: skip
MEMORIZED = "b on water is memorized (100 % in training, 33 % on unseen samples, difference 67 points, 53 to 77)"


def effects(*changes: dict[str, object]) -> pd.DataFrame:
    return pd.DataFrame([{**TEST, "selected_set": i, **change} for i, change in enumerate(changes)])


def groups(*changes: dict[str, object]) -> pd.DataFrame:
    return pd.DataFrame([{**GROUP, **change} for change in changes])


INFLUENTIAL = {"verdict": "influential", "selective": False, "localized": None, "p_localized": None}


def test_a_memorized_group_that_nothing_was_localized_of() -> None:
    assert findings(effects({}, {}, {}, {}), groups({})) == [
        f"{MEMORIZED}, no evidence that it is localized (smallest p of 4 tests: 0.003).",
        "Verdicts of 4 tests: 4 none.",
    ]
    first, last = findings(effects(INFLUENTIAL, {"verdict": "selective"}), groups({}))
    assert first == (
        f"{MEMORIZED}, no evidence that it is localized; sets that lower its accuracy lower that of majority samples "
        "of the same margin as well."
    )
    assert last == "Verdicts of 2 tests: 1 influential, 1 selective."


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"p_localized": 0.4, "localized": False}, "lower its accuracy as far (smallest p: 0.400)"),
        ({"localized": None, "p_localized": None}, "too few random sets disturb the network as much"),
        ({"selective": None}, "there are too few majority samples of the same margin"),
    ],
)
def test_what_stood_in_the_way(changes: dict[str, object], reason: str) -> None:
    first, _ = findings(effects({**changes, "verdict": "influential"}), groups({}))
    assert first.startswith(f"{MEMORIZED}, no evidence that it is localized; ")
    assert reason in first


def test_a_critical_set() -> None:
    other = {"group_name": "a on land", "group": 2}
    first, figures, second, last = findings(
        effects({"verdict": "critical"}, other), groups({}, {**other, "memorized": False, "low": -0.01})
    )
    assert first == f"{MEMORIZED}: localized in 1 channel of conv1 (conv1:5), selected by gradient (b on water)."
    assert figures == (
        "Zero changes its accuracy by -25.0 points (random units of the same layers: -2.0 to +1.0, p = 0.003); it "
        "loses 20.0 points more than majority samples of the same margin (p = 0.002), and 20.0 points more than with "
        "sets of the same damage (p = 0.020); it may hold a feature of the group: the margins of its training samples "
        "fall +0.50 further than those of unseen ones (p = 0.300), and +0.40 further with sets of the same damage "
        "(p = 0.010)."
    )
    assert second.startswith("a on land is not memorized, as far as these samples show (100 % in training, ")
    assert second.endswith("): no critical set was found for it (smallest p of 1 test: 0.003).")
    assert last == "Verdicts of 2 tests: 1 critical, 1 none."


def test_a_transplant_of_the_same_units_is_a_second_test() -> None:
    transplant = {"kind": "transplant", "tested_accuracy_change": -0.2, "verdict": "memorizing", "difference": 0.1}
    unseen = {**transplant, "split": "test", "selected_set": 1, "accuracy_change": -0.01, "verdict": "none"}
    rows = effects({"verdict": "memorizing", "difference": 0.5}, transplant, {})
    rows.loc[2] = {**rows.loc[1].to_dict(), **unseen}
    *_, second, last = findings(rows, groups({}))
    assert second == (
        "A second test gives these units the weights of a twin that was trained without the samples: -20.0 points on "
        "training samples (p = 0.003), -1.0 points on unseen ones; verdict memorizing."
    )
    assert last == "Verdicts of 2 tests: 2 memorizing."
    others = rows.assign(units=["conv1:5", "conv1:6", "conv1:6"])
    assert not any("A second test" in sentence for sentence in findings(others, groups({})))


def test_the_strongest_set_is_a_memorizing_one() -> None:
    first, figures, last = findings(
        effects(
            {"verdict": "critical", "difference": 0.9},
            {
                "verdict": "memorizing",
                "p_contrast": 0.01,
                "n_units": 3,
                "units": "a:1,b:2,a:3",
                "parameters": '{"over": "unseen"}',
                "kind": "mean",
            },
        ),
        groups({}),
    )
    assert (
        "localized in 3 channels of a and b (a:1,b:2,a:3), selected by gradient (b on water), the strongest of 2"
        in (first)
    )
    assert figures.startswith("Mean over=unseen changes its accuracy by ")
    assert "; it holds training samples: " in figures
    assert last == "Verdicts of 2 tests: 1 memorizing, 1 critical."


def test_a_large_set_is_only_counted() -> None:
    large = {"verdict": "critical", "units": None, "n_units": 90, "unit": "weight", "traced_on": None}
    assert ": localized in 90 weights, selected by gradient." in findings(effects(large), groups({}))[0]


def test_without_training_samples_nothing_is_said_about_memorization() -> None:
    unknown = "It is not known whether b on water is memorized, since"
    without = {"verdict": "critical", "split": "test", "contrast": None, "p_memorizing": None, "p_contrast": None}
    for frame in (None, groups({}).iloc[:0]):
        first, figures, _ = findings(effects(without), frame)
        assert first.startswith(f"{unknown} training samples were not measured: 1 channel of conv1 (conv1:5), selected")
        assert first.endswith(" is critical for it.")
        assert "it is not known whether it holds training samples or a feature" in figures
    unseen = groups({"memorized": None, "n_unseen": 0})
    assert findings(effects({}), unseen)[0].startswith(f"{unknown} no unseen samples of it were measured: no critical")


def test_no_verdict() -> None:
    undecided = {"verdict": "no verdict", "reason": "5 null sets: at least 19 are needed", "p_adjusted": None}
    assert findings(effects(undecided), groups({})) == [
        f"{MEMORIZED}: no test on it could be decided.",
        "1 test has no verdict (5 null sets: at least 19 are needed).",
    ]
    assert findings(effects(undecided, {}))[-1] == (
        "Verdicts of 1 test: 1 none; 1 test has no verdict (5 null sets: at least 19 are needed)."
    )
    assert findings(effects({"minority": False})) == ["No minority group was measured, so there is no verdict."]


def test_other_null_sets_are_named_with_their_flag() -> None:
    of_network = {"verdict": "critical", "drawn_from": "random, of the same network"}
    _, figures, last = findings(effects(of_network), groups({}))
    assert "(random units of the same network (--controls-from network): -2.0 to +1.0, p = 0.003)" in figures
    assert last.endswith("; they hold for random units of the same network (--controls-from network).")
    of_stage = effects({"drawn_from": "random, of the same stages"})
    for table in (summary_table(of_stage), verdict_table(of_stage, "train")):
        assert table.text()["verdict"].item() == "none (--controls-from stage)"
        assert "99 sets of random units of the same stages (--controls-from stage)" in table.caption


def test_the_table_of_groups() -> None:
    rows = groups({}, {"memorized": None, "n_unseen": 0, "unseen_accuracy": None, "difference": None, "low": None})
    text = groups_table(rows).text()
    assert text.iloc[0].tolist() == [
        "b on water *", "100.0 % (n=50)", "33.3 % (n=90)", "+66.7 (+53.0 to +77.2)", "yes",
    ]  # fmt: skip
    assert text.iloc[1].tolist() == ["b on water *", "100.0 % (n=50)", "- (n=0)", "-", "-"]


def test_the_verdict_table_has_the_figures_of_each_question() -> None:
    unasked = {"matched_drop": None, "p_localized": None, "contrast": None, "matched_contrast": None}
    text = verdict_table(effects({"verdict": "critical"}, unasked), "train").text()
    assert text.iloc[0, 3:].tolist() == [
        "b on water", "-25.0 (p = 0.003)", "+20.0 (p = 0.002)", "-5.0", "+20.0 (p = 0.020)", "+0.50 (p = 0.300)",
        "+0.10 (p = 0.010)", "critical",
    ]  # fmt: skip
    assert text.iloc[1, 7:10].tolist() == ["-"] * 3


def test_the_summary_has_one_row_per_set_and_minority_group(studied: sm.Study) -> None:
    stored = studied.effects().query("split == 'train' and minority")
    table = summary_table(studied.effects())
    assert len(table.rows) == min(len(stored), MAX_SUMMARY_ROWS)
    text = table.text()
    assert text.columns.tolist() == [
        "selected by", "edit", "size", "group", "accuracy change", "null sets", "p", "verdict",
    ]  # fmt: skip
    for shown, row in zip(text.itertuples(index=False), table.rows.to_dict(orient="records"), strict=True):
        assert shown[4] == f"{round(100 * row['tested_accuracy_change'], 1) + 0.0:+.1f}"
        assert shown[7] == row["verdict"]


def test_a_large_study_shows_the_tests_with_the_smallest_p() -> None:
    many = effects(*({"p_adjusted": (100 - i) / 100, "p_beyond_norm": 0.0, "size": str(i)} for i in range(60)))
    table = summary_table(many)
    assert sorted(table.rows["p_adjusted"]) == sorted(many["p_adjusted"])[:MAX_SUMMARY_ROWS]
    assert f"{MAX_SUMMARY_ROWS} of 60 tests are shown" in table.caption
    assert "edit" not in table.text().columns
    assert "edit zero" in table.title


@pytest.mark.parametrize("controls", [0, 5])
def test_without_null_sets_there_is_no_range(controls: int) -> None:
    text = summary_table(
        effects({"n_controls": controls, "control_low": float("nan") if not controls else -0.1})
    ).text()
    assert text["null sets"].item() == ("-10.0 to +1.0" if controls else "-")
    assert text["accuracy change"].item() == ("-25.0" if controls else "-30.0")


def test_every_other_table_is_for_the_verbose(studied: sm.Study) -> None:
    titles = [table.title for table in all_study_tables(studied)]
    assert titles[0] == "Which groups are memorized"
    assert titles[1].startswith("Accuracy change in train")
    assert any(title.startswith("Verdicts on minority groups in train") for title in titles)
    assert titles[-1].startswith("Agreement of rankings")
