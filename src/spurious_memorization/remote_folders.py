"""Folders on object storage, such as s3://bucket/runs/first. Work is done in a local copy of such a folder.

The copy of s3://bucket/runs/first is CACHE/remote/files/s3/bucket/runs/first. So a path in it tells its URL, in every
process. Opening a URL brings the copy up to date. Each file that is written atomically in a copy is sent at once.

CACHE/remote/versions holds, for each file, which version of it was fetched or sent last. So a file that another machine
has changed is found, and not overwritten. Files whose names begin with a dot belong to this machine alone.
"""

from __future__ import annotations

import errno
import filecmp
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from .cache_folder import cache_folder
from .console import log
from .errors import UserError, first_line
from .extras import imported

OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "memory"}
"""Here a file appears when it is whole, and folders need not be made. Elsewhere a file is renamed when it is whole."""

LOCAL = ("file", "local")

FETCHED_AT_ONCE = 256
"""Files that are fetched together: object stores serve many requests at a time."""

_VERSION = ("ETag", "etag", "md5Hash", "generation")
"""Where file systems say which version a file is. Where there is none of these entries, its time is taken."""

_TIME = ("mtime", "LastModified", "last_modified", "modified", "updated", "created")


class _Known(NamedTuple):
    """What was fetched or sent last: the stamp of the file here, and the version there."""

    here: str
    there: str


def local_folder(place: str | Path) -> Path:
    """A folder as it is. Of a URL, its local copy, after files that are new there were fetched and new ones here sent.

    Arguments:
        place: a path, or a URL such as s3://bucket/runs/first. A `Path` keeps one of the slashes, which is enough.

    Raises:
        UserError: the URL can't be used; a file was changed there and here.
    """
    named = _scheme_and_path(place)
    if named is None:
        return Path(place)
    scheme, parts = named
    folder = _root("files").joinpath(scheme, *parts)
    _exchange(_url(scheme, parts), scheme, folder)
    return folder


def url_of(path: Path) -> str | None:
    """The URL of a file or folder in a local copy; None for other paths."""
    relative = _relative_to_copies(path)
    return None if relative is None else _url(relative.parts[0], relative.parts[1:])


def send(path: Path) -> None:
    """Send a file of a local copy, or all files below a folder of it that were not sent yet. Other paths are left.

    Raises:
        UserError: it can't be sent; another machine has changed it.
    """
    relative = _relative_to_copies(path)
    if relative is None or any(part.startswith(".") for part in relative.parts):
        return
    unsent = [file for file in ([path] if path.is_file() else _files_below(path)) if not _is_as_known(file)]
    _send_all(unsent, relative.parts[0], path)


def about_copies(text: str) -> str:
    """What a message that names a file of a local copy should say at its end; empty for other messages."""
    folder = cache_folder()
    named = None if folder is None else re.search(re.escape(str(folder / "remote" / "files")) + r"/[^\s;,:)]+", text)
    url = None if named is None else url_of(Path(named[0]))
    if url is None or url in text:
        return ""
    return f" (this is a local copy of {url}: a file that is deleted has to be deleted there)"


def check_no_url(path: Path) -> None:
    """Check that a file that is to be written has no URL for its name: folders that can have one were opened before.

    Raises:
        UserError: it has one.
    """
    named = _scheme_and_path(path)
    if named is not None:
        raise UserError(f"{_url(*named)} can't be written: a URL can name a run, but not this: give a folder or file")


def _exchange(url: str, scheme: str, folder: Path) -> None:
    """Fetch what is new there, remove what was removed there, and send what was not sent yet."""
    fs, root = _file_system(url, scheme)
    # This comes first: another process may write and send files meanwhile, which then count as new there.
    here = {file: (_stamp(file), _known(file)) for file in _files_below(folder)}
    there = {folder / name: info for name, info in _files_there(fs, root, url, scheme).items()}
    to_fetch = {file: info for file, info in there.items() if file not in here}
    to_send = []
    for file, (stamp, known) in here.items():
        if known is None or known.here != stamp:
            to_send.append(file)
        elif file not in there:
            file.unlink(missing_ok=True)
            _version_file(file).unlink(missing_ok=True)
        elif known.there != _version(there[file]):
            to_fetch[file] = there[file]
    if to_fetch:
        size = sum(info["size"] or 0 for info in to_fetch.values())
        log(f"fetching {len(to_fetch)} file{'s' * (len(to_fetch) > 1)}, {size / 1e6:.1f} MB, of {url} into {folder}")
    files = list(to_fetch)
    for start in range(0, len(files), FETCHED_AT_ONCE):
        some = files[start : start + FETCHED_AT_ONCE]
        _fetch(fs, {file: to_fetch[file] for file in some}, url)
    _send_all(to_send, scheme, folder)


def _files_there(fs: Any, root: str, url: str, scheme: str) -> dict[str, Mapping[str, Any]]:
    """What the file system says of each file below a folder, by its name relative to it.

    Raises:
        UserError: the folder can't be listed; a name would lie outside of it.
    """
    with _reaching(url):
        fs.invalidate_cache()
        try:
            listed = fs.find(root, detail=True)
        except FileNotFoundError:
            if scheme in OBJECT_STORES:
                raise
            return {}
    start, found = root.rstrip("/") + "/", {}
    for full, info in listed.items():
        name = full.removeprefix(start)
        parts = name.split("/")
        if not full.startswith(start) or name.endswith("/") or info["type"] != "file":
            continue
        if not name or "\\" in name or "\0" in name or {"", ".", ".."} & set(parts):
            raise UserError(f"{url} holds {name!r}, which is no name of a file: remove it there")
        if not any(part.startswith(".") for part in parts):
            found[name] = info
    return found


def _fetch(fs: Any, files: Mapping[Path, Mapping[str, Any]], url: str) -> None:
    """Fetch files, each of which appears whole."""
    with _reaching(url), tempfile.TemporaryDirectory(dir=_made(_root("fetched"))) as scratch:
        arrived = [Path(scratch, str(number)) for number in range(len(files))]
        fs.get([info["name"] for info in files.values()], list(map(str, arrived)))
        for (file, info), new in zip(files.items(), arrived, strict=True):
            if new.stat().st_size != info["size"]:
                raise UserError(f"{url_of(file)} arrived in part, or was changed meanwhile: run the same command again")
            if (changed := _changed_at(info)) is not None:
                os.utime(new, (changed, changed))
            _made(file.parent)
            known = _Known(_stamp(new), _version(info))
            new.replace(file)
            _remember(file, known)


def _send_all(files: Sequence[Path], scheme: str, place: Path) -> None:
    """Send files, those of the innermost folders first: a run is there when its run.json is."""
    if files:
        fs, _ = _file_system(str(url_of(place)), scheme)
        for file in sorted(files, key=lambda file: (-len(file.parts), file)):
            _send_file(fs, file, scheme)


def _send_file(fs: Any, file: Path, scheme: str) -> None:
    url, known = str(url_of(file)), _known(file)
    with _reaching(url, f"; {file} is kept, and the next command sends it"):
        target = fs._strip_protocol(url)
        fs.invalidate_cache()
        info = _info(fs, target)
        if info is not None and (known is None or known.there != _version(info)):
            if not _is_same(fs, info, file):
                raise UserError(
                    f"{url} was changed by another machine, and so was its copy here: delete the wrong one, which is "
                    f"the one there or {file}"
                )
            _remember(file, _Known(_stamp(file), _version(info)))
            return
        here, size = _stamp(file), file.stat().st_size
        if scheme in OBJECT_STORES:
            fs.put_file(str(file), target)
        else:
            _put_and_rename(fs, file, target)
        fs.invalidate_cache()
        info = _info(fs, target)
        is_whole = info is not None and info["size"] == size
        if info is not None:
            _remember(file, _Known(here if is_whole else "", _version(info)))
        if not is_whole:
            raise UserError(f"{url} did not arrive whole: run the same command again, which sends {file}")


def _put_and_rename(fs: Any, file: Path, target: str) -> None:
    parent, _, name = target.rpartition("/")
    part = f"{parent}/.{name}.part"
    fs.makedirs(parent, exist_ok=True)
    try:
        fs.put_file(str(file), part)
        fs.mv(part, target)
    except BaseException:
        with suppress(Exception):
            fs.rm_file(part)
        raise


def _is_same(fs: Any, info: Mapping[str, Any], file: Path) -> bool:
    """Whether a file there has the content of the one here."""
    if info["size"] != file.stat().st_size:
        return False
    with tempfile.TemporaryDirectory(dir=_made(_root("fetched"))) as scratch:
        fs.get_file(info["name"], f"{scratch}/file")
        return filecmp.cmp(f"{scratch}/file", file, shallow=False)


def _info(fs: Any, target: str) -> Mapping[str, Any] | None:
    try:
        info: Mapping[str, Any] = fs.info(target)
    except FileNotFoundError:
        return None
    return info


def _file_system(url: str, scheme: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it.

    Raises:
        UserError: a package is missing, or the protocol is unknown.
    """
    core, registry = imported("fsspec.core", "remote"), imported("fsspec.registry", "remote")
    known = registry.known_implementations.get(scheme, {})
    try:
        with _reaching(url):
            fs, path = core.url_to_fs(url)
            return fs, str(path)
    except UserError as error:
        package = known.get("class", "fsspec").partition(".")[0]
        if isinstance(error.__cause__, ImportError):
            what = f"pip install {package}" if package != "fsspec" else known["err"]
            raise UserError(f"{url} needs a package that is missing: {what}") from error
        if isinstance(error.__cause__, ValueError) and not known:
            raise UserError(
                f"{url}: the protocol {scheme!r} is unknown: use s3://, gs://, az:// or another one that fsspec knows"
            ) from error
        raise


@contextmanager
def _reaching(url: str, kept: str = "") -> Iterator[None]:
    """Use a file system. Whatever goes wrong becomes an error of one line.

    Arguments:
        url: which is used.
        kept: what the message says at its end.

    Raises:
        UserError: it can't be used.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # a file system can raise any exception
        number = error.errno if isinstance(error, OSError) else None
        if number in (errno.ENOSPC, errno.EDQUOT):
            what = f"{url} or its copy in {_root('files')} finds no space left: free some, or set SPURMEM_CACHE"
        elif isinstance(error, PermissionError) or number == errno.EROFS:
            what = f"{url} can't be used, permission is denied: check your credentials and your rights there"
        elif isinstance(error, FileNotFoundError):
            what = f"{url} can't be used, its bucket or folder does not exist: make it, or correct the name"
        else:
            reason = f"{type(error).__name__}: {first_line(error)}"
            what = f"{url} can't be reached ({reason}): check its name, your credentials and the network"
        raise UserError(what + kept) from error


def _scheme_and_path(place: str | Path) -> tuple[str, tuple[str, ...]] | None:
    """The parts of a URL; None for a path.

    Raises:
        UserError: a part of the URL is no name of a folder.
    """
    match = re.fullmatch(r"([A-Za-z][A-Za-z0-9+.-]+):/(.+)", str(place), re.DOTALL)
    if match is None:
        return None
    parts = tuple(part for part in match[2].split("/") if part)
    if not parts or any(part.startswith(".") or re.search(r"[\\\0?#\n]", part) for part in parts):
        raise UserError(f"{str(place)!r} does not name a folder: write it as s3://bucket/runs/first, without . and ..")
    return match[1].lower(), parts


def _url(scheme: str, parts: Sequence[str]) -> str:
    return f"{scheme}://{'/' if scheme in LOCAL else ''}{'/'.join(parts)}"


def _root(kind: str) -> Path:
    """The folder of all copies, of the versions of their files, or of files that are being fetched.

    Raises:
        UserError: the user has no home directory.
    """
    folder = cache_folder()
    if folder is None:
        raise UserError("there is no home directory for the copy of a URL: set SPURMEM_CACHE to a folder")
    return folder / "remote" / kind


def _relative_to_copies(path: Path) -> Path | None:
    """A path in a copy, relative to the folder of all copies; None for other paths."""
    folder = cache_folder()
    root = None if folder is None else folder / "remote" / "files"
    if root is None or not path.is_relative_to(root) or len(path.relative_to(root).parts) < 2:
        return None
    return path.relative_to(root)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _files_below(folder: Path) -> list[Path]:
    """The files of a copy that are not of this machine alone."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place, name) for name in names if not name.startswith(".")]
    return found


def _stamp(file: Path) -> str:
    """What changes when a file of a copy is written."""
    facts = file.stat()
    return f"{facts.st_size} {facts.st_mtime_ns} {facts.st_ino}"


def _version(info: Mapping[str, Any]) -> str:
    """What changes when a file there is written, from what its file system says of it."""
    told = next((info[name] for name in _VERSION if info.get(name) is not None), _changed_at(info))
    return f"{info['size']} {told}".replace('"', "").lower()  # a listing may write ETags in another way


def _changed_at(info: Mapping[str, Any]) -> float | None:
    """When a file there was written, in seconds; None if its file system doesn't say."""
    told = next((info[name] for name in _TIME if info.get(name) is not None), None)
    if isinstance(told, str):
        with suppress(ValueError):
            told = datetime.fromisoformat(told)
    if isinstance(told, datetime):
        return told.timestamp()
    return float(told) if isinstance(told, int | float) else None


def _version_file(file: Path) -> Path:
    return _root("versions") / file.relative_to(_root("files"))


def _known(file: Path) -> _Known | None:
    """What was fetched or sent last; None if nothing was."""
    try:
        return _Known(*json.loads(_version_file(file).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _is_as_known(file: Path) -> bool:
    """Whether a file of a copy is as it was fetched or sent."""
    known = _known(file)
    return known is not None and known.here == _stamp(file)


def _remember(file: Path, known: _Known) -> None:
    place = _version_file(file)
    handle, name = tempfile.mkstemp(dir=_made(place.parent))
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        json.dump(known, stream)
    Path(name).replace(place)
