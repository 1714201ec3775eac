"""What several test modules share."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: networks are tiny, and children are forked, which threads forbid

from pathlib import Path

import pytest

import spurious_memorization as sm
import tiny


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny data folder of 2 classes x 2 colours. Tests leave it as it is."""
    return tiny.make_pictures(tmp_path_factory.mktemp("data") / "squares")


@pytest.fixture(scope="session")
def trained(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> sm.Run:
    """A small network trained on them for three epochs. Tests leave it as it is (`tiny.copied` gives a copy)."""
    return sm.train(squares, tmp_path_factory.mktemp("runs") / "trained", sm.TrainSettings(**tiny.QUICK))
