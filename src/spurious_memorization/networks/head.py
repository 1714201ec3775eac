"""The classifier head: the layers that give the logits, found by tracing where the logits come from."""

from __future__ import annotations

import weakref

from torch import nn

from ..console import log
from ..errors import UserError
from .dataflow import LAYERS, data_flow

_NAMED = "named_head"
_reported: weakref.WeakSet[nn.Module] = weakref.WeakSet()


def head_names(model: nn.Module) -> tuple[str, ...]:
    """Module names of the classifier head, in the order of the network's modules.

    A layer belongs to the head if its output leads to the logits without passing another layer, and it has one output
    channel for each logit. If there is no such layer, those with fewer outputs make up the head: one layer per class,
    or a single logit of which two are made. A network may have several such layers (averaged or distilled heads), or
    none (a distance to prototypes). If the network can't be traced, the head is the one that timm states, or else the
    last linear layer; the log says so. `name_head` overrides all of this.
    """
    named: tuple[str, ...] | None = vars(model).get(_NAMED)
    if named is not None:
        return named
    flow = data_flow(model)
    if flow is None:
        return _head_without_tracing(model)
    widths = {
        name: int(getattr(module, "out_features", 0) or getattr(module, "out_channels", 0))
        for name, module in _layers_with(model, flow.last_layer()).items()
    }
    of_all = tuple(name for name, width in widths.items() if width == flow.n_outputs)
    return of_all or tuple(name for name, width in widths.items() if width < flow.n_outputs)


def name_head(model: nn.Module, names: tuple[str, ...]) -> None:
    """State which layers give the logits. The network and its copies keep the statement.

    Raises:
        UserError: the network has no such layer.
    """
    layers = {name for name, module in model.named_modules() if isinstance(module, LAYERS)}
    if unknown := [name for name in names if name not in layers]:
        raise UserError(
            f"the network has no layer {unknown[0]!r} for a head: name a convolution or linear layer, "
            f"such as {sorted(layers)[-1] if layers else 'fc'}"
        )
    vars(model)[_NAMED] = names


def linear_head(model: nn.Module, needed_by: str) -> nn.Linear:
    """The linear layer that gives the logits.

    Raises:
        UserError: the logits come from several layers, or from none.
    """
    names = head_names(model)
    layers = [model.get_submodule(name) for name in names]
    if len(layers) != 1 or not isinstance(layers[0], nn.Linear):
        found = f"the layers {', '.join(names)}" if names else "no layer"
        raise UserError(
            f"{needed_by} needs one linear layer that gives the logits; here it is {found}: choose another "
            "network, or do without it"
        )
    return layers[0]


def unused_layers(model: nn.Module) -> frozenset[str]:
    """Module names of the layers that the logits do not depend on in evaluation, such as auxiliary heads."""
    flow = data_flow(model)
    if flow is None:
        return frozenset()
    kinds = (*LAYERS, nn.MultiheadAttention)
    layers = {name for name, module in model.named_modules() if isinstance(module, kinds)}
    return frozenset(layers - _layers_with(model, flow.used(), kinds).keys())


def _layers_with(
    model: nn.Module, names: set[str], kinds: tuple[type[nn.Module], ...] = LAYERS
) -> dict[str, nn.Module]:
    """The layers that hold one of these parameters, also under another name if it is tied."""
    chosen = {id(value) for name, value in model.named_parameters() if name in names}
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, kinds) and any(id(value) in chosen for value in module.parameters())
    }


def _head_without_tracing(model: nn.Module) -> tuple[str, ...]:
    given = (getattr(model, "pretrained_cfg", None) or {}).get("classifier")
    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    names = ((given,) if isinstance(given, str) else tuple(given)) if given else tuple(linears[-1:])
    if model not in _reported:
        _reported.add(model)
        source = "as timm states" if given else "the last linear layer"
        log(
            f"note: the network could not be traced; its head is taken to be {', '.join(names) or 'none'} ({source}): "
            "name another one with --head"
        )
    return names
