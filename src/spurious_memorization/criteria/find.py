"""Criteria by name. `ablation` is not among them: an engine measures it, in `studies`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import islice

import torch
from torch import Tensor, nn

from ..errors import UserError, first_line
from ..networks.selection import Selection
from ..networks.units import sites, unit_shapes
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


def checked_scores(criterion: str, values: object, model: nn.Module, select: Selection) -> dict[str, Tensor]:
    """What a user's criterion returned, checked: scores for the network's units.

    Arguments:
        criterion: its name.
        values: {tensor name: scores}, as tensors, arrays or lists.
        model: the network.
        select: the units that are considered.

    Returns:
        The scores of the tensors that are selected.

    Raises:
        UserError: they are something else, of another tensor or shape, or not a number; or none are selected.
    """
    if not isinstance(values, Mapping) or not values:
        what = "an empty mapping" if isinstance(values, Mapping) else f"a {type(values).__name__}"
        raise UserError(f"criterion {criterion} must return {{tensor name: scores}}, not {what}")
    shapes, scores = unit_shapes(model, select.unit), {}
    for name, of_units in values.items():
        if name not in shapes:
            no_units = f"gives scores for {name!r}, which has no {select.unit}s"
            raise UserError(f"criterion {criterion} {no_units}: it may name {_first_few(shapes)}")
        try:
            scores[name] = torch.as_tensor(of_units).detach().float()
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"criterion {criterion} gives no numbers for {name}: {first_line(error)}") from error
        if scores[name].shape != shapes[name]:
            given, wanted = tuple(scores[name].shape), tuple(shapes[name])
            raise UserError(f"criterion {criterion} gives scores of shape {given} for {name}, not {wanted}")
        if scores[name].isnan().any():
            raise UserError(f"criterion {criterion} gives NaN for {name}: each unit needs a number")
    chosen = sites(model, select)
    kept = {name: of_units for name, of_units in scores.items() if name in chosen}
    if not kept:
        raise UserError(
            f"criterion {criterion} gives no scores for the chosen {select.unit}s: those of {_first_few(chosen)}"
        )
    return kept


def _first_few(names: Iterable[str]) -> str:
    return ", ".join(islice(names, 3)) + ", ..."
