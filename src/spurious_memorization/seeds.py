"""Seeds of single random draws, derived from the seed of the settings."""

from __future__ import annotations

import hashlib


def derived_seed(seed: int, *parts: object) -> int:
    """The seed for one use, derived from the seed of the settings and from what identifies the use."""
    digest = hashlib.sha256(repr((seed, *parts)).encode()).digest()
    return int.from_bytes(digest[:6], "big")
