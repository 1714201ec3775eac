"""The hardest samples: those with the largest loss."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import nn

from ..datasets.samples import Samples, checked_samples
from ..networks.forward import device_of, logits, moved, working_copy
from ..networks.losses import LOSSES, check_classes, finite
from ..networks.names import LossName
from .names import Order


def hardest_samples(
    model: nn.Module,
    samples: Samples,
    group: str | int | None = None,
    n: int = 200,
    *,
    order: Order = "highest_loss",
    loss: LossName = "cross_entropy",
    batch_size: int = 200,
) -> Samples:
    """The samples with the largest loss, at most `n`, the largest loss first. Ties keep the order of their indices.

    For two classes these are the samples with the lowest probability of their true class (You et al. 2025, Methods:
    the gradient criterion). Warns if all samples are classified
    correctly: then even the hardest samples are no errors.

    Arguments:
        model: the network, which stays as it is.
        samples: to choose from.
        group: only the samples of this group, by name or number; all groups if not given.
        n: at most this number of samples.
        order: "lowest_loss" takes the best samples, as the research code does where it knows no group.
        loss: by which they are ordered; as for `gradient`.
        batch_size: samples per forward pass; changes no result.

    Returns:
        The samples, the hardest first.

    Raises:
        UserError: the group is unknown or empty here, or the network's answer to a sample is NaN or infinite.

    Example:
        ```python
        hardest = sm.hardest_samples(model, data.train, group="waterbird on land", n=200)
        ```
    """
    samples = checked_samples(samples)
    candidates = samples if group is None else samples.of_group(group)
    network = working_copy(model)
    device = device_of(network)
    losses, right = [], []
    with torch.no_grad():
        for batch in candidates.batches(batch_size):
            output = logits(network, moved(batch.inputs, device)).cpu().double()
            check_classes(output, samples.dataset)
            finite(output, batch.index, "the network", source=samples.dataset.source)
            losses.append(LOSSES[loss](output, batch.y).numpy())
            right.append((output.argmax(1) == batch.y).numpy())
    values = np.concatenate(losses)
    if order == "highest_loss" and np.concatenate(right).all():
        name = "all" if group is None else repr(samples.dataset.groups.names[samples.dataset.groups.index(group)])
        warnings.warn(
            f"all {len(candidates)} samples ({name}) are classified correctly: the hardest have the largest loss",
            stacklevel=2,
        )
    ranked = np.lexsort((candidates.index, -values if order == "highest_loss" else values))
    return candidates.at(candidates.index[ranked[:n]])
