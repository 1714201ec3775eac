"""A study's answer: two sentences and one table."""

from __future__ import annotations

import pandas as pd
import pytest

import spurious_memorization as sm
from spurious_memorization.reporting.tables.findings import findings
from spurious_memorization.reporting.tables.study_tables import MAX_SUMMARY_ROWS, all_study_tables, summary_table

TEST = {
    "split": "train", "criterion": "gradient", "traced_on": "b on water", "kind": "zero", "parameters": "{}",
    "size": "1", "unit": "channel", "n_units": 1, "units": "conv1:5", "selected_set": 0, "group": 1,
    "group_name": "b on water", "minority": True, "accuracy_change": -0.3, "tested_accuracy_change": -0.25,
    "control_low": -0.02, "control_median": 0.0, "control_high": 0.01, "n_controls": 99, "p_adjusted": 0.0001,
    "difference": 0.2, "p_selective": 0.002, "contrast": 0.5, "contrast_low": 0.2, "contrast_high": 0.8,
    "verdict": "none", "reason": "",
}  # fmt: skip


def effects(*changes: dict[str, object]) -> pd.DataFrame:
    return pd.DataFrame([{**TEST, "selected_set": i, **change} for i, change in enumerate(changes)])


def test_nothing_found() -> None:
    assert findings(effects({}, {}, {}, {})) == [
        "None of the 4 tests was both influential and selective.",
        "For every group, random units of the same layers change accuracy about as much.",
    ]
    first, second = findings(effects({"verdict": "influential"}, {"verdict": "influential"}, {"verdict": "selective"}))
    assert first == "None of the 3 tests was both influential and selective."
    assert second == "2 were influential but not selective; 1 was selective but not influential."
    assert findings(effects({}))[0] == "The only test was not both influential and selective."


def test_a_critical_set() -> None:
    first, second = findings(effects({"verdict": "critical"}, {"group_name": "a on land", "difference": 0.9}))
    assert first == (
        "zero on 1 channel (conv1:5), selected by gradient (b on water), is critical for b on water: its accuracy "
        "changes by -25.0 points (matched controls -2.0 to +1.0, p < 0.001), and it loses 20.0 points more than "
        "similar majority samples (p = 0.002)."
    )
    assert second.startswith("1 of 2 tests was critical; memorization was not shown for any of them; ")
    assert second.endswith("nothing was critical for a on land.")


def test_a_memorizing_set() -> None:
    second = findings(effects({"verdict": "critical"}, {"verdict": "memorizing", "difference": 0.5}))[1]
    assert second == (
        "2 of 2 tests were critical; 1 of them was also memorizing; in the strongest one, training margins fell more "
        "than unseen ones by +0.50 (+0.20 to +0.80)."
    )


def test_no_verdict() -> None:
    undecided = {"verdict": "no verdict", "reason": "5 controls: 19 are needed"}
    assert findings(effects(undecided)) == [
        "No test could be decided, so nothing was found.",
        "1 test has no verdict (5 controls: 19 are needed).",
    ]
    assert findings(effects({"minority": False})) == ["No minority group was measured, so there is no verdict."]


def test_the_summary_has_one_row_per_set_and_minority_group(studied: sm.Study) -> None:
    stored = studied.effects().query("split == 'train' and minority")
    table = summary_table(studied.effects())
    assert len(table.rows) == min(len(stored), MAX_SUMMARY_ROWS)
    text = table.text()
    assert text.columns.tolist() == [
        "selected by", "edit", "size", "group", "accuracy change", "controls", "p", "verdict",
    ]  # fmt: skip
    for shown, row in zip(text.itertuples(index=False), table.rows.to_dict(orient="records"), strict=True):
        assert shown[4] == f"{round(100 * row['tested_accuracy_change'], 1) + 0.0:+.1f}"
        assert shown[7] == row["verdict"]


def test_a_large_study_shows_the_tests_with_the_smallest_p() -> None:
    many = effects(*({"p_adjusted": (100 - i) / 100, "size": str(i)} for i in range(60)))
    table = summary_table(many)
    assert sorted(table.rows["p_adjusted"]) == sorted(many["p_adjusted"])[:MAX_SUMMARY_ROWS]
    assert f"{MAX_SUMMARY_ROWS} of 60 tests are shown" in table.caption
    assert "edit" not in table.text().columns
    assert "edit zero" in table.title


@pytest.mark.parametrize("controls", [0, 5])
def test_without_controls_there_is_no_range(controls: int) -> None:
    text = summary_table(
        effects({"n_controls": controls, "control_low": float("nan") if not controls else -0.1})
    ).text()
    assert text["controls"].item() == ("-10.0 to +1.0" if controls else "-")
    assert text["accuracy change"].item() == ("-25.0" if controls else "-30.0")


def test_every_other_table_is_for_the_verbose(studied: sm.Study) -> None:
    titles = [table.title for table in all_study_tables(studied)]
    assert titles[0].startswith("Accuracy change in train")
    assert any(title.startswith("Verdicts on minority groups in train") for title in titles)
    assert titles[-1].startswith("Agreement of rankings")
