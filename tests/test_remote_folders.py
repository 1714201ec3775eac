"""Local copies of folders on object storage: what is fetched, what is sent, and what is refused.

Object storage is fsspec's file system in memory, and a folder of this machine. A machine is a cache folder.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from spurious_memorization.atomic import atomic_folder, write_text
from spurious_memorization.errors import UserError
from spurious_memorization.locks import locked
from spurious_memorization.remote_folders import local_folder, send, url_of


@pytest.fixture(autouse=True)
def _empty_memory() -> Iterator[None]:
    MemoryFileSystem.store.clear()
    yield
    MemoryFileSystem.store.clear()


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder that doesn't exist yet."""
    return "memory://bucket/runs/first" if request.param == "memory" else (tmp_path / "there/runs/first").as_uri()


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Go on on a machine of this name."""

    def machine(name: str) -> None:
        monkeypatch.setenv("SPURMEM_CACHE", str(tmp_path / name))

    machine("one")
    return machine


def there(url: str) -> dict[str, str]:
    """What lies at a URL."""
    fs, root = fsspec.core.url_to_fs(url)
    return {name.removeprefix(f"{root}/"): fs.cat_file(name).decode() for name in fs.find(root)}


def put(url: str, text: str) -> None:
    """Another machine, with another program, writes a file."""
    fs, name = fsspec.core.url_to_fs(url)
    fs.makedirs(fs._parent(name), exist_ok=True)
    fs.pipe_file(name, text.encode())


def remove(url: str) -> None:
    fs, name = fsspec.core.url_to_fs(url)
    fs.rm_file(name)


def test_a_written_file_is_there_at_once_and_on_the_next_machine(url: str, at: Any) -> None:
    folder = local_folder(url)
    assert not folder.exists()
    write_text(folder / "a" / "b.txt", "first")
    assert there(url) == {"a/b.txt": "first"}
    write_text(folder / "a" / "b.txt", "second")
    write_text(folder / "c.txt", "third")
    assert there(url) == {"a/b.txt": "second", "c.txt": "third"}
    at("two")
    other = local_folder(url)
    assert other != folder
    assert (other / "a" / "b.txt").read_text() == "second"
    write_text(other / "a" / "b.txt", "of the other machine")
    remove(f"{url}/c.txt")
    at("one")
    assert local_folder(url) == folder
    assert (folder / "a" / "b.txt").read_text() == "of the other machine"
    assert not (folder / "c.txt").exists()


def test_nothing_is_fetched_twice(url: str, at: Any, capsys: pytest.CaptureFixture[str]) -> None:
    put(f"{url}/a.txt", "first")
    folder = local_folder(url)
    assert f"fetching 1 file, 0.0 MB, of {url}" in "".join(capsys.readouterr().err.split("\n"))
    inode = (folder / "a.txt").stat().st_ino
    assert local_folder(url) == folder == local_folder(Path(url))
    assert (folder / "a.txt").stat().st_ino == inode
    assert capsys.readouterr().err == ""


def test_a_path_in_a_copy_tells_its_url(url: str, at: Any) -> None:
    folder = local_folder(url)
    assert url_of(folder / "a" / "b") == f"{url}/a/b"
    assert url_of(folder.parent.parent / "..") is not None
    assert url_of(Path("folder")) is None
    assert local_folder("folder") == Path("folder")


def test_a_folder_arrives_with_its_outer_files_last(url: str, at: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []
    for kind in (MemoryFileSystem, LocalFileSystem):
        original = kind.put_file
        monkeypatch.setattr(
            kind, "put_file", lambda self, file, *rest, put=original: (sent.append(file), put(self, file, *rest))
        )
    with atomic_folder(local_folder(url)) as folder:
        for name in ("history.parquet", "run.json", "checkpoints/epoch_001.safetensors", "z/z/z"):
            write_text(folder / name, name)
        assert not sent
    assert [file.rpartition("runs/first/")[2] for file in sent] == [
        "z/z/z",
        "checkpoints/epoch_001.safetensors",
        "history.parquet",
        "run.json",
    ]
    assert len(there(url)) == 4


def test_hidden_files_stay_where_they_are(url: str, at: Any) -> None:
    put(f"{url}/.part", "half")
    put(f"{url}/a.txt", "whole")
    folder = local_folder(url)
    with locked(folder):
        send(folder)
    assert {file.name for file in folder.iterdir()} == {"a.txt", ".lock"}
    assert set(there(url)) == {".part", "a.txt"}


@pytest.mark.parametrize("change", ["written", "removed"])
def test_what_could_not_be_sent_is_sent_by_the_next_command(
    change: str, url: str, at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = local_folder(url)
    write_text(folder / "a.txt", "old")

    def fails_midway(fs: Any, file: str, target: str, **_: Any) -> None:
        fs.pipe_file(target, b"ne")
        raise ConnectionResetError(errno.ECONNRESET, "the line\nis cut")

    with monkeypatch.context() as patch:
        for kind in (MemoryFileSystem, LocalFileSystem):
            patch.setattr(kind, "put_file", fails_midway)
        with pytest.raises(
            UserError, match=r"can't be reached \(ConnectionResetError.*the next command sends it"
        ) as no:
            write_text(folder / "b.txt", "new")
    assert "\n" not in str(no.value)
    assert f"{url}/b.txt" in str(no.value)
    assert (folder / "b.txt").read_text() == "new"
    if url.startswith("file"):
        assert set(there(url)) == {"a.txt"}
    else:
        remove(f"{url}/b.txt")  # object stores show no half of a file, but the one in memory does
    if change == "removed":
        remove(f"{url}/a.txt")
    local_folder(url)
    assert there(url) == ({"b.txt": "new"} if change == "removed" else {"a.txt": "old", "b.txt": "new"})


def test_half_a_file_that_was_sent_is_an_error(url: str, at: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(fs: Any, file: str, target: str, **_: Any) -> None:
        fs.pipe_file(target, Path(file).read_bytes()[:3])

    with monkeypatch.context() as patch:
        for kind in (MemoryFileSystem, LocalFileSystem):
            patch.setattr(kind, "put_file", half)
        with pytest.raises(UserError, match="did not arrive whole: run the same command again"):
            write_text(local_folder(url) / "a.txt", "content")
    local_folder(url)
    assert there(url) == {"a.txt": "content"}


def test_half_a_file_that_was_fetched_is_an_error(url: str, at: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    put(f"{url}/a.txt", "content")
    with monkeypatch.context() as patch:
        for kind in (MemoryFileSystem, LocalFileSystem):
            patch.setattr(kind, "get_file", lambda fs, name, to, **_: Path(to).write_text("con"))
        with pytest.raises(UserError, match=r"a\.txt arrived in part"):
            local_folder(url)
    assert (local_folder(url) / "a.txt").read_text() == "content"


def test_a_file_of_another_machine_is_not_overwritten(url: str, at: Any) -> None:
    folder = local_folder(url)
    write_text(folder / "a.txt", "one")
    at("two")
    write_text(local_folder(url) / "a.txt", "two, longer")
    put(f"{url}/new.txt", "three")
    at("one")
    for name in ("a.txt", "new.txt"):
        with pytest.raises(UserError, match="was changed by another machine, and so was its copy here") as error:
            write_text(folder / name, "four")
        assert f"{url}/{name}" in str(error.value)
        assert str(folder / name) in str(error.value)
    assert there(url) == {"a.txt": "two, longer", "new.txt": "three"}
    with pytest.raises(UserError, match="was changed by another machine"):
        local_folder(url)
    for name in ("a.txt", "new.txt"):
        (folder / name).unlink()
    local_folder(url)
    assert (folder / "a.txt").read_text() == "two, longer"
    assert (folder / "new.txt").read_text() == "three"


def test_the_same_content_from_two_machines_is_no_conflict(url: str, at: Any) -> None:
    folder = local_folder(url)
    put(f"{url}/a.txt", "same")
    write_text(folder / "a.txt", "same")
    write_text(folder / "a.txt", "next")
    assert there(url) == {"a.txt": "next"}


def test_what_is_not_changed_here_is_as_it_is_there(url: str, at: Any) -> None:
    put(f"{url}/a.txt", "content")
    folder = local_folder(url)
    put(f"{url}/a.txt", "con")
    assert (local_folder(url) / "a.txt").read_text() == "con"
    (folder / "a.txt").unlink()
    assert (local_folder(url) / "a.txt").read_text() == "con"


@pytest.mark.parametrize("error", [PermissionError(errno.EACCES, "no"), OSError(errno.EROFS, "no")])
def test_where_nothing_may_be_written(error: OSError, url: str, at: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    put(f"{url}/a.txt", "content")

    def refused(*_: Any, **__: Any) -> None:
        raise error

    for kind in (MemoryFileSystem, LocalFileSystem):
        monkeypatch.setattr(kind, "put_file", refused)
    folder = local_folder(url)
    assert (folder / "a.txt").read_text() == "content"
    with pytest.raises(UserError, match="permission is denied: check your credentials and your rights there") as found:
        write_text(folder / "b.txt", "new")
    assert str(found.value).startswith(f"{url}/b.txt can't be used")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(errno.EACCES, "no"), "permission is denied"),
        (FileNotFoundError(errno.ENOENT, "NoSuchBucket"), "its bucket or folder does not exist: make it"),
        (TimeoutError("slow"), r"can't be reached \(TimeoutError: slow\): check its name, your credentials"),
        (RuntimeError("first\nsecond"), r"can't be reached \(RuntimeError: first\)"),
        (OSError(errno.ENOSPC, "full"), "finds no space left: free some, or set SPURMEM_CACHE"),
    ],
)
def test_a_folder_that_can_not_be_listed(
    error: Exception, message: str, at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(MemoryFileSystem, "find", fails)
    with pytest.raises(UserError, match=message) as found:
        local_folder("memory://bucket/runs")
    assert str(found.value).startswith("memory://bucket/runs")
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("name", ["../../../evil.txt", "a/../../evil.txt", "a//b", "..\\evil.txt", "a/./b"])
def test_names_stay_within_the_copy(name: str, at: Any, tmp_path: Path) -> None:
    put("memory://bucket/runs/a.txt", "content")
    store = MemoryFileSystem.store
    store[f"/bucket/runs/{name}"] = store["/bucket/runs/a.txt"]
    with pytest.raises(UserError, match="which is no name of a file: remove it there"):
        local_folder("memory://bucket/runs")
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


@pytest.mark.parametrize("place", ["s3://bucket/../x", "s3://bucket/.hidden", "s3://bucket/x?y", "s3:///"])
def test_urls_that_name_no_folder(place: str, at: Any) -> None:
    for form in (place, Path(place)) if place != "s3:///" else (place,):
        with pytest.raises(UserError, match="does not name a folder: write it as s3://bucket/runs/first"):
            local_folder(form)


def test_a_package_that_is_missing_is_named(at: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme, package in {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}.items():
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(UserError, match=f"^{scheme}://b/x needs a package that is missing: pip install {package}$"):
            local_folder(f"{scheme}://b/x")
    with pytest.raises(UserError, match="the protocol 'sesame' is unknown: use s3://, gs://, az:// or another one"):
        local_folder("sesame://b/x")
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(UserError, match=r"pip install 'spurious-memorization\[remote\]'"):
        local_folder("s3://b/x")


def test_only_runs_have_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for write in (lambda file: write_text(file, "x"), lambda file: atomic_folder(file).__enter__()):
        with pytest.raises(UserError, match=r"s3://bucket/report\.html can't be written: a URL can name a run"):
            write(Path("s3://bucket/report.html"))
    with pytest.raises(UserError, match="s3://bucket/x can't be written"), locked(Path("s3://bucket/x")):
        pass
    assert not list(tmp_path.iterdir())


def test_without_a_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spurious_memorization.remote_folders.cache_folder", lambda: None)
    with pytest.raises(UserError, match="no home directory for the copy of a URL: set SPURMEM_CACHE to a folder"):
        local_folder("memory://bucket/x")


def test_files_keep_the_time_of_their_last_change(at: Any, tmp_path: Path) -> None:
    """The report takes the study that was begun last."""
    url = (tmp_path / "there").as_uri()
    put(f"{url}/a.txt", "content")
    os.utime(tmp_path / "there" / "a.txt", (1_000_000_000, 1_000_000_000))
    assert (local_folder(url) / "a.txt").stat().st_mtime == 1_000_000_000
