"""The memory that a forward pass needs at least, so that a pass that can't fit is refused before it starts."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..datasets.sources import Inputs
from ..resources import check_memory, memory_bytes
from .forward import device_of, logits

SMALL = 1000
"""Inputs this many times smaller than the memory are not looked at: no network makes so much of them."""

_COUNTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Layers whose outputs are kept for the backward pass, whatever follows them."""


def check_pass_fits(model: nn.Module, inputs: Inputs, *, remedy: str) -> None:
    """Check that a pass of these inputs fits into memory. Accelerators are not checked: they report it themselves.

    The pass is made without numbers, on the device "meta". In training mode all outputs of convolutions count, since
    the backward pass needs them. In evaluation mode the largest one counts.

    Arguments:
        model: the network, in the mode of the pass.
        inputs: of the batch.
        remedy: what the user can do.

    Raises:
        UserError: it doesn't fit. The message gives both figures.
    """
    there = memory_bytes()
    if there is None or not isinstance(inputs, Tensor) or device_of(model).type != "cpu":
        return
    if inputs.nbytes * SMALL < there:
        return
    outputs = _output_bytes(model, inputs)
    needed = inputs.nbytes + (sum(outputs) if model.training else max(outputs, default=0))
    check_memory(needed, f"the activations of a batch of {len(inputs)} inputs", remedy)


def _output_bytes(model: nn.Module, inputs: Tensor) -> list[int]:
    """Bytes of each convolution's output; none if the network can't be passed through without numbers."""
    sizes: list[int] = []

    def record(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        sizes.append(output.nbytes)

    hooks: list[Callable[[], None]] = [
        module.register_forward_hook(record).remove for module in model.modules() if isinstance(module, _COUNTED)
    ]
    tensors = (*model.named_parameters(), *model.named_buffers())
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            logits(model, inputs.to("meta"), {name: tensor.to("meta") for name, tensor in tensors})
    except Exception:  # a user's own network may do anything; then only its inputs count
        return []
    finally:
        for remove in hooks:
            remove()
    return sizes
