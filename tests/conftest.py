"""What several test modules share."""

from __future__ import annotations

import os

# One thread per process, set before torch is imported. The networks are tiny, and some tests fork children, which
# threads forbid. Results then don't depend on how many workers run the tests.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"

from pathlib import Path

import pytest
import tiny
import torch

import spurious_memorization as sm

pytest_plugins = ["browser", "golden_networks", "local_ray"]

torch.set_num_threads(1)
# The first backward pass starts threads of torch. After a `torch.export`, a forked child could not start them.
torch.ones(1, requires_grad=True).sum().backward()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a GPU, and torch.cuda finds none here")


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Decoded images stay in a folder of this session, in child processes too."""
    os.environ["SPURMEM_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ.pop("SPURMEM_CACHE_GB", None)


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny data folder of 2 classes x 2 colors. Tests leave it as it is."""
    return tiny.make_images(tmp_path_factory.mktemp("data") / "squares")


@pytest.fixture(scope="session")
def trained(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> sm.Run:
    """A small network trained on them for three epochs. Tests leave it as it is (`tiny.copied` gives a copy)."""
    return sm.train(squares, tmp_path_factory.mktemp("runs") / "trained", sm.TrainSettings(**tiny.QUICK))


@pytest.fixture(scope="session")
def studied(trained: sm.Run, tmp_path_factory: pytest.TempPathFactory) -> sm.Study:
    """A study of a copy of that run with several sizes, edits and splits, and an ablation map. Tests leave it as it
    is."""
    run = tiny.copied(trained, tmp_path_factory.mktemp("studied") / "run")
    return tiny.studied(run)
