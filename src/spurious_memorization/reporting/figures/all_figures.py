"""All figures by name."""

from __future__ import annotations

from .accuracy import accuracy, comparison
from .accuracy_changes import accuracy_changes, groups, verdicts
from .group_counts import counts
from .layers import ablation, layers
from .memorization import memorization

FIGURES = {
    "accuracy": accuracy,
    "groups": groups,
    "memorization": memorization,
    "accuracy_changes": accuracy_changes,
    "verdicts": verdicts,
    "layers": layers,
    "ablation": ablation,
    "comparison": comparison,
    "counts": counts,
}
"""Every figure and table except the images and texts, in the order of the page."""
