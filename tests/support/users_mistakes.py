"""Functions of a user that go wrong in every way, reached as `users_mistakes:raises`."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from torch import nn

import spurious_memorization as sm

CALLED: list[str] = []


def raises(*_: Any) -> None:
    raise ValueError("the reason\nand a second line")


def leaves(*_: Any) -> None:
    sys.exit(0)


def no_arguments() -> None:
    CALLED.append("no_arguments")


def three_arguments(one: Any, two: Any, three: Any) -> None:
    CALLED.append("three_arguments")


def nothing(*_: Any) -> None:
    return None


def a_list(model: nn.Module, batch: sm.Batch) -> list[float]:
    return [1.0]


def an_empty_mapping(model: nn.Module, batch: sm.Batch) -> dict[str, Any]:
    return {}


def another_tensor(model: nn.Module, batch: sm.Batch) -> dict[str, Any]:
    return {"conv9.weight": torch.ones(8)}


def another_length(model: nn.Module, batch: sm.Batch) -> dict[str, Any]:
    return {"conv1.weight": torch.ones(7)}


def words(model: nn.Module, batch: sm.Batch) -> dict[str, Any]:
    return {"conv1.weight": ["a"] * 8}


def not_a_number(model: nn.Module, batch: sm.Batch) -> dict[str, Any]:
    return {"conv1.weight": torch.full((8,), torch.nan)}


def arrays_and_lists(model: nn.Module, batch: sm.Batch) -> dict[str, Any]:
    return {"conv1.weight": np.arange(8.0), "conv2.weight": list(range(12))}


def flat_numbers(num_classes: int) -> nn.Module:
    """A network for 3 numbers, not for images."""
    return nn.Linear(3, num_classes)


class Network(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()


constant = 3
