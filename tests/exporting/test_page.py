"""The commands of docs/exporting.md run as they stand, on generated data."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pandas as pd
import pytest
import tiny

import datasets

PAGE = Path(__file__).parents[2] / "docs" / "exporting.md"


@pytest.mark.slow
def test_the_commands_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "tracked").as_uri())
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    for line in "".join(blocks).splitlines():
        said = tiny.spurmem(capsys, *shlex.split(line)[1:])
        assert said.status == 0, f"{line}\n{said.err}"
    table = pd.read_csv("samples.csv")
    assert {name: len(rows) for name, rows in table.groupby("split")} == {"train": 80, "val": 24, "test": 24}
    assert sum(map(len, datasets.load_from_disk("saved_samples").values())) == len(table)
    assert Path("first_fiftyone/labels.json").is_file()
    assert Path("evaluation.md").read_text(encoding="utf-8").startswith("## Evaluation\n")
    assert any(Path("tracked").rglob("loss"))
