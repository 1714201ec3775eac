"""Criteria by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from ..errors import UserError
from ..studies.ablation import ablation
from ..user_functions import load_user_function
from .gradients import gradient, taylor
from .names import criterion_name
from .random_scores import random
from .weight_norms import weight_norm

Criterion = Callable[..., Mapping[str, Tensor]]
"""Scores of every unit of a network: (module, batch) -> {tensor name: scores}."""

CRITERIA: dict[str, Criterion] = {
    "weight_norm": weight_norm,
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
    name = criterion_name(name)
    if name in CRITERIA:
        return CRITERIA[name]
    if ":" not in name:
        raise UserError(f"unknown criterion {name!r}: choose among {', '.join(CRITERIA)}, or module:function")
    return load_user_function(name)
