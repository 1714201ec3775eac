"""Archives and downloads: whole or absent, and never outside their folder."""

from __future__ import annotations

import bz2
import email.utils
import errno
import gzip
import http.client
import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from ..console import console, log
from ..errors import UserError
from .tables import AnnotatedTable, leads_outside

CHUNK = 1 << 20
TIMEOUT = 60.0

_COMPRESSIONS: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    ValueError,
)


def place(
    source: Path, out: Path | None, read_table: Callable[[Path], AnnotatedTable | None], what: str, files: str
) -> Path:
    """Make a data set that a user has usable: unpack an archive, or take a folder where it is.

    Arguments:
        source: folder or archive. A folder is never copied; with `out` a symbolic link to it is made there.
        out: the new folder (for an archive) or link (for a folder). Where it holds the data set already, nothing is
            done.
        read_table: recognizes the data set's layout.
        what: name of the data set.
        files: the files that make up its layout, for the message when they aren't there.

    Returns:
        The folder to use from now on.

    Raises:
        UserError: the source is missing, damaged or another data set, an archive comes without `out`, or `out` is
            taken.
    """
    if not source.exists():
        raise UserError(f"{source} does not exist: name the folder or archive that holds {what}")
    if source.is_dir():
        if read_table(source) is None:
            raise UserError(f"{source} holds no {what}: it needs {files}")
        return source if out is None else _linked(source, out)
    if out is None:
        raise UserError(f"{source} is an archive: say with --out DIR where to unpack it")
    if out.is_dir() and read_table(out) is not None:
        log(f"{out} holds {what} already: nothing to unpack")
        return out
    extract(source, out, unwrap=True)
    try:
        if read_table(out) is None:
            raise UserError(f"{source} holds no {what}: it needs {files}")
    except UserError:
        shutil.rmtree(out)
        raise
    return out


def _linked(source: Path, out: Path) -> Path:
    if out.exists() and out.resolve() == source.resolve():
        return out
    _clear(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.symlink_to(source.resolve(), target_is_directory=True)
    except OSError as error:
        raise UserError(f"{out} can't be made a link to {source} ({error.strerror}): use {source} itself") from error
    return out


def extract(archive: Path, target: Path, unwrap: bool = False) -> None:
    """Unpack a zip or tar archive (plain, gz, bz2, xz) into the new folder `target`, whole or not at all.

    Arguments:
        archive: the file; what it is is told by its content, not by its name.
        target: a folder that doesn't exist yet, or is empty.
        unwrap: where the archive holds one folder and nothing else (but hidden files), `target` becomes this folder.

    Raises:
        UserError: it is no such archive, it is truncated or damaged; a member leads outside the folder or is
            neither file nor folder nor a hard link within (a data set needs no symbolic links); it is larger than
            the free disk space; `target` is taken or can't be written.
    """
    try:
        with archive.open("rb") as file:
            magic = file.read(6)
    except OSError as error:
        raise UserError(f"{archive} can't be read ({error.strerror}): name an archive") from error
    if magic.startswith(b"7z\xbc\xaf"):
        raise UserError(f"{archive} is a 7z archive: unpack it with 7-Zip and name the folder")
    _clear(target)
    log(f"unpacking {archive} into {target}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
            folder = Path(scratch) / "content"
            folder.mkdir()
            (_unpack_zip if magic.startswith(b"PK") else _unpack_tar)(archive, folder)
            entries = [entry for entry in folder.iterdir() if not entry.name.startswith((".", "__MACOSX"))]
            (entries[0] if unwrap and len(entries) == 1 and entries[0].is_dir() else folder).rename(target)
    except _DAMAGED as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise _disk_error(error, target) from error
        raise UserError(
            f"{archive} is no whole zip or tar archive ({_reason(error)}): it is truncated or damaged, get it again"
        ) from error


def _unpack_tar(archive: Path, folder: Path) -> None:
    if not hasattr(tarfile, "data_filter"):
        raise UserError(f"this Python can't unpack {archive} safely: use Python 3.11.4 or later, or unpack it yourself")
    room = shutil.disk_usage(folder).free
    with (
        archive.open("rb") as raw,
        _decompressed(raw) as stream,
        tarfile.open(fileobj=stream, mode="r:", tarinfo=_StrictHeader) as tar,
        _bytes_bar("unpacking", archive.stat().st_size) as advance,
    ):
        for member in tar:
            _check_outside(archive, member.name)
            if not (member.isreg() or member.isdir() or member.islnk()) or leads_outside(member.linkname):
                raise UserError(
                    f"{archive} is not safe to unpack: {member.name!r} is a symbolic link, a device or leads outside"
                )
            room -= member.size
            if room < 0:
                raise _too_large(archive, folder)
            tar.extract(member, folder, filter="data")
            advance(raw.tell())
        while rest := stream.read(CHUNK):
            if any(rest):
                raise tarfile.ReadError("data after the end mark")


def _unpack_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as bundle, _bytes_bar("unpacking", archive.stat().st_size) as advance:
        for member in bundle.infolist():
            _check_outside(archive, member.filename)
            if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise UserError(f"{archive} is not safe to unpack: {member.filename!r} is a link or a device")
            if member.flag_bits & 1:
                raise UserError(f"{archive} is protected by a password: unpack it and name the folder")
        if sum(member.file_size for member in bundle.infolist()) > shutil.disk_usage(folder).free:
            raise _too_large(archive, folder)
        done = 0
        for member in bundle.infolist():
            bundle.extract(member, folder)
            done += member.compress_size
            advance(done)


class _StrictHeader(tarfile.TarInfo):
    """Only the end mark ends an archive: tarfile alone takes a cut or broken header for the end as well."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> _StrictHeader:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.HeaderError as error:
            if isinstance(error, tarfile.EOFHeaderError):  # type: ignore[attr-defined]  # missing in typeshed
                raise
            raise tarfile.ReadError(str(error)) from error


def _decompressed(raw: IO[bytes]) -> Any:
    magic = raw.read(6)
    raw.seek(0)
    return next((opened(raw) for start, opened in _COMPRESSIONS.items() if magic.startswith(start)), raw)


def _check_outside(archive: Path, name: str) -> None:
    if leads_outside(name):
        raise UserError(f"{archive} is not safe to unpack: {name!r} leads outside the folder")


def _too_large(archive: Path, folder: Path) -> UserError:
    free = shutil.disk_usage(folder).free / 1e9
    return UserError(f"{archive} unpacks to more than the {free:.1f} GB that are free: free some space")


def _clear(target: Path) -> None:
    """Make way for a new `target`: an empty folder is removed, anything else refused."""
    if target.is_dir() and not target.is_symlink() and not any(target.iterdir()):
        target.rmdir()
    elif target.exists() or target.is_symlink():
        raise UserError(f"{target} exists already: choose a new folder with --out, or remove it")


def download(url: str, file: Path) -> None:
    """Fetch `url` into `file`, whole or not at all; what arrived before a break is kept as `FILE.part` and continued.

    A download is whole when as many bytes arrived as the server announced. One that was broken off continues only
    where the server still has the file of the same date, and starts anew otherwise.

    Raises:
        UserError: the address isn't http(s), the server can't be reached or refuses, the connection broke, the
            server doesn't say how large the file is, or the disk is full.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise UserError(f"{url!r} can't be fetched: the address must begin with http:// or https://")
    part = file.with_name(f"{file.name}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _fetch(url, part)
        part.replace(file)
    except (OSError, http.client.HTTPException) as error:
        raise _download_error(error, url, file) from error


def _fetch(url: str, part: Path) -> None:
    start = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "spurmem"}
    if start:
        headers |= {
            "Range": f"bytes={start}-",
            "If-Range": email.utils.formatdate(part.stat().st_mtime, usegmt=True),
        }
    try:
        response = _opener().open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not start:
            raise
        error.close()
        part.unlink()
        return _fetch(url, part)
    with response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            start = 0
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise UserError(f"{url} can't be continued: remove {part} and try again")
        announced = response.headers.get("Content-Length")
        if announced is None:
            raise UserError(f"{url} can't be fetched safely: the server doesn't say how large the file is")
        total = start + int(announced)
        log(f"fetching {url} ({total / 1e6:.0f} MB{f', {start / 1e6:.0f} MB of it are here' if start else ''})")
        try:
            with part.open("ab" if start else "wb") as out, _bytes_bar("fetching", total) as advance:
                while chunk := response.read(CHUNK):
                    out.write(chunk)
                    advance(out.tell())
        finally:
            date = email.utils.parsedate_tz(response.headers.get("Last-Modified", ""))
            if date is not None:
                os.utime(part, (email.utils.mktime_tz(date),) * 2)
    if (arrived := part.stat().st_size) != total:
        raise UserError(
            f"{url} broke off after {arrived} of {total} bytes: run the same command again, it continues there"
        )
    return None


def _opener() -> urllib.request.OpenerDirector:
    """Opens http and https alone, after redirects too."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.HTTPRedirectHandler,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener


@contextmanager
def _bytes_bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar in bytes, moved by calling what it gives with the bytes done so far."""
    if not console.is_terminal:
        yield lambda done: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda done: bar.update(task, completed=done)


def _disk_error(error: OSError, path: Path) -> UserError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(f"no space left to write {path}: free some space and run the same command again")
    return UserError(f"{path} can't be written ({error.strerror or error}): choose another folder")


def _download_error(error: Exception, url: str, file: Path) -> UserError:
    if isinstance(error, urllib.error.HTTPError):
        return UserError(f"{url} can't be fetched: the server answers {error.code} {error.reason}")
    if isinstance(error, OSError) and (error.filename is not None or error.errno in (errno.ENOSPC, errno.EDQUOT)):
        return _disk_error(error, file)
    return UserError(f"{url} can't be fetched ({_reason(error)}): check the connection and try again")


def _reason(error: Exception) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return str(reason) or type(error).__name__
