"""The positive and the negative control: which answers are right, how they are stored, and the tool's own answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny

import spurious_memorization as sm
from spurious_memorization.calibration.known_answers import KnownAnswer, KnownAnswers
from spurious_memorization.calibration.rates import published_rates
from spurious_memorization.demo.flow import CONTROLS_FILE, run_controls

ROOT = Path(__file__).parents[2]
Capture = pytest.CaptureFixture[str]


def answer(**changes: Any) -> KnownAnswer:
    found = {
        "control": "positive",
        "seed": 1,
        "layer": "conv1",
        "planted": ("conv1:1", "conv1:2"),
        "group": "upright with cold",
        "n_tests": 3,
        "verdict": "memorizing",
        "units": ("conv1:2",),
        "train_change": -0.5,
        "unseen_change": 0.0,
        "null_changes": (-0.1, 0.0, 0.0),
        "p_memorizing": 0.01,
    }
    return KnownAnswer(**{**found, **changes})


@pytest.mark.parametrize(
    ("changes", "is_right"),
    [
        ({}, True),
        ({"units": ("conv1:2", "conv1:9")}, True),
        ({"units": ("conv1:2", "conv1:8", "conv1:9")}, False),
        ({"units": ("conv1:9",)}, False),
        ({"verdict": "critical"}, False),
        ({"control": "negative", "planted": (), "verdict": "influential"}, True),
        ({"control": "negative", "planted": (), "verdict": "critical"}, False),
        ({"control": "negative", "planted": (), "verdict": "memorizing"}, False),
    ],
)
def test_right_answers(changes: dict[str, Any], is_right: bool) -> None:
    assert answer(**changes).is_right == is_right


def test_stored_answers_are_read_and_not_asked_again(tmp_path: Path, capsys: Capture) -> None:
    negative = answer(control="negative", planted=(), verdict="none")
    stored = KnownAnswers(seed=3, positive=answer(), negative=negative)
    stored.write(tmp_path / CONTROLS_FILE)
    assert run_controls(tmp_path, seed=3) == stored
    with pytest.raises(sm.UserError, match="has seed 3, not 4"):
        run_controls(tmp_path, seed=4)
    said = tiny.spurmem(capsys, "demo", "--controls-only", "--seed=3", "--out", tmp_path)
    assert said.status == 0, said.err
    assert "Positive control: memory of upright with cold was planted in 2 channels of conv1" in said.out
    assert "found 1 of them and says memorizing" in said.out.replace("\n", " ")
    assert "none of 3 tests on its channels says critical or memorizing" in said.out.replace("\n", " ")
    (tmp_path / CONTROLS_FILE).write_text("{")
    assert "controls.json" in tiny.spurmem(capsys, "demo", "--controls-only", "--out", tmp_path).error


def test_published_rates_are_those_of_the_docs() -> None:
    """The package shows the rates of docs/calibration.md."""
    page = (ROOT / "docs" / "calibration.md").read_text(encoding="utf-8")
    published = published_rates()
    assert published.command in page
    for rate in published.rates.values():
        written = f"{100 * rate.value:.1f} % ({100 * rate.low:.1f} % to {100 * rate.high:.1f} %)"
        assert any(written in line and f" {rate.n} " in line for line in page.splitlines()), written
    strong = published.power[published.power["family"] == "strong"].iloc[0]
    assert f"All {strong['plants']} accepted sets got the verdict memorizing" in page


@pytest.mark.slow
def test_the_tool_gives_both_known_answers(tmp_path: Path) -> None:
    answers = run_controls(tmp_path, seed=0)
    assert answers.positive.is_right
    assert answers.negative.is_right
    assert answers.positive.train_change < min(answers.positive.null_changes)
    assert abs(answers.positive.unseen_change) < 0.2
