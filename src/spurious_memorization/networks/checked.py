"""The network that a user gives: without wrappers, and refused if it can't be computed."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parameter import is_lazy
from torch.optim.swa_utils import AveragedModel

from ..console import log_once
from ..errors import UserError, first_line

_WRAPPERS = (nn.DataParallel, DistributedDataParallel, AveragedModel)


def checked_network(model: object) -> nn.Module:
    """The network itself, without DataParallel, DistributedDataParallel, AveragedModel and torch.compile.

    Raises:
        UserError: it is no `nn.Module`, or it has no weights that can be read.
    """
    if isinstance(model, type):
        raise UserError(f"the network is the class {model.__name__}: give an instance, such as {model.__name__}()")
    if isinstance(model, Mapping):
        raise UserError("the network is a state dict: build the network, load the state dict into it, and give that")
    if not isinstance(model, nn.Module):
        raise UserError(f"the network is a {type(model).__name__}: give a torch.nn.Module")
    network = _unwrapped(model)
    if isinstance(network, torch.jit.ScriptModule):
        raise UserError("the network was compiled by torch.jit: give the network that it was made from")
    values = [*network.parameters(), *network.buffers()]
    if any(is_lazy(value) for value in values):
        raise UserError("the network has lazy layers without weights: pass one batch through it first")
    if any(value.is_meta for value in values):
        raise UserError("the network is on the device meta, which holds no weights: load weights on another device")
    return network


def in_float32(network: nn.Module) -> nn.Module:
    """The same network with all its numbers in float32. A line says so if they were of another type."""
    numbers = (value for value in (*network.parameters(), *network.buffers()) if value.is_floating_point())
    others = sorted({str(value.dtype) for value in numbers} - {"torch.float32"})
    if not others:
        return network
    log_once(f"the network has numbers of type {', '.join(others)}: it is computed in float32")
    return network.float()


def copied_network(network: nn.Module, copies: Mapping[int, Any] | None = None) -> nn.Module:
    """A deep copy. Results of an earlier pass that the network keeps are copied without their gradients.

    Arguments:
        network: without wrappers.
        copies: {id of a part: its copy}, for parts that are copied otherwise.

    Raises:
        UserError: the network holds something that can't be copied.
    """
    memo: dict[int, Any] = {id(value): value.detach().clone() for value in _kept_results(network)}
    memo.update(copies or {})
    try:
        return copy.deepcopy(network, memo)
    except Exception as error:
        raise UserError(
            f"the network can't be copied ({first_line(error)}): take out what it holds besides layers and numbers"
        ) from error


def _unwrapped(model: nn.Module) -> nn.Module:
    while True:
        inner = model.module if isinstance(model, _WRAPPERS) else getattr(model, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def _kept_results(network: nn.Module) -> Iterator[Tensor]:
    """The results of operations among the attributes of all modules. `copy.deepcopy` refuses them."""
    for module in network.modules():
        yield from _results_in([value for name, value in vars(module).items() if name != "_modules"])


def _results_in(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor) and not value.is_leaf:
        yield value
    elif isinstance(value, Mapping):
        yield from _results_in(list(value.values()))
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from _results_in(item)
