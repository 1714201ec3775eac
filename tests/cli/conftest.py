"""Data and runs that a test of a command may spoil."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import tiny

import spurious_memorization as sm


@pytest.fixture
def data(squares: Path, tmp_path: Path) -> Path:
    """A copy of the data folder that a test may spoil."""
    return Path(shutil.copytree(squares, tmp_path / "data"))


@pytest.fixture
def run(trained: sm.Run, tmp_path: Path) -> sm.Run:
    return tiny.copied(trained, tmp_path / "run")
