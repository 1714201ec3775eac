"""Apply an edit: it gives new tensors for the parameters that it changes, and leaves the network as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from ..datasets.samples import Samples, checked_samples
from ..errors import UserError
from ..networks.checked import checked_network, copied_network
from ..networks.directions import OWN_NAME
from ..networks.forward import device_of, logits, moved, outside_inference_mode, working_copy
from ..networks.losses import finite
from ..networks.outputs import inputs_seen, outputs_seen
from ..networks.selection import Selection
from ..networks.units import UnitPlaces, short_name, sites
from ..networks.weights import add_biases
from ..user_functions import load_user_function
from .edit import KINDS, Edit


def edited_tensors(model: nn.Module, edit: Edit, places: UnitPlaces | None = None) -> dict[str, Tensor]:
    """New values of every parameter that the edit changes. The network stays as it is.

    The result goes into `torch.func.functional_call`. It may contain a bias that the layer lacks: the edit `mean` needs
    one to hold a channel at its mean.

    Arguments:
        model: the network.
        edit: the change.
        places: of the network's units, if they were looked up before.

    Returns:
        {parameter name: tensor of the parameter's shape, on its device}.

    Raises:
        UserError: the network lacks a unit; the older checkpoint lacks a tensor or has another shape; an optimized
            edit was made for other units; a user's own kind fails.
    """
    places = places or UnitPlaces(checked_network(model))
    parameters = places.parameters
    generator = torch.Generator().manual_seed(edit.seed)
    result, held = {}, places.of(edit.units)
    for name, chosen in held.items():
        old = parameters[name]
        new = old.clone(memory_format=torch.preserve_format)
        where = chosen.to(old.device)
        if edit.units.are_flat:
            flat = old.flatten().clone()
            flat[where] = _values(edit, name, old.shape, flat[where], generator, where)
            new.copy_(flat.view(new.shape))
        else:
            new[where] = _values(edit, name, old.shape, new[where], generator, where)
        result[name] = new
    if edit.kind == "mean" and edit.units.kind == "feature":
        _add_what_features_gave(held, edit, result, parameters)
    elif edit.kind == "mean":
        _set_biases(held, edit, result, parameters)
    return result


@outside_inference_mode
def edited(model: nn.Module, edit: Edit) -> nn.Module:
    """A new network with the edit applied. It has no wrappers, such as DataParallel.

    Arguments:
        model: the network, which stays as it is.
        edit: the change.

    Raises:
        UserError: as for `edited_tensors`.

    Example:
        ```python
        without = sm.edits.edited(model, sm.edits.zero(units))
        ```
    """
    model = checked_network(model)
    result = copied_network(model)
    changed = edited_tensors(model, edit)
    add_biases(result, changed)
    result.load_state_dict(changed, strict=False)
    return result


def channel_means(model: nn.Module, samples: Samples, *, batch_size: int = 200) -> dict[str, Tensor]:
    """Mean output of every channel over samples and positions, in evaluation mode.

    Arguments:
        model: the network, which stays as it is.
        samples: usually the training samples.
        batch_size: samples per forward pass.

    Returns:
        {layer name: [channels]} for every convolution and linear layer except the classifier head. The edit `mean`
        takes it.

    Raises:
        UserError: an image is missing or broken.
    """
    model = checked_network(model)
    return _means(model, samples, sites(model, Selection()), outputs_seen, batch_size)


def feature_means(model: nn.Module, samples: Samples, *, batch_size: int = 200) -> dict[str, Tensor]:
    """Mean of every input feature of the classifier head over samples and positions, in evaluation mode.

    Arguments:
        model: the network, which stays as it is.
        samples: usually the training samples.
        batch_size: samples per forward pass.

    Returns:
        {name of the head: [features]}. The edit `mean` takes it for features.

    Raises:
        UserError: the network has no linear head, or an image is missing or broken.
    """
    model = checked_network(model)
    return _means(model, samples, sites(model, Selection(unit="feature")), inputs_seen, batch_size)


def _means(
    model: nn.Module,
    samples: Samples,
    tensors: Iterable[str],
    seen: Callable[..., AbstractContextManager[None]],
    batch_size: int,
) -> dict[str, Tensor]:
    """Mean over samples and positions of each channel of what some layers give or get, {layer name: [channels]}.

    Arguments:
        tensors: names of the layers' weights.
        seen: `outputs_seen` or `inputs_seen`.
    """
    samples, network = checked_samples(samples), working_copy(model)
    device = device_of(network)
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def record(name: str, values: Tensor) -> None:
        flat = values.flatten(1, -2).sum(1) if values.ndim > 2 else values
        sums[name] = sums.get(name, torch.zeros(())) + flat.cpu().double().sum(0)
        counts[name] = counts.get(name, 0) + values.numel() // values.shape[-1]

    with torch.no_grad(), seen(network, {short_name(name) for name in tensors}, record):
        for batch in samples.batches(batch_size):
            output = logits(network, moved(batch.inputs, device))
            finite(output, batch.index, "the network", source=samples.dataset.source)
    return {name: (sums[name] / counts[name]).float() for name in sums}


def _values(edit: Edit, name: str, shape: torch.Size, old: Tensor, generator: torch.Generator, where: Tensor) -> Tensor:
    """The values that replace `old`: the part of a parameter of this shape that belongs to the units."""
    match edit.kind:
        case "zero" | "mean":
            return torch.zeros_like(old)
        case "random_init":
            return _noise(edit, old, generator)
        case "random_noise":
            return old + _noise(edit, old, generator)
        case "rewind" | "transplant":
            return _part(edit, _of_other(edit, name, shape), where).to(old)
        case "optimized":
            new = edit.tensors.get(name)
            values = _part(edit, new, where) if new is not None and new.shape == shape else None
            if values is None or values.isnan().any():
                raise UserError(
                    f"edit optimized was made for other units: it has no values for some of those in {name}"
                )
            return values.to(old)
        case _:
            return _users_values(edit, old, generator)


def _part(edit: Edit, tensor: Tensor, where: Tensor) -> Tensor:
    """The part of a whole parameter that belongs to the units."""
    places = where.to(tensor.device)
    return tensor.flatten()[places] if edit.units.are_flat else tensor[places]


def _noise(edit: Edit, like: Tensor, generator: torch.Generator) -> Tensor:
    draw = torch.rand if edit.parameters.get("noise") == "uniform" else torch.randn
    return (draw(like.shape, generator=generator) * float(edit.parameters["std"])).to(like)


def _of_other(edit: Edit, name: str, shape: torch.Size) -> Tensor:
    """A parameter of the other network, whose weights are put in."""
    other = "older checkpoint" if edit.kind == "rewind" else "twin"
    if name not in edit.tensors:
        layer, _, own = name.removesuffix(".weight").rpartition(".")
        if own == OWN_NAME:
            raise UserError(f"the {other} has no directions in {layer}: give it the same ones by sm.with_directions")
        raise UserError(f"the {other} has no tensor {name}: it is of another architecture")
    value = edit.tensors[name]
    if value.shape != shape:
        shapes = f"{name} has shape {tuple(value.shape)}, not {tuple(shape)}"
        raise UserError(f"the {other} is of another architecture: {shapes}")
    return value


def _users_values(edit: Edit, old: Tensor, generator: torch.Generator) -> Tensor:
    new = find_kind(edit.kind)(old.clone(), generator, **edit.parameters)
    if not isinstance(new, Tensor) or new.shape != old.shape:
        raise UserError(f"edit {edit.kind} must return a tensor of shape {tuple(old.shape)}")
    return new.to(old)


def find_kind(kind: str) -> Callable[..., Any]:
    """A user's own kind of edit: a function (numbers, generator, **parameters) -> new numbers of the same shape.

    Raises:
        UserError: there is no such function.
    """
    if ":" not in kind:
        raise UserError(f"unknown edit {kind!r}: choose among {', '.join(KINDS)}, or module:function")
    return load_user_function(kind)


def _set_biases(
    held: Mapping[str, Tensor], edit: Edit, result: dict[str, Tensor], parameters: Mapping[str, Tensor]
) -> None:
    for weight, rows in held.items():
        layer, dot, part = weight.rpartition(".")
        if not part.endswith("weight"):
            continue
        if layer not in edit.tensors:
            raise UserError(
                f"edit mean: the means of {short_name(weight)} are missing: compute them with channel_means; or, if "
                "the network reads its weights without calling it, leave it out with exclude (--exclude)"
            )
        name = f"{layer}{dot}bias"
        like = result[weight]
        bias = result.get(name, parameters.get(name, like.new_zeros(len(like)))).clone()
        bias[rows.to(bias.device)] = edit.tensors[layer].to(bias)[rows.to(bias.device)]
        result[name] = bias


def _add_what_features_gave(
    held: Mapping[str, Tensor], edit: Edit, result: dict[str, Tensor], parameters: Mapping[str, Tensor]
) -> None:
    """Add to the head's bias what the features gave at their means, now that their weights are zero."""
    for weight in held:
        layer, dot, _ = weight.rpartition(".")
        if layer not in edit.tensors:
            raise UserError("edit mean: the means of the features are missing: compute them with feature_means")
        taken = (parameters[weight] - result[weight]).flatten(1)
        bias = parameters.get(f"{layer}{dot}bias", taken.new_zeros(len(taken)))
        result[f"{layer}{dot}bias"] = bias + taken @ edit.tensors[layer].to(bias)
