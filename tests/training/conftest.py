"""Data and a network for the tests of training."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_networks
import torch

import spurious_memorization as sm


@pytest.fixture
def data(squares: Path) -> sm.Dataset:
    return sm.read_data(squares)


@pytest.fixture
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return tiny_networks.small_convnet()
