"""Names of the criteria; this module needs no network, so that settings can use it."""

from __future__ import annotations

from typing import Literal

Order = Literal["highest_loss", "lowest_loss"]
"""Which samples are the hardest ones."""

Preset = Literal["standard", "paper"]
"""Named choices of settings; `criteria.presets` expands them."""

CRITERION_NAMES = ("weight_norm", "gradient", "taylor", "ablation", "random")

SYNONYMS = {"magnitude": "weight_norm"}
"""Other names that are understood: You et al. (2025) say magnitude."""


def criterion_name(name: str) -> str:
    """The name under which a criterion is stored: a synonym's own name, any other name as it is."""
    return SYNONYMS.get(name, name)


def needs_samples(criterion: str) -> bool:
    """Whether a criterion looks at samples. Such a criterion is traced once per group."""
    return criterion_name(criterion) not in ("weight_norm", "random")
