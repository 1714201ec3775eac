"""Memory that is freed and asked for again in the same sizes."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # numbers of mallopt's options, from glibc's malloc.h
GROWTH_BYTES = 512_000_000
"""Growth of the process's memory from which what is free of it is given back."""

_DEFAULT_TRIM_THRESHOLD, _DEFAULT_MMAP_MAX = 128 * 1024, 65536


@contextmanager
def reused_memory() -> Iterator[Callable[[], None]]:
    """Let the C library keep freed memory within the block, and give it back at the end.

    By default glibc returns every large tensor to the system at once, and each new one costs a page fault for every
    4 KiB of it: with a ResNet-50 at 224x224 a good part of a forward pass. Elsewhere than with glibc this
    does nothing.

    Yields:
        A function to call often: it gives back what is free once the process has grown by `GROWTH_BYTES` since it last
        did, so that gaps between values that stay don't add up.
    """
    library = _glibc()
    if library is None:
        yield lambda: None
        return
    library.mallopt(_MMAP_MAX, 0)
    library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    least = _resident()

    def give_back() -> None:
        nonlocal least
        if _resident() > least + GROWTH_BYTES:
            library.malloc_trim(0)
            least = _resident()

    try:
        yield give_back
    finally:
        library.mallopt(_MMAP_MAX, _DEFAULT_MMAP_MAX)
        library.mallopt(_TRIM_THRESHOLD, _DEFAULT_TRIM_THRESHOLD)
        library.malloc_trim(0)


def _resident() -> int:
    """Bytes of the process that are in memory, without mapped files."""
    _, resident, shared, *_ = map(int, Path("/proc/self/statm").read_text().split())
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
