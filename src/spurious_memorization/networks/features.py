"""Penultimate features: the input of the classifier head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..datasets.sources import Inputs
from ..errors import UserError
from .forward import logits
from .head import head_names
from .prototypes import prototypes_in


def features_and_logits(
    model: nn.Module, inputs: Inputs, changed: Mapping[str, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Penultimate features [samples, features] and logits [samples, classes] of one pass, both in float32.

    Arguments:
        changed: tensors that replace the network's own.

    Raises:
        UserError: the network has no linear head, or does not use it.
    """
    name = head_name(model)
    seen: list[Tensor] = []

    def keep(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        seen.append(arguments[0])

    hook = model.get_submodule(name).register_forward_pre_hook(keep)
    try:
        output = logits(model, inputs, changed)
    finally:
        hook.remove()
    if not seen:
        raise UserError(f"the network doesn't use its head {name}: contrast its logits instead of its features")
    return seen[0].flatten(1).float(), output


def head_name(model: nn.Module) -> str:
    """Module name of the classifier head; of the first one if there are several.

    Raises:
        UserError: the network has none.
    """
    names = head_names(model) or tuple(filter(None, [prototypes_in(model)]))
    if not names:
        raise UserError("the network has no linear layer for a head: its features are not known")
    return names[0]
