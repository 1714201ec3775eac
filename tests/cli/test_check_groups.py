"""`spurmem check-groups`: exit status, tables, JUnit XML and JSON."""

from __future__ import annotations

import json
import os
import re
import shlex
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import made_runs
import pandas as pd
import pytest
import tiny
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import spurious_memorization as sm
from spurious_memorization.cli.app import app
from spurious_memorization.comparison.group_check import checks_of
from spurious_memorization.reporting.junit import junit_text

Capture = pytest.CaptureFixture[str]

PAGE = Path(__file__).parents[2] / "docs" / "continuous-integration.md"

ODD = {
    "classes": ['<b>"bird"</b>', "cat & 'dog' ]]>"],
    "attributes": {"a": ["d|ay [red]", "näight € 鳥"]},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_runs.make_data(tmp_path_factory.mktemp("data") / "pets")


@pytest.fixture
def run(data: Path, tmp_path: Path) -> sm.Run:
    """On test, 90 % of the birds by day are right, 50 % of those at night, 100 and 70 % of the cats."""
    made = made_runs.make_run(tmp_path / "run", data)
    history = made.history()
    correct = history["n"].where(history["split"] != "test", history["group"].map({0: 18, 1: 12, 2: 16, 3: 7}))
    made.save_history(history.assign(correct=correct))
    return made


def test_the_exit_status_tells_a_failure_from_an_error(run: sm.Run, capsys: Capture) -> None:
    passed = tiny.spurmem(capsys, "check-groups", run.path, "--min-worst", 50, "--max-gap", 30)
    assert passed.status == 0
    assert passed.out.endswith("passed: 8 checks\n")
    failed = tiny.spurmem(capsys, "check-groups", run.path, "--min-worst", 95)
    assert failed.status == 1
    assert failed.out.endswith("failed: 3 of 4 checks\n")
    assert "50.0 (31.4 to 68.6)" in failed.out
    for options in ([], ["--min-worst", "much"], ["--max-gap", 10, "--split", "nothing"], ["--max-gap", "-3"]):
        assert tiny.spurmem(capsys, "check-groups", run.path, *options).error
    assert "no run is given" in tiny.spurmem(capsys, "check-groups", "--max-gap", 10).error
    assert "is not a run" in tiny.spurmem(capsys, "check-groups", run.path / "no", "--max-gap", 10).error


def test_only_clear_failures_fail_where_one_has_to_be_confident(run: sm.Run, capsys: Capture) -> None:
    command = ("check-groups", run.path, "--min-worst")
    strict, confident, clear = (
        tiny.spurmem(capsys, *command, *rest) for rest in ([60, "--strict"], [60, "--confident"], [95, "--confident"])
    )
    assert (strict.status, confident.status, clear.status) == (1, 0, 1)
    assert "with --confident it passes" in strict.out
    assert "Groups that pass, since they are within noise" in confident.out
    assert "with --confident" not in clear.out


def test_json_has_every_check(run: sm.Run, capsys: Capture) -> None:
    done = tiny.spurmem(capsys, "check-groups", run.path, "--min-worst", 60, "--max-gap", 40, "--json")
    facts = json.loads(done.out)
    assert (done.status, facts["passed"]) == (1, False)
    found = sm.check_groups(run, min_worst=60, max_gap=40)
    assert facts["checks"] == found.checks.to_dict(orient="records")
    assert facts["runs"] == found.runs.to_dict(orient="records")
    assert (facts["min_worst"], facts["max_gap"], facts["level"]) == (60, 40, found.level)


def test_json_of_an_empty_group(run: sm.Run, capsys: Capture) -> None:
    run.save_history(run.history().query("group != 3"))
    facts = json.loads(tiny.spurmem(capsys, "check-groups", run.path, "--min-worst", 60, "--json").out)
    empty = facts["checks"][3]
    assert (empty["outcome"], empty["n"], empty["accuracy"], empty["noise_low"]) == ("not checked", 0, None, None)


def test_markdown_for_the_summary_of_a_job(run: sm.Run, tmp_path: Path, capsys: Capture) -> None:
    command = ("check-groups", run.path, "--min-worst", 95, "--format", "markdown")
    done = tiny.spurmem(capsys, *command)
    assert done.status == 1
    assert f"| {run.path} | bird with day | accuracy at least 95 % | 90.0 (69.9 to 97.2) | 20 | 95.0 |" in done.out
    assert "with 95 % certainty for all 4 checks together" in done.out
    assert done.out.endswith("\n\nfailed: 3 of 4 checks\n")
    written = tiny.spurmem(capsys, *command, "--out", tmp_path / "new" / "summary.md")
    assert (written.status, (tmp_path / "new" / "summary.md").read_text()) == (1, done.out)
    assert "The worst group on test" in written.out


def test_junit_has_a_case_for_every_group_and_criterion(run: sm.Run, tmp_path: Path, capsys: Capture) -> None:
    command = ("check-groups", run.path, "--min-worst", 60, "--max-gap", 40, "--min-samples", 15)
    done = tiny.spurmem(capsys, *command, "--format", "junit", "--out", tmp_path / "groups.xml")
    printed = tiny.spurmem(capsys, *command, "--format", "junit")
    assert (done.status, printed.status) == (1, 1)
    assert printed.out == (tmp_path / "groups.xml").read_text(encoding="ascii")
    root = ElementTree.parse(tmp_path / "groups.xml").getroot()
    (suite,) = root
    for element in (root, suite):
        assert [element.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["8", "1", "0", "2"]
    assert [(case.get("name"), [part.tag for part in case]) for case in suite] == [
        ("bird with day: accuracy at least 60 %", ["system-out"]),
        ("bird with day: gap at most 40 points", ["system-out"]),
        ("bird with night: accuracy at least 60 %", ["failure"]),
        ("bird with night: gap at most 40 points", ["system-out"]),
        ("cat with day: accuracy at least 60 %", ["system-out"]),
        ("cat with day: gap at most 40 points", ["system-out"]),
        ("cat with night: accuracy at least 60 %", ["skipped"]),
        ("cat with night: gap at most 40 points", ["skipped"]),
    ]
    failure = suite[2][0]
    assert failure.get("message") == "accuracy 50.0 % (12 of 24) is below 60.0 %, within noise"
    assert "95 % interval 31.4 % to 68.6 %" in str(failure.text)


def test_odd_names_of_groups_are_escaped(tmp_path: Path, capsys: Capture) -> None:
    data = made_runs.make_data(tmp_path / "pets")
    (data / "dataset.yaml").write_text(yaml.safe_dump({"image_size": 8, **ODD}))
    run = made_runs.make_run(tmp_path / "run <&>", data)
    done = tiny.spurmem(capsys, "check-groups", run.path, "--min-worst", 100, "--format", "junit")
    assert done.status == 1
    assert done.out.isascii()
    root = ElementTree.fromstring(done.out)
    names = [str(case.get("name")).removesuffix(": accuracy at least 100 %") for case in root.iter("testcase")]
    assert names == list(run.record.data.groups.names)
    assert {case.get("classname") for case in root.iter("testcase")} == {str(run.path)}
    for flags in ([], ["--format", "markdown"]):
        assert tiny.spurmem(capsys, "check-groups", run.path, "--min-worst", 100, *flags).status == 1


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(name=st.text(st.characters(codec=None), max_size=20), run=st.text(max_size=20))
def test_any_name_gives_xml_that_can_be_read(name: str, run: str) -> None:
    counts = pd.DataFrame({"run": run, "epoch": 1, "group": [0], "group_name": name, "minority": False})
    counts = counts.assign(n=4, correct=3)
    checks, level = checks_of(counts, max_gap=None, min_worst=80, confident=False, min_samples=1)
    found = sm.GroupCheck(
        max_gap=None,
        min_worst=80,
        split="test",
        confident=False,
        min_samples=1,
        level=level,
        checks=checks,
        runs=checks,
    )
    root = ElementTree.fromstring(junit_text(found))
    (case,) = root.iter("testcase")
    if name.isprintable():
        assert case.get("name") == f"{name}: accuracy at least 80 %"
    assert root.get("failures") == "1"
    assert ElementTree.fromstring(junit_text(replace(found, min_samples=5))) is not None


def test_places_that_can_not_be_written(run: sm.Run, tmp_path: Path, capsys: Capture) -> None:
    command = ("check-groups", run.path, "--min-worst", 60)
    assert "--out x.xml needs a format" in tiny.spurmem(capsys, *command, "--out", "x.xml").error
    assert "is a folder" in tiny.spurmem(capsys, *command, "--format=junit", "--out", tmp_path).error
    assert "device" in tiny.spurmem(capsys, *command, "--format=junit", "--out", os.devnull).error
    (tmp_path / "file").write_text("mine")
    before = tiny.contents(tmp_path)
    assert "not a folder" in tiny.spurmem(capsys, *command, "--format=junit", "--out", tmp_path / "file" / "x").error
    assert tiny.contents(tmp_path) == before


def test_the_run_stays_as_it_was(run: sm.Run, capsys: Capture) -> None:
    before = tiny.contents(run.path)
    tiny.spurmem(capsys, "check-groups", run.path, "--min-worst", 60)
    assert tiny.contents(run.path) == before


def test_commands_of_the_workflows_in_the_documentation_parse() -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 2
    lines = [line for block in blocks for line in _scripts(yaml.safe_load(block))]
    commands = [line.split(" >> ")[0] for line in lines if line.startswith("spurmem ")]
    assert len(commands) >= 4
    for command in commands:
        app.parse_args(shlex.split(command)[1:], exit_on_error=False, print_error=False)


def _scripts(node: object) -> list[str]:
    """Every line of every text in a workflow."""
    if isinstance(node, dict):
        node = list(node.values())
    if isinstance(node, list):
        return [line for part in node for line in _scripts(part)]
    return node.splitlines() if isinstance(node, str) else []
