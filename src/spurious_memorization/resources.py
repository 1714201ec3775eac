"""Memory and disk of this machine. What can't fit is refused before work starts."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from .errors import UserError

_CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def check_memory(needed: float, what: str, remedy: str) -> None:
    """Check that something fits into memory at all.

    Arguments:
        needed: bytes, estimated so that no less is ever needed.
        what: what needs them.
        remedy: what the user can do.

    Raises:
        UserError: this machine, container or process has less memory. The message gives both figures.
    """
    there = memory_bytes()
    if there is not None and needed > there:
        raise UserError(f"{what} need {_size(needed)} of memory, and {_size(there)} are there: {remedy}")


def check_disk(place: Path, needed: float, what: str, remedy: str) -> None:
    """Check that files fit on the disk.

    Arguments:
        place: where they are written; it need not exist.
        needed: bytes.
        what: what needs them.
        remedy: what the user can do.

    Raises:
        UserError: less is free there. The message gives both figures.
    """
    existing = next(folder for folder in (place.absolute(), *place.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise UserError(f"{what} need {_size(needed)} but {place} has {_size(free)}: {remedy}")


def memory_bytes() -> int | None:
    """Memory that this process may have: of the machine, of its container, or by `ulimit -v`. None if unknown."""
    limits = []
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    limits += [int(text) for file in _CONTAINER_LIMITS if (text := _content(file)).isdecimal()]
    if sys.platform != "win32":
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        limits += [soft] if soft != resource.RLIM_INFINITY else []
    return min(limits, default=None)


def _content(file: str) -> str:
    try:
        return Path(file).read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _size(n_bytes: float) -> str:
    if n_bytes < 1e8:
        return f"{n_bytes / 1e3:,.0f} kB"
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes < 1e13 else f"{n_bytes / 1e12:,.0f} TB"
