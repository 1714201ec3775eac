"""Freed memory is reused within a block, rather than returned to the system and requested again."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

GROWTH_BYTES = 256_000_000
"""Free memory is returned to the system each time the process has grown by this size."""

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # numbers of mallopt's options, from glibc's malloc.h
_DEFAULTS = {_MMAP_MAX: 65536, _TRIM_THRESHOLD: 128 * 1024}
_WITHIN_A_BLOCK = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1}

_NAMES = ("trim_threshold", "mmap_max", "mmap_threshold", "top_pad")
"""Settings of glibc's allocator that concern how memory is requested and returned."""


@contextmanager
def reused_memory() -> Iterator[Callable[[], None]]:
    """Let the C library keep freed memory within the block, and return it at the end.

    By default glibc returns every large tensor to the system at once. Each new one then costs a page fault per 4 KiB.
    For a ResNet-50 at 224x224 this is a good part of a forward pass.

    The allocator is not touched where the user has set it (`MALLOC_..._` or `GLIBC_TUNABLES` in the environment), nor
    without glibc. Otherwise its options are glibc's defaults, and they are these again at the end. One thing cannot be
    restored: glibc stops adjusting its thresholds by itself after the first change of any of them.

    Yields:
        A function to call often. It returns free memory to the system once the process has grown by `GROWTH_BYTES`
        since it last did so. Otherwise the gaps between values that stay would add up.
    """
    library = _glibc()
    if library is None or is_set_by_user(os.environ):
        yield lambda: None
        return
    _apply(library, _WITHIN_A_BLOCK)
    least = _resident_bytes()

    def return_memory() -> None:
        nonlocal least
        if _resident_bytes() > least + GROWTH_BYTES:
            library.malloc_trim(0)
            least = _resident_bytes()

    try:
        yield return_memory
    finally:
        _apply(library, _DEFAULTS)
        library.malloc_trim(0)


def is_set_by_user(environment: Mapping[str, str]) -> bool:
    """Whether the environment sets how glibc requests and returns memory.

    Arguments:
        environment: variables by name. glibc has no function that tells its options, so this is the only source.
    """
    tunables = {item.partition("=")[0].strip() for item in environment.get("GLIBC_TUNABLES", "").split(":")}
    return any(f"MALLOC_{name.upper()}_" in environment or f"glibc.malloc.{name}" in tunables for name in _NAMES)


def _apply(library: ctypes.CDLL, options: Mapping[int, int]) -> None:
    for option, value in options.items():
        library.mallopt(option, value)


def _resident_bytes() -> int:
    """Bytes of the process that are in memory, without mapped files."""
    _, resident, shared, *_ = map(int, Path("/proc/self/statm").read_text().split())
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
