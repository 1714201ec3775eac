"""The tensors that an edit puts into a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from torch import Tensor, nn

from ..datasets.samples import Dataset, Samples
from ..errors import UserError
from ..networks.names import UnitKind
from .apply import channel_means, feature_means
from .edit import EditSpec

OtherState = Callable[[EditSpec], Mapping[str, Tensor]]
"""Gives the state dict of the network whose weights an edit puts in."""


def tensors_of_edit(
    spec: EditSpec,
    unit: UnitKind,
    model: nn.Module,
    data: Dataset,
    other_state: OtherState,
) -> Mapping[str, Tensor]:
    """The tensors of another network for `rewind` and `transplant`, the means over some samples for `mean`, else none.

    The means are those over the training samples, or with `over=unseen` those over all val and test samples.

    Arguments:
        spec: the edit.
        unit: kind of the units.
        model: the network.
        data: its data set.
        other_state: gives the state dict of the other network.

    Raises:
        UserError: there is no such network; the edit is `mean` and the units are single weights, or
            there are no unseen samples.
    """
    if spec.kind == "mean":
        if unit == "weight":
            raise UserError("edit mean is for channels, heads and features: choose another edit for single weights")
        means_of = feature_means if unit == "feature" else channel_means
        return means_of(model, _unseen(data) if spec.parameters.get("over") == "unseen" else data.train)
    return other_state(spec) if spec.kind in ("rewind", "transplant") else {}


def _unseen(data: Dataset) -> Samples:
    """The val and test samples."""
    index = np.flatnonzero(data.split != "train")
    if not len(index):
        raise UserError("edit mean:over=unseen needs val or test samples: the data set has none")
    return Samples(data, index, "val and test")
