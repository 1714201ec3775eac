"""Criteria by name."""

from __future__ import annotations

from ..errors import UserError
from ..named import named_function
from .ablation import ablation
from .criteria import Criterion, gradient, magnitude, random, taylor

CRITERIA: dict[str, Criterion] = {
    "magnitude": magnitude,
    "gradient": gradient,
    "taylor": taylor,
    "ablation": ablation,
    "random": random,
}

NEEDS_SAMPLES = ("gradient", "taylor", "ablation")


def find_criterion(name: str) -> Criterion:
    """A criterion by name, or a user's own function (module, batch) -> {tensor name: scores} as `module:function`.

    Raises:
        UserError: there is none of this name.
    """
    if name in CRITERIA:
        return CRITERIA[name]
    if ":" not in name:
        raise UserError(f"unknown criterion {name!r}: choose among {', '.join(CRITERIA)}, or module:function")
    return named_function(name)
