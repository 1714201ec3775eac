"""Studies of tiny runs. Tests leave the shared ones as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
from study_oracle import MEAN, MINORITY, REWIND, small

import spurious_memorization as sm


@pytest.fixture
def run(trained: sm.Run, tmp_path: Path) -> sm.Run:
    return tiny.copied(trained, tmp_path / "run")


@pytest.fixture(scope="session")
def whole(trained: sm.Run, tmp_path_factory: pytest.TempPathFactory) -> sm.Study:
    """A study with every edit that can be done again by hand. Tests leave it as it is."""
    copy_of_it = tiny.copied(trained, tmp_path_factory.mktemp("study") / "run")
    return sm.study(copy_of_it, small(edit=("zero", MEAN, REWIND)), name="whole")


@pytest.fixture(scope="session")
def wide(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> sm.Run:
    """A network wide enough for verdicts, trained until it knows the samples. Tests leave it as it is."""
    settings = {**tiny.QUICK, "model": "tiny_networks:wide_convnet", "epochs": 6, "augment": False}
    return sm.train(squares, tmp_path_factory.mktemp("wide") / "run", sm.TrainSettings(**settings))


@pytest.fixture(scope="session")
def tested(wide: sm.Run, tmp_path_factory: pytest.TempPathFactory) -> sm.Study:
    """A study with verdicts, and the third question asked of every set. Tests leave it as it is."""
    run = tiny.copied(wide, tmp_path_factory.mktemp("tested") / "run")
    settings = small(criterion=("gradient",), group=MINORITY[:1], controls=60, edit=("random_noise:std=2",), repeats=2)
    return sm.study(run, settings.model_copy(update={"size": ("4", "8"), "every_question": True}))
