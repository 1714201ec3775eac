"""The tensors that an edit puts into a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from ..datasets.samples import Dataset
from ..errors import UserError
from ..networks.names import UnitKind
from .apply import channel_means
from .edit import EditSpec


def tensors_of_edit(
    spec: EditSpec,
    unit: UnitKind,
    model: nn.Module,
    data: Dataset,
    older: Callable[[int], Mapping[str, Tensor]],
) -> Mapping[str, Tensor]:
    """The tensors of an older checkpoint for `rewind`, the means over the training samples for `mean`, else none.

    Arguments:
        spec: the edit.
        unit: kind of the units.
        model: the network.
        data: its data set.
        older: gives the state dict of the network a number of epochs earlier.

    Raises:
        UserError: there is no checkpoint of the older epoch, or the edit is `mean` and the units are single weights.
    """
    if spec.kind == "mean":
        if unit == "weight":
            raise UserError("edit mean is for channels and heads: choose another edit for single weights")
        return channel_means(model, data.train)
    return older(int(spec.parameters["epochs"])) if spec.kind == "rewind" else {}
