"""Waterbirds: its own layout, its known counts, its preparation, and its making from CUB and Places."""

from __future__ import annotations

from pathlib import Path

from .tables import AnnotatedTable


def read_table(folder: Path) -> AnnotatedTable | None:
    return None
