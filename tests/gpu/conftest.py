"""Where the tests of this folder run. They need no network and no weights, only CUDA."""

from __future__ import annotations

import pytest

DEVICE = "cuda"


@pytest.fixture(scope="session")
def device() -> str:
    return DEVICE
