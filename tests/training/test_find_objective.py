"""Objectives by name: text, blocks, and errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

import spurious_memorization as sm
from spurious_memorization.training.find_objective import objective_from, objective_names, settings_class
from spurious_memorization.training.objectives.pruned_contrast import PrunedContrastSettings

Capture = pytest.CaptureFixture[str]


def test_text_and_blocks_are_read_alike() -> None:
    text = "pruned-contrast:mask=magnitude-largest,fraction=0.05,refresh=false,layers=conv"
    found = objective_from(text)
    assert isinstance(found, PrunedContrastSettings)
    assert (found.mask, found.fraction, found.refresh, found.layers) == ("magnitude-largest", 0.05, False, ("conv",))
    assert objective_from(json.loads(found.model_dump_json())) == found
    assert objective_from(str(found)) == found
    assert str(objective_from("group-dro")) == "group-dro"
    assert objective_from("dfr:strengths=1+0.1").strengths == (1.0, 0.1)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "groupdro",
            "unknown objective 'groupdro': choose among afr, balanced-sampling, dfr, dpe, erm, erm-continue, eva",
        ),
        ("group-dro:mask=none", "group-dro has no option 'mask=none': write group-dro:option=value with one of step"),
        ("group-dro:step=-1", "--objective.group-dro.step: Input should be greater than 0 (given: '-1')"),
        ("jtt", "Field required"),
        ("pruned-contrast:fraction=1", "Input should be less than 1"),
        ("pruned-contrast:mask=all", "Input should be 'gradient'"),
    ],
)
def test_bad_objectives_are_refused(text: str, said: str, squares: Path, tmp_path: Path, capsys: Capture) -> None:
    assert said in tiny.spurmem(capsys, "train", squares, "--objective", text, "--out", tmp_path / "run").error
    assert not (tmp_path / "run").exists()


def test_every_file_in_the_folder_is_an_objective_of_its_name() -> None:
    names = objective_names()
    assert len(names) == 19
    for name in names:
        assert settings_class(name).model_fields["name"].default == name


def test_help_needs_no_torch() -> None:
    code = """
import sys
from spurious_memorization.training.find_objective import objective_names
assert "group-dro" in objective_names()
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


def test_a_run_stores_all_options_of_its_objective() -> None:
    block = sm.TrainSettings(objective="group-dro:step=0.1").model_dump(mode="json")["objective"]
    assert block == {"name": "group-dro", "step": 0.1, "adjustment": 0.0, "balanced": True, "absent": "move"}
    assert sm.TrainSettings().model_dump(mode="json")["objective"] == {"name": "erm"}
    assert "objective" not in sm.TrainSettings().model_fields_set
