"""The weight norm of each unit."""

from __future__ import annotations

from torch import nn

from ..datasets.samples import Samples
from ..datasets.sources import Batch
from ..networks.selection import Selection
from .reduce import l2_norm, reduce_units
from .scores import Scores


def weight_norm(model: nn.Module, batch: Batch | Samples | None = None, *, select: Selection | None = None) -> Scores:
    """The L2 norm of each unit's weights; for a single weight its absolute value (You et al. 2025, "largest neuron").

    Arguments:
        model: the network, which stays as it is.
        batch: not used; every criterion takes it.
        select: the units to score; every channel but the classifier head's if not given.

    Returns:
        Scores of every unit.

    Raises:
        UserError: the selection leaves no unit.

    Example:
        ```python
        units = sm.top(sm.criteria.weight_norm(model), 3)
        ```
    """
    parameters = {name: value.detach().cpu() for name, value in model.named_parameters()}
    return reduce_units(model, select or Selection(), parameters, l2_norm)
