"""Settings that select the units of a network. This module imports no torch: command-line settings use it."""

from __future__ import annotations

from pydantic import Field

from ..settings import Settings
from .names import LayerKind, UnitKind


class Selection(Settings):
    """Which units of a network are considered: by default those of all convolutions and linear layers but the head.

    A channel is an output filter of a convolution, or an output row of a linear layer. A head is an attention head: its
    rows of q, k and v. A feature is an input of the classifier head: a column of its weights. A weight is a single
    number.
    """

    unit: UnitKind = Field("channel", description="channel, head, feature or weight")
    layers: tuple[LayerKind, ...] = Field(("conv", "linear"), description="kinds of layer")
    tensors: tuple[str, ...] = Field(
        (), description="glob patterns of tensors to keep, such as 'layer3.*'; all by default"
    )
    exclude: tuple[str, ...] = Field((), description="glob patterns of tensors to leave out")
    with_bias: bool = Field(True, description="a channel or head includes its bias, in scores and edits")
