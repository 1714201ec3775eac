"""`spurmem reproduce --published`: published accuracies, their sources and commands, and ledgers of measurements."""

from __future__ import annotations

import io
import json
import shlex
from pathlib import Path

import pandas as pd
import pytest
import tiny

import spurious_memorization as sm
from spurious_memorization.cli.app import app
from spurious_memorization.published.commands import TrainingCommand, all_commands
from spurious_memorization.published.ledger import LedgerLine
from spurious_memorization.published.lines import read_lines
from spurious_memorization.published.results import DATA_SETS, FOLDER, all_results
from spurious_memorization.reporting.tables.published_tables import NAMES, PREPARED, command_lines
from spurious_memorization.training.find_objective import objective_names

Capture = pytest.CaptureFixture[str]

HEADER = "data_set,method,worst_group,average,seeds,hardware,commit,date,command,by"
LINE = "waterbirds,DFR,0.914,0.937,3,one H100,abc1234,2026-11-26,spurmem train data/waterbirds,A. Reader"
EVERY_COMMAND = read_lines(FOLDER / "commands.csv", TrainingCommand)


def ledger(folder: Path, *lines: str, header: str = HEADER) -> Path:
    file = folder / "ledger.csv"
    file.write_text("\n".join([header, *lines, ""]), encoding="utf-8")
    return file


def test_every_result_has_a_source_and_is_there_once() -> None:
    results = all_results()
    assert all(one.source.strip() for one in results)
    keys = [(one.data_set, one.method, one.source) for one in results]
    assert len(set(keys)) == len(keys)
    assert {one.data_set for one in results} == set(DATA_SETS) == set(NAMES)
    assert {"ERM", "RWG", "JTT", "AFR", "SELF", "GroupDRO", "DFR", "DPE"} <= {one.method for one in results}


def test_values_are_in_range() -> None:
    for one in all_results():
        assert 0.3 < one.worst_group < 1, one
        assert one.average is None or one.worst_group <= one.average < 1, one
        assert one.worst_group_std is None or one.worst_group_std < 0.1, one
        assert one.average_std is None or one.average is not None, one


def test_figures_that_the_authors_of_dpe_collected() -> None:
    known = sm.published_results(data_set="waterbirds").results.set_index(["method", "source"])["worst_group"]
    assert known["ERM", "Yang et al. (ICML 2023)"] == 0.691
    assert known["JTT", "Liu et al. (ICML 2021), Table 1"] == 0.867
    assert known["AFR", "Qiu et al. (ICML 2023), Table 1"] == 0.904
    assert known["GroupDRO", "Sagawa et al. (ICLR 2020), Table 3"] == 0.914
    assert known["DFR", "Kirichenko et al. (ICLR 2023), Table 2"] == 0.929
    assert known["DPE", "To et al. (ICML 2025)"] == 0.941


def test_each_command_belongs_to_a_result() -> None:
    methods = {(one.data_set, one.method) for one in all_results()}
    assert {(one.data_set, one.method) for one in EVERY_COMMAND} <= methods


@pytest.mark.parametrize("one", EVERY_COMMAND, ids=lambda one: f"{one.data_set}-{one.method}")
def test_commands_are_those_of_this_tool(one: TrainingCommand) -> None:
    if one.objective not in objective_names():
        assert one not in all_commands()
        return
    words = shlex.split(one.command)
    assert words[0] == "spurmem"
    app.parse_args(words[1:], exit_on_error=False, print_error=False)
    assert one.command.endswith(f"--out runs/{one.data_set}/{words[-1].rpartition('/')[2]}")
    assert f" data/{one.data_set} " in one.command


def test_a_method_of_two_stages_starts_from_the_run_of_an_earlier_command() -> None:
    made = {words[words.index("--out") + 1] for one in EVERY_COMMAND if (words := shlex.split(one.command))}
    for one in EVERY_COMMAND:
        for word in shlex.split(one.command):
            if "@last" in word:
                assert word.partition("@")[0].removeprefix("jtt:errors_of=") in made


def test_commands_are_shown_as_lines_to_copy() -> None:
    lines = command_lines(sm.published_results(data_set="waterbirds"))
    assert [line for line in lines if line.startswith("spurmem")] == [
        one.command for one in all_commands() if one.data_set == "waterbirds"
    ]
    assert lines[-2].startswith("not in this tool: ")
    for command in PREPARED.values():
        app.parse_args(shlex.split(command)[1:], exit_on_error=False, print_error=False)
    (heading, without, _) = command_lines(sm.published_results(data_set="multinli"))
    assert "MultiNLI" in heading
    assert without.startswith("not in this tool: ERM, RWG")


def test_the_ledger_of_the_package_claims_nothing() -> None:
    assert (FOLDER / "ledger.csv").read_text(encoding="utf-8") == f"{HEADER}\n"
    assert ",".join(LedgerLine.model_fields) == HEADER
    known = sm.published_results()
    assert known.measured.empty
    assert known.joined()["measured_worst_group"].isna().all()
    assert len(known.joined()) == len(known.results)


def test_lines_of_a_ledger_appear(tmp_path: Path, capsys: Capture) -> None:
    other = "waterbirds,erm-continue,0.71,,1,a laptop,abc1234,2026-11-25,spurmem train data/waterbirds,A. Reader"
    file = ledger(tmp_path, LINE, other)
    said = tiny.spurmem(capsys, "reproduce", "--published", "--data-set", "waterbirds", "--ledger", file)
    assert said.status == 0, said.err
    assert "91.4 %" in said.out
    assert "Measured with this tool" in said.out
    assert "erm-continue" in said.out
    joined = sm.published_results(file, data_set="waterbirds").joined().set_index("method")
    assert set(joined.loc["DFR", "measured_worst_group"]) == {0.914}
    assert set(joined.loc["DFR", "measured_by"]) == {"A. Reader"}
    assert pd.isna(joined.loc["erm-continue", "worst_group"])
    assert joined.loc["JTT", "command"].iloc[0].count("spurmem train") == 2
    assert sm.published_results(file, data_set="celeba").measured.empty


def test_several_ledgers_are_read(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    files = [ledger(tmp_path, LINE), ledger(tmp_path / "b", LINE.replace("A. Reader", "B. Reader"))]
    assert sm.published_results(files).measured["by"].tolist() == ["A. Reader", "B. Reader"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (LINE.replace("0.914", "91.4"), "ledger.csv, line 3, column worst_group: Input should be less than or equal"),
        (LINE.replace("0.914", "high"), "ledger.csv, line 3, column worst_group: Input should be a valid number"),
        (LINE.replace("0.914", "nan"), "ledger.csv, line 3, column worst_group: Input should be a finite number"),
        (LINE.replace("0.937", "-1"), "ledger.csv, line 3, column average: Input should be greater than or equal"),
        (LINE.replace("DFR", "DFRR"), "ledger.csv, line 3, column method: must be one of ERM, RWG"),
        (LINE.replace("waterbirds,", "birds,", 1), "ledger.csv, line 3, column data_set: Input should be 'waterbirds'"),
        (LINE.replace(",3,", ",0,"), "ledger.csv, line 3, column seeds: Input should be greater than or equal to 1"),
        (LINE.replace("2026-11-26", "yesterday"), "ledger.csv, line 3, column date: Input should be a valid date"),
        (LINE.replace("abc1234", ""), "ledger.csv, line 3, column commit: String should have at least 1 character"),
        (LINE + ",more", "ledger.csv, line 3: 11 cells, but the header has 10"),
    ],
)
def test_a_broken_line_is_one_line(line: str, message: str, tmp_path: Path, capsys: Capture) -> None:
    said = tiny.spurmem(capsys, "reproduce", "--published", "--ledger", ledger(tmp_path, LINE, line))
    assert said.status == 2
    assert said.error.startswith(f"spurmem: {message}") or f"/{message}" in said.error
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (HEADER.replace("hardware", "machine"), "has no column 'hardware': the header must be data_set,"),
        (f"{HEADER},note", "has an unknown column 'note': the header must be data_set,"),
    ],
)
def test_a_broken_header_is_one_line(header: str, message: str, tmp_path: Path, capsys: Capture) -> None:
    said = tiny.spurmem(capsys, "reproduce", "--published", "--ledger", ledger(tmp_path, header=header))
    assert said.status == 2
    assert message in said.error


def test_a_percentage_is_explained(tmp_path: Path) -> None:
    with pytest.raises(sm.UserError, match=r"not '91\.4': write a share, such as 0\.867 for 86\.7 %"):
        sm.published_results(ledger(tmp_path, LINE.replace("0.914", "91.4")))


def test_options_that_do_not_belong_together(tmp_path: Path, capsys: Capture) -> None:
    file = ledger(tmp_path, LINE)
    assert "add --published" in tiny.spurmem(capsys, "reproduce", "--ledger", file).error
    assert "add --published" in tiny.spurmem(capsys, "reproduce", "--list", "--data-set", "celeba").error
    assert "choose among waterbirds" in tiny.spurmem(capsys, "reproduce", "--published", "--data-set", "birds").error
    name = "waterbirds-resnet50-largest-channel"
    assert "add --list or --published" in tiny.spurmem(capsys, "reproduce", name, "--format", "markdown").error
    assert "does not exist" in tiny.spurmem(capsys, "reproduce", "--published", "--ledger", tmp_path / "no.csv").error


def test_formats(tmp_path: Path, capsys: Capture) -> None:
    file = ledger(tmp_path, LINE)
    common = ("reproduce", "--published", "--ledger", file)
    facts = json.loads(tiny.spurmem(capsys, *common, "--json").out)
    assert len(facts["results"]) == len(all_results())
    assert facts["measured"][0] == {
        **dict(zip(HEADER.split(","), LINE.split(","), strict=True)),
        "worst_group": 0.914,
        "average": 0.937,
        "seeds": 3,
    }
    markdown = tiny.spurmem(capsys, *common, "--format", "markdown").out
    assert "| DPE | 94.1 % ±0.4 | 96.0 % ±0.1 | no | to fit | To et al. (ICML 2025) | not run |" in markdown
    assert "| civilcomments | CnC | not in this tool | - |" in markdown
    latex = tiny.spurmem(capsys, *common, "--format", "latex").out
    assert latex.count(r"\begin{tabular}") == len(DATA_SETS) + 2  # commands, and what was measured
    rows = pd.read_csv(io.StringIO(tiny.spurmem(capsys, *common, "--format", "csv").out))
    assert len(rows) == len(all_results())
    assert set(rows.loc[rows["measured_worst_group"].notna(), "method"]) == {"DFR"}
    listed = tiny.spurmem(capsys, "reproduce", "--list", "--format", "csv").out
    assert listed.startswith("name,dataset,weights,epoch,work\n")
