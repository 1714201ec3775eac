"""Criteria, reached as `tiny_criteria:drawn_channels`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import spurious_memorization as sm


def drawn_channels(model: nn.Module, batch: sm.Batch) -> dict[str, Tensor]:
    """Scores at random, other ones for other samples."""
    generator = torch.Generator().manual_seed(int(batch.index.sum()))
    return {
        name: torch.rand(value.shape, generator=generator) for name, value in sm.criteria.weight_norm(model).items()
    }


def drawn_weights(model: nn.Module, batch: sm.Batch) -> dict[str, Tensor]:
    """Scores of single weights, as `drawn_channels`."""
    generator = torch.Generator().manual_seed(int(batch.index.sum()))
    weights = sm.criteria.weight_norm(model, select=sm.Selection(unit="weight"))
    return {name: torch.rand(value.shape, generator=generator) for name, value in weights.items()}
