"""The weight norm of each unit."""

from __future__ import annotations

from torch import nn

from ..datasets.samples import Samples
from ..datasets.sources import Batch
from ..networks.checked import checked_network
from ..networks.selection import Selection
from .reduce import l2_norm, reduce_units
from .scores import Scores


def weight_norm(model: nn.Module, batch: Batch | Samples | None = None, *, select: Selection | None = None) -> Scores:
    """L2 norm of each unit's weights; for a single weight its absolute value.

    You et al. (2025) call it magnitude, and the unit with the largest norm the "largest neuron".

    Arguments:
        model: the network, which stays as it is.
        batch: not used; it is there because every criterion takes one.
        select: the units to score; by default every channel except those of the classifier head.

    Returns:
        Scores of every unit.

    Raises:
        UserError: the selection leaves no unit.

    Example:
        ```python
        units = sm.top(sm.criteria.weight_norm(model), 3)
        ```
    """
    model = checked_network(model)
    parameters = {name: value.detach().cpu() for name, value in model.named_parameters()}
    return reduce_units(model, select or Selection(), parameters, l2_norm)
