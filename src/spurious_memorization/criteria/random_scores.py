"""Random scores: the criterion that knows nothing."""

from __future__ import annotations

import torch
from torch import nn

from ..datasets.samples import Samples
from ..datasets.sources import Batch
from ..networks.selection import Selection
from ..networks.units import sites
from .scores import Scores


def random(
    model: nn.Module, batch: Batch | Samples | None = None, *, select: Selection | None = None, seed: int = 0
) -> Scores:
    """Uniform random scores, the same for the same network layout, selection and seed.

    Arguments:
        model: the network, which stays as it is.
        batch: not used; every criterion takes it.
        select: the units to score; every channel but the classifier head's if not given.
        seed: of the draws.

    Returns:
        Scores of every unit, from 0 to 1.

    Raises:
        UserError: the selection leaves no unit.
    """
    select = select or Selection()
    generator = torch.Generator().manual_seed(seed)
    values = {name: torch.rand(site.shape, generator=generator) for name, site in sites(model, select).items()}
    return Scores(values, select.unit, select.with_bias)
