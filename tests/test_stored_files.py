"""Stored files are read as they were written, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import BaseModel, ConfigDict

import spurious_memorization as sm
from spurious_memorization.atomic import write_parquet, write_text
from spurious_memorization.stored_files import (
    checked_record,
    is_stored,
    read_frame,
    read_json,
    read_tensors,
    read_torch,
    reading,
    write_tensors,
)

FRAME = pd.DataFrame({"n": np.arange(200), "share": np.linspace(0, 1, 200), "name": ["a", "b"] * 100})
COLUMNS = {"n": "count", "share": "share", "name": "text"}
TENSORS = {"weight": torch.arange(60.0).reshape(20, 3), "n": torch.tensor(7), "flag": torch.tensor([True, False])}


def flips(content: bytes, step: int) -> list[bytes]:
    """The content with one changed byte, for every position or every `step`-th."""
    changed = []
    for position in range(0, len(content), step):
        one = bytearray(content)
        one[position] ^= 0x5A
        changed.append(bytes(one))
    return changed


@pytest.mark.slow
@pytest.mark.parametrize("step", [13, pytest.param(1, marks=pytest.mark.slow)])
def test_a_changed_byte_changes_no_table(step: int, tmp_path: Path) -> None:
    file, refused, accepted = tmp_path / "table.parquet", 0, 0
    write_parquet(file, FRAME)
    content = file.read_bytes()
    for changed in flips(content, step):
        file.write_bytes(changed)
        try:
            pd.testing.assert_frame_equal(read_frame(file, COLUMNS, "make it again")[list(FRAME)], FRAME)
        except sm.UserError as error:
            refused += str(error).startswith(f"{file} is broken: make it again (") and "\n" not in str(error)
        else:
            accepted += 1
    assert refused + accepted == len(flips(content, step))
    assert refused > len(content) / step / 3


@pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_a_changed_byte_changes_no_tensor(step: int, tmp_path: Path) -> None:
    file, refused = tmp_path / "weights.safetensors", 0
    write_tensors(file, TENSORS, {"kind": "mine"})
    content = file.read_bytes()
    for changed in flips(content, step):
        file.write_bytes(changed)
        try:
            tensors, _ = read_tensors(file, "make it again")
            assert tensors.keys() == TENSORS.keys()
            assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
        except sm.UserError as error:
            refused += str(error).startswith(f"{file} is broken: make it again (")
    assert refused > 0.9 * len(content) / step - 60  # the metadata hold a text that is not checked


@pytest.mark.parametrize("step", [17, pytest.param(1, marks=pytest.mark.slow)])
def test_a_changed_byte_changes_nothing_that_torch_saved(step: int, tmp_path: Path) -> None:
    file = tmp_path / "trainer.pt"
    torch.save({"epoch": 3, "model": TENSORS}, file)
    refused, content = 0, file.read_bytes()
    for changed in flips(content, step):
        file.write_bytes(changed)
        try:
            state = read_torch(file, "make it again")
            assert state["epoch"] == 3
            assert all(torch.equal(state["model"][name], TENSORS[name]) for name in TENSORS)
        except sm.UserError:
            refused += 1
    assert refused > len(content) / step / 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": -1}, "its column 'n' must hold a count in every row"),
        ({"n": 0.5}, "its column 'n' must hold a count"),
        ({"n": "x"}, "its column 'n' must hold a count"),
        ({"share": 1.5}, "its column 'share' must hold a share"),
        ({"name": None}, "its column 'name' must hold a text"),
    ],
)
def test_a_column_with_something_else(change: dict[str, object], message: str, tmp_path: Path) -> None:
    file = tmp_path / "table.parquet"
    write_parquet(file, FRAME.assign(**change))
    with pytest.raises(sm.UserError, match=message):
        read_frame(file, COLUMNS, "make it again")


def test_a_column_less_and_no_rows(tmp_path: Path) -> None:
    file = tmp_path / "table.parquet"
    write_parquet(file, FRAME.drop(columns="n"))
    with pytest.raises(sm.UserError, match="it has no column 'n'"):
        read_frame(file, COLUMNS, "make it again")
    write_parquet(file, FRAME.iloc[:0])
    with pytest.raises(sm.UserError, match="it has no rows"):
        read_frame(file, COLUMNS, "make it again")
    assert read_frame(file, COLUMNS, "make it again", may_be_empty=True).empty


class Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")
    epoch: int


def test_entries_of_another_version_are_named(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    with pytest.raises(sm.UserError, match=r"run\.json is from another version .* doesn't know \(color\): use the ver"):
        checked_record(file, {"epoch": 1, "color": 2}, Entry, "make it again")
    with pytest.raises(sm.UserError, match=r"make it again \(epoch: Field required\)"):
        checked_record(file, {}, Entry, "make it again")


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '{"a": NaN}', '{"a": -Infinity}', "[" * 100_000, "\udcff"])
def test_what_is_no_record(text: str, tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(sm.UserError, match=r"run\.json is broken: make it again \("):
        read_json(file, "make it again")


def test_what_is_no_regular_file_and_what_may_not_be_read(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "{}")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    assert all(is_stored(tmp_path / name) for name in ("file", "folder", "link"))
    assert not any(is_stored(tmp_path / name) for name in ("gone", "file/below", "x" * 300, "nul\0"))
    with pytest.raises(sm.UserError, match=r"folder is broken: make it again \(it is no regular file\)"):
        read_json(tmp_path / "folder", "make it again")
    with pytest.raises(sm.UserError, match="link does not exist: make it again"):
        read_json(tmp_path / "link", "make it again")
    with pytest.raises(sm.UserError, match=r"file can't be read \(Permission denied\): change its permissions"):  # noqa: SIM117
        with reading(tmp_path / "file", "make it again"):
            raise PermissionError(13, "Permission denied")
