"""Archives and downloads appear complete or not at all, and write nothing outside their folder."""

from __future__ import annotations

import gzip
import http.server
import io
import lzma
import shutil
import stat
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from spurious_memorization.datasets import archives
from spurious_memorization.datasets.archives import download, extract
from spurious_memorization.errors import UserError

FILES = {
    "birds/metadata.csv": b"path,y,a\n",
    "birds/001/one.jpg": np.random.default_rng(0).bytes(5000),
    "birds/two": b"",
}


def tar_bytes(files: dict[str, bytes], *special: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member in special:
            tar.addfile(member)
    return buffer.getvalue()


def zip_bytes(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as bundle:
        for name, content in files.items():
            bundle.writestr(name, content)
    return buffer.getvalue()


def special_member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


KINDS: dict[str, Callable[[dict[str, bytes]], bytes]] = {
    "tar": tar_bytes,
    "tar.gz": lambda files: gzip.compress(tar_bytes(files)),
    "tar.xz": lambda files: lzma.compress(tar_bytes(files)),
    "zip": zip_bytes,
}


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder).as_posix()): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def assert_rejected(tmp_path: Path, content: bytes, message: str) -> None:
    """Unpacking stops with this message and leaves no files."""
    place = tmp_path / "place"
    place.mkdir(exist_ok=True)
    archive = tmp_path / "archive"
    archive.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        extract(archive, place / "target")
    assert "\n" not in str(caught.value)
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_unpacked_files_are_equal_to_the_packed_ones(tmp_path: Path, kind: str) -> None:
    archive = tmp_path / "any_name"
    archive.write_bytes(KINDS[kind](FILES))
    (tmp_path / "target").mkdir()
    extract(archive, tmp_path / "target")
    assert tree(tmp_path / "target") == FILES
    extract(archive, tmp_path / "new" / "target", unwrap=True)
    assert tree(tmp_path / "new" / "target") == {name.removeprefix("birds/"): data for name, data in FILES.items()}
    assert stat.S_IMODE((tmp_path / "new" / "target").stat().st_mode) & 0o500 == 0o500


def test_bzip2_and_hard_links_within(tmp_path: Path) -> None:
    import bz2

    link = special_member("birds/copy", tarfile.LNKTYPE, "birds/metadata.csv")
    (tmp_path / "a").write_bytes(bz2.compress(tar_bytes(FILES, link)))
    extract(tmp_path / "a", tmp_path / "target")
    assert (tmp_path / "target/birds/copy").read_bytes() == FILES["birds/metadata.csv"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_truncation_is_detected(tmp_path: Path, kind: str) -> None:
    whole = KINDS[kind](FILES)
    end = len(whole)
    if kind == "tar":  # the end marker is two blocks of zeros, and more zeros follow it
        end = len(whole.rstrip(b"\0")) // 512 * 512 + 512
    for length in {0, 1, 5, 512, 1024, end // 3, end // 2, end - 513, end - 512, end - 8, end - 1}:
        if length >= 0:
            assert_rejected(tmp_path, whole[:length], "truncated or damaged|can't be read")


def test_damage_within_is_detected(tmp_path: Path) -> None:
    broken_header = bytearray(tar_bytes(FILES))
    second = broken_header.index(b"birds/001/one.jpg")
    broken_header[second] ^= 0xFF
    assert_rejected(tmp_path, bytes(broken_header), "truncated or damaged")
    for kind in ("tar.gz", "zip"):
        content = bytearray(KINDS[kind]({"noise": np.random.default_rng(1).bytes(4000)}))
        content[2000] ^= 0xFF
        assert_rejected(tmp_path, bytes(content), "truncated or damaged")
    assert_rejected(tmp_path, tar_bytes(FILES) + tar_bytes(FILES), "truncated or damaged")
    assert_rejected(tmp_path, b"<html>404 not found</html>" * 100, "truncated or damaged")
    assert_rejected(tmp_path, b"7z\xbc\xaf\x27\x1c" + bytes(100), "7-Zip")


@pytest.mark.parametrize("name", ["/etc/evil", "../evil", "a/../../evil", "a/..", "C:/evil", r"..\evil", r"\evil"])
@pytest.mark.parametrize("kind", KINDS)
def test_members_outside_are_rejected(tmp_path: Path, kind: str, name: str) -> None:
    assert_rejected(tmp_path, KINDS[kind]({"fine": b"x", name: b"evil"}), "not safe to unpack")


@pytest.mark.parametrize(
    "member",
    [
        special_member("link", tarfile.SYMTYPE, "/etc/passwd"),
        special_member("link", tarfile.SYMTYPE, "../.."),
        special_member("link", tarfile.LNKTYPE, "../secret"),
        special_member("link", tarfile.LNKTYPE, "/etc/passwd"),
        special_member("device", tarfile.CHRTYPE),
        special_member("device", tarfile.BLKTYPE),
        special_member("pipe", tarfile.FIFOTYPE),
    ],
    ids=lambda member: f"{member.name} to {member.linkname or member.type!r}",
)
def test_links_outside_and_devices_are_rejected(tmp_path: Path, member: tarfile.TarInfo) -> None:
    (tmp_path / "secret").write_text("mine")
    assert_rejected(tmp_path, tar_bytes(FILES, member), "not safe to unpack")


def test_zip_links_and_passwords_are_rejected(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        bundle.writestr(link, "/etc/passwd")
    assert_rejected(tmp_path, buffer.getvalue(), "not safe to unpack")
    locked = bytearray(zip_bytes({"a": b"secret"}))
    locked[locked.index(b"PK\x03\x04") + 6] |= 1
    locked[locked.index(b"PK\x01\x02") + 8] |= 1
    assert_rejected(tmp_path, bytes(locked), "password")


@pytest.mark.parametrize("kind", KINDS)
def test_more_than_the_free_disk_space_is_rejected(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    assert_rejected(tmp_path, KINDS[kind]({f"zeros{i}": bytes(300_000) for i in range(4)}), "free some space")


def test_existing_targets_stay_unchanged(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.write_bytes(tar_bytes(FILES))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for taken in ("full", "file"):
        with pytest.raises(UserError, match="already exists"):
            extract(archive, tmp_path / taken)
    assert tree(tmp_path / "full") == {"mine": b"mine"}
    with pytest.raises(UserError, match="can't be read"):
        extract(tmp_path / "absent", tmp_path / "new")
    with pytest.raises(UserError, match="can't be written"):
        extract(archive, tmp_path / "file" / "below")


# Downloads


CONTENT = np.random.default_rng(2).bytes(3_000_000)


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT and simulates the failures of real servers."""

    cut_at: int | None = None
    length_known = True
    modified = "Tue, 01 Oct 2019 10:00:00 GMT"
    content = CONTENT
    ranges: list[str | None]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        server.ranges.append(self.headers.get("Range"))
        if self.path == "/absent":
            self.send_error(404, "Not Found")
            return
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.end_headers()
            return
        start, wanted = 0, self.headers.get("Range")
        if wanted and self.headers.get("If-Range") == server.modified:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(server.content):
                self.send_error(416)
                return
        self.send_response(206 if start else 200)
        body = server.content[start:]
        if server.length_known:
            self.send_header("Content-Length", str(len(body)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        self.send_header("Last-Modified", server.modified)
        self.end_headers()
        self.wfile.write(body if server.cut_at is None else body[: server.cut_at])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Handler)
    server.ranges = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def url(server: Server, path: str = "/data.tar.gz") -> str:
    return f"http://127.0.0.1:{server.server_address[1]}{path}"


def test_a_complete_download(tmp_path: Path, server: Server) -> None:
    download(url(server), tmp_path / "new" / "data.tar.gz")
    assert tree(tmp_path) == {"new/data.tar.gz": CONTENT}


def test_a_broken_download_is_continued(tmp_path: Path, server: Server) -> None:
    file = tmp_path / "data.tar.gz"
    server.cut_at = 1_200_000
    for arrived in (1_200_000, 2_400_000):
        with pytest.raises(UserError, match=f"stopped after {arrived} of 3000000 bytes"):
            download(url(server), file)
        assert not file.exists()
    server.cut_at = None
    download(url(server), file)
    assert tree(tmp_path) == {"data.tar.gz": CONTENT}
    assert server.ranges == [None, "bytes=1200000-", "bytes=2400000-"]


def test_a_download_that_changed_meanwhile_starts_again(tmp_path: Path, server: Server) -> None:
    file = tmp_path / "data.tar.gz"
    server.cut_at = 1_000_000
    with pytest.raises(UserError, match="stopped after"):
        download(url(server), file)
    server.cut_at, server.modified, server.content = None, "Wed, 02 Oct 2019 10:00:00 GMT", CONTENT[::-1]
    download(url(server), file)
    assert file.read_bytes() == CONTENT[::-1]


def test_a_part_longer_than_the_file_starts_again(tmp_path: Path, server: Server) -> None:
    file = tmp_path / "data.tar.gz"
    server.cut_at = 2_000_000
    with pytest.raises(UserError, match="stopped after"):
        download(url(server), file)
    server.cut_at, server.content = None, CONTENT[:1000]
    download(url(server), file)
    assert file.read_bytes() == CONTENT[:1000]


def test_downloads_that_cannot_be_trusted_are_rejected(tmp_path: Path, server: Server) -> None:
    file = tmp_path / "data.tar.gz"
    with pytest.raises(UserError, match="404 Not Found"):
        download(url(server, "/absent"), file)
    with pytest.raises(UserError, match="can't be downloaded"):
        download(url(server, "/moved"), file)
    server.length_known = False
    with pytest.raises(UserError, match="size of the file"):
        download(url(server), file)
    for address in ("file:///etc/passwd", "ftp://127.0.0.1/x", "data.tar.gz"):
        with pytest.raises(UserError, match="must begin with http"):
            download(address, file)
    assert tree(tmp_path) == {}


def test_an_unreachable_server(tmp_path: Path, server: Server) -> None:
    address = url(server).replace(str(server.server_address[1]), "1")
    with pytest.raises(UserError, match="check the connection"):
        download(address, tmp_path / "file")
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UserError, match="can't be written"):
        download(url(server), tmp_path / "taken" / "file")
