"""The folder in which this machine keeps what can be made or fetched again."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path | None:
    """The folder that the environment variable `SPURMEM_CACHE` names, or that of the user.

    Returns:
        The folder; None if the user has no home directory.
    """
    named = os.environ.get("SPURMEM_CACHE")
    if named:
        return Path(named).absolute()
    try:
        folder = platformdirs.user_cache_path("spurious-memorization")
    except RuntimeError:
        return None
    return folder if folder.is_absolute() else None  # some versions of platformdirs return "~/..." unchanged
