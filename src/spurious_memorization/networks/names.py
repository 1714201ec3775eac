"""Names that settings choose among. This module imports no torch, so that command-line settings can use it."""

from __future__ import annotations

from typing import Literal

Precision = Literal["float32", "bf16"]
"""Floating-point type of a network's forward pass."""

LossName = Literal["cross_entropy", "cross_entropy_on_probabilities"]
"""Losses of single samples; `networks.losses` has the functions."""

UnitKind = Literal["channel", "head", "feature", "weight"]
"""Kinds of units; `networks.units` describes them."""

Reach = Literal["layer", "stage", "network"]
"""From where the units of null sets are drawn."""

LayerKind = Literal["conv", "linear"]
"""Kinds of layers that have units."""

WeightFormat = Literal["auto", "plain", "research"]
"""How a weight file is read. "research" is the form of the code of You et al. (2025)."""
