"""Reports that several test modules read."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
from report_page import Page

import spurious_memorization as sm


@pytest.fixture(scope="session")
def file(studied: sm.Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sm.report([studied.path.parent.parent], tmp_path_factory.mktemp("report") / "page.html")


@pytest.fixture(scope="session")
def page(file: Path) -> Page:
    return Page(file)


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> sm.Run:
    folder = tmp_path_factory.mktemp("hostile")
    run = sm.train(tiny.hostile_images(folder / "data"), folder / "run", sm.TrainSettings(**tiny.QUICK))
    tiny.studied(run, controls=2)
    return run


@pytest.fixture
def run(studied: sm.Study, tmp_path: Path) -> sm.Run:
    """A copy of the studied run that a test may change."""
    return tiny.copied(sm.Run(studied.path.parent.parent), tmp_path / "run")
