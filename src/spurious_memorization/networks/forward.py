"""Run a network: device, precision, and inputs that are tensors or mappings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..console import log_once
from ..datasets.sources import Inputs
from ..errors import UserError, first_line, is_out_of_memory
from .checked import checked_network, copied_network, in_float32
from .names import Precision

REPEATS_IF_RANDOM = 20
"""How often a network is asked again if it draws random numbers, which may change few answers."""

SAME_BATCH = 1e-5
"""Rounding of logits between two passes of batches of one size, as a share of the largest logit."""

OTHER_BATCH = 1e-3
"""Rounding of logits between two passes of batches of two sizes: other kernels may run."""


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
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"no device {name!r} here: write its number behind it, as in cuda:0") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"no device {name!r} here: the numbers go from 0 to {torch.cuda.device_count() - 1}")
    return device


outside_inference_mode = torch.inference_mode(False)
"""Decorates a function that needs tensors for autograd, wherever it is called."""


@outside_inference_mode
def working_copy(model: nn.Module, device: torch.device | None = None) -> nn.Module:
    """A copy in evaluation mode, in float32, without gradients, channels last. The caller's network stays as it is.

    Raises:
        UserError: as for `checked_network` and `copied_network`.
    """
    copied = copied_network(checked_network(model)).eval().requires_grad_(False)
    copied = in_float32(copied)
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
    """The inputs on the device; images have channels last. They can be used where gradients are taken."""
    if isinstance(inputs, Mapping):
        return {name: _usable(value.to(device)) for name, value in inputs.items()}
    if inputs.ndim == 4:
        return _usable(inputs.to(device, memory_format=torch.channels_last))
    return _usable(inputs.to(device))


def logits(model: nn.Module, inputs: Inputs, changed: Mapping[str, Tensor] | None = None) -> Tensor:
    """Logits [samples, classes] of a network, in float32. The tensors in `changed` replace its own.

    The network gets a copy of the inputs, over which it may write. A mapping is passed by name. If the output has a
    field or key `logits`, this is used. Otherwise it may be a tuple, list or mapping with one matrix; a line says so.

    Raises:
        UserError: the network's forward fails, or its output is no tensor of shape [samples, classes].
    """
    copies = _copied(inputs)
    arguments, named = ((), dict(copies)) if isinstance(copies, Mapping) else ((copies,), {})
    replaced = _with_ties(model, changed) if changed else {}
    try:
        output = torch.func.functional_call(model, replaced, arguments, named, tie_weights=False)
    except UserError:
        raise
    except Exception as error:
        raise UserError(_failure(error, inputs)) from error
    found: Any = logits_in(output)
    n = len(next(iter(inputs.values()))) if isinstance(inputs, Mapping) else len(inputs)
    if not _is_matrix(found) or len(found) != n or found.shape[1] < 2:
        raise UserError(
            f"the network gives {_described(found)} for {n} samples: it must give logits of shape [samples, classes], "
            "alone, as `logits`, or as the only matrix among several results"
        )
    if found is not output and not _names_logits(output):
        log_once(f"the network gives {_described(output)}: the only matrix among them is taken for the logits")
    result: Tensor = found.float()
    return result


def logits_in(output: Any) -> Any:
    """What a network's output has as field or key `logits`; otherwise the only matrix of several columns in it, if it
    is a tuple, list or mapping; otherwise the output itself."""
    if _names_logits(output):
        return output["logits"] if isinstance(output, Mapping) else output.logits
    matrices = [part for part in _parts(output) if _is_matrix(part) and part.shape[1] > 1]
    return matrices[0] if len(matrices) == 1 else output


def _names_logits(output: Any) -> bool:
    return "logits" in output if isinstance(output, Mapping) else hasattr(output, "logits")


def _parts(output: Any) -> list[Any]:
    """The parts of a tuple, list or mapping; none of anything else."""
    if isinstance(output, Mapping):
        return list(output.values())
    return list(output) if isinstance(output, tuple | list) else []


def _is_matrix(value: object) -> bool:
    return isinstance(value, Tensor) and value.ndim == 2 and value.is_floating_point()


def check_deterministic(model: nn.Module, inputs: Inputs, device: torch.device | None = None) -> None:
    """Check that a network in evaluation mode answers each sample alike: always, and whatever else is in its batch.

    Arguments:
        model: the network, which stays as it is.
        inputs: a few samples.
        device: where to compute; where the network is if not given.

    Raises:
        UserError: the answers differ, or the network fails.
    """
    network = working_copy(model, device)
    given = moved(inputs, device_of(network))
    n = len(_tensors(given)[0])
    with torch.no_grad(), exact_float32():
        drawn = _random_state(device_of(network))
        answers = logits(network, given)
        is_random = not torch.equal(_random_state(device_of(network)), drawn)
        again = [logits(network, given) for _ in range(REPEATS_IF_RANDOM if is_random else 1)]
        in_other_company = logits(network, first_repeated(given, n))[:1]
        in_other_batch = logits(network, first_repeated(given, n + 1))[:1]
    left = [name for name, module in network.named_modules() if module.training and name]
    training = f" ({left[0]} is in training mode even after eval())" if left else ""
    if any(_differ(a, answers, SAME_BATCH) for a in again):
        raise UserError(
            f"the network answers differently when it is asked twice{training}: turn off in eval() what is random "
            "(dropout, noise) and what changes from call to call"
        )
    if _differ(in_other_company, answers[:1], SAME_BATCH) or _differ(in_other_batch, answers[:1], OTHER_BATCH):
        raise UserError(
            f"the answer for an image depends on the other images of its batch{training}: use in eval() the "
            "statistics of the training (batch norm with track_running_stats=True), not those of the batch"
        )


def _random_state(device: torch.device) -> Tensor:
    """State of the generators from which a network on this device draws."""
    states = [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]
    return torch.cat(states)


def first_repeated(inputs: Inputs, n: int) -> Inputs:
    """A batch of the first sample alone, n times."""
    if isinstance(inputs, Mapping):
        return {name: value[:1].repeat(n, *[1] * (value.ndim - 1)) for name, value in inputs.items()}
    return inputs[:1].repeat(n, *[1] * (inputs.ndim - 1))


def _differ(given: Tensor, expected: Tensor, tolerance: float) -> bool:
    """Whether logits differ by more than this share of the largest one; values that are no numbers don't count."""
    difference = (given - expected).nan_to_num(0, 0, 0).abs().max()
    return float(difference) > tolerance * float(expected.nan_to_num(0, 0, 0).abs().max())


def _failure(error: Exception, inputs: Inputs) -> str:
    shapes = ", ".join(str(list(value.shape)) for value in _tensors(inputs))
    what = f"the network fails on inputs of shape {shapes} ({type(error).__name__}: {first_line(error)})"
    if is_out_of_memory(error):
        return f"{what}: use smaller batches (--batch-size, --eval-batch-size)"
    if "more than 1 value per channel" in str(error):
        return f"{what}: batch norm can't train on one sample, so use a --batch-size above 1 and several samples"
    if any(value.ndim == 4 for value in _tensors(inputs)):
        return f"{what}: use images of another size (--image-size) or another network (--model), or fix its forward"
    return f"{what}: give inputs that its forward takes"


def _described(output: object) -> str:
    match output:
        case Tensor():
            return f"a tensor of shape {list(output.shape)} and type {str(output.dtype).removeprefix('torch.')}"
        case Mapping():
            return f"a {type(output).__name__} with the keys {', '.join(map(str, output)) or 'none'}"
        case list() | tuple():
            parts = ", ".join(str(list(p.shape)) if isinstance(p, Tensor) else type(p).__name__ for p in output)
            return f"a {type(output).__name__} of {len(output)} ({parts})"
        case _:
            return f"a {type(output).__name__}"


def _tensors(inputs: Inputs) -> tuple[Tensor, ...]:
    return tuple(inputs.values()) if isinstance(inputs, Mapping) else (inputs,)


def _copied(inputs: Inputs) -> Inputs:
    return {name: value.clone() for name, value in inputs.items()} if isinstance(inputs, Mapping) else inputs.clone()


def _usable(value: Tensor) -> Tensor:
    """A tensor that was made in inference mode is copied, since autograd refuses it."""
    return value.clone() if value.is_inference() and not torch.is_inference_mode_enabled() else value


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


@contextmanager
def exact_float32() -> Iterator[None]:
    """A context in which a GPU computes float32 in full, without TF32.

    TF32 is PyTorch's default for convolutions. It keeps 10 bits of each factor, so the logits of a ResNet-50 differ by
    a thousandth. Shared and full passes would then not agree.
    """
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, products.allow_tf32
    try:
        convolutions.allow_tf32 = products.allow_tf32 = False
        yield
    finally:
        convolutions.allow_tf32, products.allow_tf32 = before


@contextmanager
def repeatable_gradients() -> Iterator[None]:
    """A context in which a GPU gives the same gradients each time.

    Only such algorithms of cuDNN are used. Attention takes none of the kernels that sum in any order: in float32 that
    is the memory-efficient one.
    """
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    try:
        cudnn.deterministic, cudnn.benchmark = True, False
        with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]):
            yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before
