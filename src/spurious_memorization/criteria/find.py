"""Criteria by name. `ablation` is not among them: an engine measures it, in `studies`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from ..errors import UserError
from ..user_functions import load_user_function
from .gradients import gradient, taylor
from .names import CRITERION_NAMES, criterion_name
from .random_scores import random
from .weight_norms import weight_norm

Criterion = Callable[..., Mapping[str, Tensor]]
"""Scores of every unit of a network: (module, batch) -> {tensor name: scores}."""

CRITERIA: dict[str, Criterion] = {
    "weight_norm": weight_norm,
    "gradient": gradient,
    "taylor": taylor,
    "random": random,
}


def find_criterion(name: str) -> Criterion:
    """A criterion that needs no engine.

    Arguments:
        name: one of `CRITERIA`, or `module:function` for a user's own function (module, batch) -> {tensor name:
            scores}.

    Raises:
        UserError: there is no criterion of this name, or the user's function can't be imported.
    """
    name = criterion_name(name)
    if name in CRITERIA:
        return CRITERIA[name]
    if ":" not in name:
        raise UserError(f"unknown criterion {name!r}: choose among {', '.join(CRITERION_NAMES)}, or module:function")
    return load_user_function(name)
