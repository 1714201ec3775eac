"""Random scores: the criterion to compare others with."""

from __future__ import annotations

import torch
from torch import nn

from ..datasets.samples import Samples
from ..datasets.sources import Batch
from ..networks.checked import checked_network
from ..networks.selection import Selection
from ..networks.units import sites
from .scores import Scores


def random(
    model: nn.Module, batch: Batch | Samples | None = None, *, select: Selection | None = None, seed: int = 0
) -> Scores:
    """Uniform random scores. They depend only on the layout of the network, the selection and the seed.

    Arguments:
        model: the network, which stays as it is.
        batch: not used; it is there because every criterion takes one.
        select: the units to score; by default every channel except those of the classifier head.
        seed: of the draws.

    Returns:
        Scores of every unit, from 0 to 1.

    Raises:
        UserError: the selection leaves no unit.
    """
    model, select = checked_network(model), select or Selection()
    generator = torch.Generator().manual_seed(seed)
    values = {name: torch.rand(site.shape, generator=generator) for name, site in sites(model, select).items()}
    return Scores(values, select.unit, select.with_bias)
