"""Processes that train one network together: which part of the samples is whose, and sums over all of them.

Every process runs the same program on the same batches. It passes only its own part of a batch through the network, and
`whole` puts the parts together. So every process computes the same loss, that of all samples. Autograd passes through
these sums. In each process, backward gives that part of the gradient of the *sum* of the equal losses which goes
through this process. The mean over the processes (`average_gradients`) is then the gradient of the loss. What every
process computes for itself, such as a penalty of the weights, counts once by the same mean.

This is PyTorch's own `torch.distributed`. DistributedDataParallel and Accelerate expect one loss per process. The
objectives here need the whole batch (groups, contrasts), so neither would make this shorter.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from .console import only_here
from .errors import UserError

T = TypeVar("T")

PATIENCE = timedelta(days=30)
"""How long a process waits for another one that works, such as for the first one, which stores. A lost one ends the
waiting at once."""

_LOST = ("closed by peer", "reset by peer", "connection closed", "connection refused", "broken pipe", "remote process")
"""What PyTorch says of a process that has ended."""


class LostProcessError(UserError):
    """Another of the processes has ended, and its own message says why."""


@dataclass(frozen=True)
class Share:
    """One of several processes.

    Arguments:
        number: of this process, from 0.
        of: how many there are.
    """

    number: int = 0
    of: int = 1

    def part(self, n: int) -> range:
        """Positions of this process's samples among n. Fewer samples than processes are computed by each of them."""
        if n < self.of:
            return range(n)
        return range(n * self.number // self.of, n * (self.number + 1) // self.of)

    def copies(self, n: int) -> int:
        """How many processes compute each of n samples."""
        return self.of if n < self.of else 1


ALONE = Share()
_share: ContextVar[Share] = ContextVar("share", default=ALONE)


def this_share() -> Share:
    """The share of this process; everything outside `working_together`."""
    return _share.get()


def is_first() -> bool:
    """Whether this is the first process, the only one that stores and logs."""
    return this_share().number == 0


@contextmanager
def working_together(share: Share, meeting: str, device: torch.device) -> Iterator[None]:
    """Within the block, this process works together with others, which run the same block.

    Arguments:
        share: of this process.
        meeting: where the processes find each other, as `torch.distributed` names it: a file, or "env://".
        device: where this process computes: the CPU, or a GPU of its own.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, init_method=meeting, rank=share.number, world_size=share.of, timeout=PATIENCE)
        atexit.register(dist.destroy_process_group)
    before = _share.set(share)
    try:
        with only_here(share.number == 0):
            yield
    finally:
        _share.reset(before)


def _with_all(operation: Callable[..., object], *arguments: object) -> None:
    """Call an operation that every process calls.

    Raises:
        LostProcessError: another process has ended.
    """
    try:
        operation(*arguments)
    except RuntimeError as error:
        if not any(words in str(error).lower() for words in _LOST):
            raise
        raise LostProcessError(
            "another process of this training has ended: see its own message, then continue with --resume"
        ) from error


class _Sum(torch.autograd.Function):
    """The sum over all processes. The gradient of a sum of losses is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        return _summed(own)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _summed(gradient)


def _summed(values: Tensor) -> Tensor:
    summed = values.clone(memory_format=torch.contiguous_format)
    _with_all(dist.all_reduce, summed)
    return summed


def own(values: Tensor) -> Tensor:
    """This process's rows among those of a whole batch."""
    part = this_share().part(len(values))
    return values[part.start : part.stop]


def whole(rows: Tensor, n: int) -> Tensor:
    """The rows of a whole batch, [n, ...], of which each process has its own; gradients pass through.

    Rows that every process has are averaged, since their dropout differs.
    """
    share = this_share()
    if share.of == 1:
        return rows
    part = share.part(n)
    placed = rows.new_zeros(n, *rows.shape[1:])
    placed[part.start : part.stop] = rows
    summed: Tensor = _Sum.apply(placed)
    return summed / share.copies(n) if share.copies(n) > 1 else summed


def average_gradients(model: nn.Module) -> None:
    """Replace the gradients of a network by their means over all processes."""
    if this_share().of == 1:
        return
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    _with_all(dist.all_reduce, flat)
    means = torch.split(flat / this_share().of, [gradient.numel() for gradient in gradients])
    for gradient, mean in zip(gradients, means, strict=True):
        gradient.copy_(mean.view(gradient.shape))


def collected(rows: tuple[NDArray[Any], ...], n: int) -> tuple[NDArray[Any], ...]:
    """In the first process the rows of all n samples. Elsewhere this process's own.

    Arguments:
        rows: arrays with this process's rows.
        n: number of samples.
    """
    share = this_share()
    if share.copies(n) == share.of:
        return rows
    parts: list[Any] | None = [None] * share.of if is_first() else None
    _with_all(dist.gather_object, rows, parts)
    return tuple(np.concatenate(of_all) for of_all in zip(*parts, strict=True)) if parts else rows


def of_first(value: T) -> T:
    """The value that the first process has."""
    if this_share().of == 1:
        return value
    held = [value]
    _with_all(dist.broadcast_object_list, held)
    return held[0]


def wait_for_all() -> None:
    """Wait until every process is here."""
    if this_share().of > 1:
        _with_all(dist.barrier)


def take_from_first(model: nn.Module) -> None:
    """Give a network the values that it has in the first process."""
    if this_share().of > 1:
        for tensor in model.state_dict().values():
            tensor.copy_(_of_first(tensor))


def check_same(model: nn.Module) -> None:
    """Check that all processes hold the same network.

    Raises:
        UserError: a tensor differs. Then the network keeps something of its samples, besides batch norm.
    """
    if this_share().of == 1:
        return
    for name, tensor in model.state_dict().items():
        differs = torch.tensor([not torch.equal(_bytes(_of_first(tensor)), _bytes(tensor))], dtype=torch.int32)
        differs = differs.to(tensor.device)
        _with_all(dist.all_reduce, differs)
        if int(differs):
            raise UserError(
                f"the processes no longer hold the same {name}: the network, or its objective, keeps something of the "
                "samples of one process; train it with --on here"
            )


def _of_first(tensor: Tensor) -> Tensor:
    """The tensor of this name in the first process."""
    value = tensor.detach().clone(memory_format=torch.contiguous_format)
    _with_all(dist.broadcast, value, 0)
    return value


def _bytes(tensor: Tensor) -> Tensor:
    """The content, in which also NaN equals itself."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)
