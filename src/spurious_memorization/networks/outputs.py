"""The outputs of a network on samples, and the inputs and outputs of its layers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from ..datasets.samples import Samples
from ..datasets.sources import Batch
from .forward import device_of, logits, moved
from .losses import BROKEN_NETWORK, finite

BATCH_SIZE = 200


def logits_by_batch(
    network: nn.Module,
    batch: Batch | Samples,
    changed: Mapping[str, Tensor] | None = None,
    *,
    name: str = "the network",
    remedy: str = BROKEN_NETWORK,
) -> Iterator[tuple[Batch, Tensor]]:
    """Pass samples through a network, at most 200 or so at once; a batch is passed as it is.

    Arguments:
        network: a working copy.
        batch: the samples.
        changed: tensors that replace the network's own.
        name: how an error names the network.
        remedy: what the user can do about it.

    Yields:
        Each batch and its logits, [samples, classes], on the network's device.

    Raises:
        UserError: an image is missing or broken, or a logit is NaN or infinite.
    """
    device, source = device_of(network), batch.dataset.source if isinstance(batch, Samples) else None
    for part in batch.batches(BATCH_SIZE) if isinstance(batch, Samples) else [batch]:
        output = logits(network, moved(part.inputs, device), changed)
        yield part, finite(output, part.index, name, source=source, remedy=remedy)


@contextmanager
def outputs_seen(network: nn.Module, layers: Collection[str], see: Callable[[str, Tensor], None]) -> Iterator[None]:
    """While this context lasts, each output of these layers is given to a function.

    Where gradients are taken, the network goes on with a copy of the output. So a layer that writes over its input,
    such as `ReLU(inplace=True)`, leaves the output as it is. Without gradients, the function has to read it at once.

    Arguments:
        network: whose forward pass is run in this context.
        layers: names of convolutions and linear layers.
        see: gets the layer's name and its output with the channels last, [samples, ..., channels].
    """

    def hook_of(name: str, is_linear: bool) -> Callable[..., Tensor | None]:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor | None:
            seen = output if is_linear else output.movedim(1, -1)
            see(name, seen)
            if not torch.is_grad_enabled():
                return None
            return (seen if is_linear else seen.movedim(-1, 1)).clone()

        return hook

    with ExitStack() as hooks:
        for name, module in network.named_modules():
            if name in layers:
                hooks.callback(module.register_forward_hook(hook_of(name, isinstance(module, nn.Linear))).remove)
        yield


@contextmanager
def inputs_seen(network: nn.Module, layers: Collection[str], see: Callable[[str, Tensor], None]) -> Iterator[None]:
    """While this context lasts, each input of these layers is given to a function, which has to read it at once.

    Arguments:
        network: whose forward pass is run in this context.
        layers: names of convolutions and linear layers.
        see: gets the layer's name and its input with the channels last, [samples, ..., channels].
    """

    def hook_of(name: str, is_linear: bool) -> Callable[..., None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            see(name, inputs[0] if is_linear else inputs[0].movedim(1, -1))

        return hook

    with ExitStack() as hooks:
        for name, module in network.named_modules():
            if name in layers:
                hooks.callback(module.register_forward_pre_hook(hook_of(name, isinstance(module, nn.Linear))).remove)
        yield
