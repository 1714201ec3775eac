"""Archives and downloads. A result appears complete or not at all, and nothing is written outside its folder."""

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
    source: Path, out: Path | None, read_table: Callable[[Path], AnnotatedTable | None], *, what: str, files: str
) -> Path:
    """Prepare a data set that the user already has: unpack an archive, or use a folder in place.

    Arguments:
        source: folder or archive. A folder is never copied. If `out` is given, it becomes a symbolic link to the
            folder.
        out: the new folder (for an archive) or link (for a folder). Nothing is done if it already holds the data set.
        read_table: reads the data set's table; it returns None for a folder with another layout.
        what: name of the data set.
        files: the files of its layout. The error message lists them if they are missing.

    Returns:
        The folder that holds the data set.

    Raises:
        UserError: the source is missing, damaged or another data set; `out` is missing for an archive; or `out`
            already exists.
    """
    if not source.exists():
        raise UserError(f"{source} does not exist: give the folder or archive that holds {what}")
    if source.is_dir():
        if read_table(source) is None:
            raise UserError(f"{source} does not contain {what}: it needs {files}")
        return source if out is None else _linked(source, out)
    if out is None:
        raise UserError(f"{source} is an archive: add --out DIR, the folder to unpack it into")
    if out.is_dir() and read_table(out) is not None:
        log(f"{out} already contains {what}: nothing to unpack")
        return out
    extract(source, out, unwrap=True)
    try:
        if read_table(out) is None:
            raise UserError(f"{source} does not contain {what}: it needs {files}")
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
        raise UserError(f"can't create the link {out} to {source} ({error.strerror}): use {source} itself") from error
    return out


def extract(archive: Path, target: Path, unwrap: bool = False) -> None:
    """Unpack a zip or tar archive (plain, gz, bz2, xz) into the new folder `target`, completely or not at all.

    Arguments:
        archive: the file. Its type is recognized by its content, not by its name.
        target: a folder that doesn't exist yet, or is empty.
        unwrap: if the archive contains a single folder (hidden files are ignored), `target` becomes that folder.

    Raises:
        UserError: the file is not such an archive, or it is truncated or damaged; a member leads outside the folder,
            or is a symbolic link or a device; the content is larger than the free disk space; `target` already exists
            or can't be written.
    """
    try:
        with archive.open("rb") as file:
            magic = file.read(6)
    except OSError as error:
        raise UserError(f"{archive} can't be read ({error.strerror}): give the path of an archive") from error
    if magic.startswith(b"7z\xbc\xaf"):
        raise UserError(f"{archive} is a 7z archive: unpack it with 7-Zip and give the folder instead")
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
            f"{archive} is not a complete zip or tar archive ({_reason(error)}): it is truncated or damaged, "
            "download it again"
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
                    f"{archive} is not safe to unpack: {member.name!r} is a link, a device or leads outside the folder"
                )
            room -= member.size
            if room < 0:
                raise _too_large(archive, folder)
            tar.extract(member, folder, filter="data")
            advance(raw.tell())
        while rest := stream.read(CHUNK):
            if any(rest):
                raise tarfile.ReadError("data after the end marker")


def _unpack_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as bundle, _bytes_bar("unpacking", archive.stat().st_size) as advance:
        for member in bundle.infolist():
            _check_outside(archive, member.filename)
            if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise UserError(f"{archive} is not safe to unpack: {member.filename!r} is a link or a device")
            if member.flag_bits & 1:
                raise UserError(f"{archive} is protected by a password: unpack it and give the folder instead")
        if sum(member.file_size for member in bundle.infolist()) > shutil.disk_usage(folder).free:
            raise _too_large(archive, folder)
        done = 0
        for member in bundle.infolist():
            bundle.extract(member, folder)
            done += member.compress_size
            advance(done)


class _StrictHeader(tarfile.TarInfo):
    """A header that is cut off or broken is an error. Plain tarfile would treat it as the end of the archive."""

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
    return UserError(f"{archive} unpacks to more than the {free:.1f} GB of free disk space: free some space")


def _clear(target: Path) -> None:
    """Remove `target` if it is an empty folder; raise an error if anything else exists there."""
    if target.is_dir() and not target.is_symlink() and not any(target.iterdir()):
        target.rmdir()
    elif target.exists() or target.is_symlink():
        raise UserError(f"{target} already exists: choose a new folder with --out, or remove it")


def download(url: str, file: Path) -> None:
    """Download `url` into `file`, completely or not at all.

    The bytes that arrived before an interruption are kept in `FILE.part`, and the next call continues from there. It
    starts again from the beginning if the file on the server has changed since (by its date). A download is complete
    when its size equals the size that the server announced.

    Raises:
        UserError: the address isn't http(s); the server can't be reached, returns an error or doesn't send the size
            of the file; the connection was interrupted; or the disk is full.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise UserError(f"{url!r} can't be downloaded: the address must begin with http:// or https://")
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
            raise UserError(f"the download of {url} can't be continued: remove {part} and try again")
        announced = response.headers.get("Content-Length")
        if announced is None:
            raise UserError(f"{url} can't be downloaded safely: the server doesn't send the size of the file")
        total = start + int(announced)
        log(f"downloading {url} ({total / 1e6:.0f} MB{f', {start / 1e6:.0f} MB already here' if start else ''})")
        try:
            with part.open("ab" if start else "wb") as out, _bytes_bar("downloading", total) as advance:
                while chunk := response.read(CHUNK):
                    out.write(chunk)
                    advance(out.tell())
        finally:
            date = email.utils.parsedate_tz(response.headers.get("Last-Modified", ""))
            if date is not None:
                os.utime(part, (email.utils.mktime_tz(date),) * 2)
    if (arrived := part.stat().st_size) != total:
        raise UserError(
            f"the download of {url} stopped after {arrived} of {total} bytes: run the same command again to continue"
        )
    return None


def _opener() -> urllib.request.OpenerDirector:
    """Opens only http and https addresses, also after redirects."""
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
    """A progress bar in bytes. Yields a function to call with the number of bytes done up to now."""
    if not console.is_terminal:
        yield lambda done: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda done: bar.update(task, completed=done)


def _disk_error(error: OSError, path: Path) -> UserError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(f"no disk space left to write {path}: free some space and run the same command again")
    return UserError(f"{path} can't be written ({error.strerror or error}): choose another folder")


def _download_error(error: Exception, url: str, file: Path) -> UserError:
    if isinstance(error, urllib.error.HTTPError):
        return UserError(f"{url} can't be downloaded: the server returned {error.code} {error.reason}")
    if isinstance(error, OSError) and (error.filename is not None or error.errno in (errno.ENOSPC, errno.EDQUOT)):
        return _disk_error(error, file)
    return UserError(f"{url} can't be downloaded ({_reason(error)}): check the connection and try again")


def _reason(error: Exception) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return str(reason) or type(error).__name__
