"""Run a network: device, precision, and inputs that are tensors or mappings."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from ..datasets.sources import Inputs
from ..errors import UserError
from .names import Precision


def choose_device(name: str = "auto") -> torch.device:
    """The device of this name. "auto" takes CUDA if available, then MPS, then the CPU.

    Raises:
        UserError: the device is not available.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, is_there in available.items() if is_there))
    if not available.get(name.split(":")[0], False):
        raise UserError(
            f"no device {name!r} here: use auto or {', '.join(kind for kind in available if available[kind])}"
        )
    return torch.device(name)


def working_copy(model: nn.Module, device: torch.device | None = None) -> nn.Module:
    """A copy in evaluation mode, without gradients, channels last. The caller's network stays as it is."""
    copied = copy.deepcopy(model).eval().requires_grad_(False)
    copied = copied.to(device) if device is not None else copied
    for tensor in (*copied.parameters(), *copied.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return copied


def device_of(model: nn.Module) -> torch.device:
    """Device of the network's parameters."""
    parameter = next(model.parameters(), None)
    return parameter.device if parameter is not None else torch.device("cpu")


def moved(inputs: Inputs, device: torch.device) -> Inputs:
    """The inputs on the device; images have channels last."""
    if isinstance(inputs, Mapping):
        return {name: value.to(device) for name, value in inputs.items()}
    if inputs.ndim == 4:
        return inputs.to(device, memory_format=torch.channels_last)
    return inputs.to(device)


def logits(model: nn.Module, inputs: Inputs, changed: Mapping[str, Tensor] | None = None) -> Tensor:
    """Logits [samples, classes] of a network, in float32. The tensors in `changed` replace its own.

    A mapping of inputs is passed by name. If the output has a field `logits`, this field is used.

    Raises:
        UserError: the output is no tensor of shape [samples, classes].
    """
    arguments, named = ((), dict(inputs)) if isinstance(inputs, Mapping) else ((inputs,), {})
    replaced = _with_ties(model, changed) if changed else {}
    output = torch.func.functional_call(model, replaced, arguments, named, tie_weights=False)
    output = getattr(output, "logits", output)
    if not isinstance(output, Tensor) or output.ndim != 2:
        raise UserError("the network must give logits of shape [samples, classes]")
    return output.float()


def _with_ties(model: nn.Module, changed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same replacements under every name of a tied parameter, but only once per module.

    `functional_call` with its own `tie_weights` leaves a replacement behind in a module that has two names.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    values = {id(value): changed[name] for name, value in model.named_parameters() if name in changed}
    replaced, seen = dict(changed), set()
    for name, value in model.named_parameters(remove_duplicate=False):
        module, _, attribute = name.rpartition(".")
        place = (id(modules[module]), attribute)
        if id(value) in values and place not in seen:
            replaced[name] = values[id(value)]
        seen.add(place)
    return replaced


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """The context in which a network runs in this precision."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
