"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import tiny
import torch

from spurious_memorization.atomic import UnnamedFile, atomic_folder, atomic_write, write_parquet, write_text
from spurious_memorization.errors import UserError


def test_a_file_appears_whole_with_the_usual_rights(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_text(tmp_path / "new" / "file.txt", "text")
    finally:
        os.umask(old)
    assert (tmp_path / "new" / "file.txt").read_text() == "text"
    assert (tmp_path / "new" / "file.txt").stat().st_mode & 0o777 == 0o640
    assert os.umask(old) == old


def test_an_error_leaves_the_old_file(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "old")

    def fail() -> None:
        with atomic_write(tmp_path / "file") as temporary:
            temporary.write_text("half")
            assert temporary.parent == tmp_path
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "no space left to write"),
        (errno.EDQUOT, "no space left to write"),
        (errno.EACCES, "can't be written: choose another folder or change its permissions"),
        (errno.EROFS, "can't be written: choose another folder or change its permissions"),
        (errno.EIO, "Input/output error"),
    ],
)
@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_system_error_is_one_line(
    number: int, message: str, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text(tmp_path / "file", "old")

    def fail(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(*((os, "fsync") if where == "fsync" else (Path, "replace")), fail)
    with pytest.raises(UserError, match=message) as caught:
        write_text(tmp_path / "file", "new")
    assert "\n" not in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_without_a_flush_nothing_is_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    for flush in (False, True):
        with atomic_write(tmp_path / "file", flush=flush) as temporary:
            temporary.write_text(str(flush))
        assert len(flushed) == flush
        assert (tmp_path / "file").read_text() == str(flush)


def test_a_place_below_a_file(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "old")
    for place in (tmp_path / "file" / "x", tmp_path / "file" / "deeper" / "x"):
        with pytest.raises(UserError, match="is not a folder"):
            write_text(place, "new")
    with pytest.raises(UserError), atomic_folder(tmp_path / "file" / "x"):
        pass


def _save_torch(file: Path) -> None:
    torch.save({"x": torch.randn(200_000)}, file)


def _save_safetensors(file: Path) -> None:
    safetensors.torch.save_file({"x": torch.randn(200_000)}, file)


def _save_parquet(file: Path) -> None:
    pd.DataFrame({"x": np.random.default_rng(0).normal(size=200_000)}).to_parquet(file)


def _save_text(file: Path) -> None:
    file.write_text("x" * 800_000)


@pytest.mark.parametrize("save", [_save_torch, _save_safetensors, _save_parquet, _save_text])
def test_whatever_writes_when_there_is_no_more_room(save: Any, tmp_path: Path) -> None:
    """The system lets a process write no file beyond a limit: every library says so in another way."""
    write_text(tmp_path / "file", "old")

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
        try:
            with atomic_write(tmp_path / "file") as temporary:
                save(temporary)
        except UserError as error:
            os._exit(7 if "File too large" in str(error) and "\n" not in str(error) else 8)
        os._exit(9)

    assert tiny.in_child(limited) == 7
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_an_error_that_is_not_the_systems_stays(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="mine"), atomic_write(tmp_path / "file"):
        raise RuntimeError("mine")
    assert not list(tmp_path.iterdir())


def test_an_error_leaves_no_new_folder(tmp_path: Path) -> None:
    for write in (atomic_write, atomic_folder):
        with pytest.raises(RuntimeError, match="mine"), write(tmp_path / "new" / "deeper" / "place"):
            raise RuntimeError("mine")
        assert not list(tmp_path.iterdir())


def test_a_parquet_file_is_whole_or_absent(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1, 2]})
    write_parquet(tmp_path / "frame.parquet", frame)
    assert pd.read_parquet(tmp_path / "frame.parquet").equals(frame)
    assert [file.name for file in tmp_path.iterdir()] == ["frame.parquet"]


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    for place in (tmp_path / "new" / "folder", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with atomic_folder(place) as temporary:
            (temporary / "file").write_text("text")
            assert not (place / "file").exists()
        assert (place / "file").read_text() == "text"
        assert [path.name for path in place.parent.iterdir() if path.name.startswith(".")] == []
        assert place.stat().st_mode & 0o777 == place.parent.stat().st_mode & 0o777 | 0o055


def test_a_folder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with atomic_folder(tmp_path / "folder") as temporary:
            (temporary / "file").write_text("text")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not list(tmp_path.iterdir())


def test_a_folder_with_content_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path, tmp_path / "file"):
        with pytest.raises(UserError, match="exists and is not empty"), atomic_folder(place):
            raise AssertionError("never reached")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_that_grows_is_seen_when_it_is_complete(tmp_path: Path) -> None:
    file = UnnamedFile(tmp_path / "new" / "file")
    parts = [bytes([number]) * 100_000 for number in range(5)]
    for part in parts:
        assert file.write(part) == len(part)
    assert file.tell() == 500_000
    assert list((tmp_path / "new").iterdir()) == []
    file.save()
    file.close()
    assert (tmp_path / "new" / "file").read_bytes() == b"".join(parts)
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["file"]


def test_a_file_that_grows_when_there_is_no_more_room(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "old")

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
        file = UnnamedFile(tmp_path / "file")
        try:
            for _ in range(100):
                file.write(bytes(10_000))
            file.save()
        except UserError as error:
            os._exit(7 if "File too large" in str(error) and "\n" not in str(error) else 8)
        os._exit(9)

    assert tiny.in_child(limited) == 7
    assert (tmp_path / "file").read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
