"""Units: what tracing selects. Channels, attention heads, features and single weights, by name and number."""

from __future__ import annotations

import fnmatch
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import UserError
from ..settings import whole_number
from .attention import attention_heads
from .checked import checked_network
from .head import head_names, unused_layers
from .names import UnitKind
from .selection import Selection

MAX_UNIT = 2**62

_LAYERS = {"conv": (nn.Conv1d, nn.Conv2d, nn.Conv3d), "linear": (nn.Linear, nn.MultiheadAttention)}


@dataclass(frozen=True, eq=False)
class Units:
    """An ordered set of units of one kind.

    Arguments:
        kind: "channel", "head", "feature" or "weight".
        names: tensor names (for heads: names of attention modules).
        place: position in `names` of each unit, [units].
        index: number of each unit in its tensor, [units]; for weights the flat position.
        with_bias: channels and heads include their bias.
    """

    kind: UnitKind
    names: tuple[str, ...]
    place: NDArray[np.int64]
    index: NDArray[np.int64]
    with_bias: bool = True

    def __len__(self) -> int:
        return len(self.index)

    @property
    def are_flat(self) -> bool:
        """Whether the units hold single numbers of a tensor, and not whole rows of it."""
        return self.kind in ("feature", "weight")

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return ((self.names[p], int(i)) for p, i in zip(self.place, self.index, strict=True))

    def __str__(self) -> str:
        """As `--units` takes it, in order: "layer3.0.conv2:17,layer1.0.conv1:3"."""
        return ",".join(f"{short_name(name)}:{index}" for name, index in self)

    def first(self, n: int) -> Units:
        """The first `n` units.

        Raises:
            UserError: there are fewer units.
        """
        if not 0 <= n <= len(self):
            raise UserError(f"size {n} is larger than the {len(self)} {self.kind}s there are: choose a smaller one")
        return Units(self.kind, self.names, self.place[:n], self.index[:n], self.with_bias)

    def by_name(self) -> dict[str, NDArray[np.int64]]:
        """{tensor name: unit numbers}; the names are in the order in which they first occur."""
        order = dict.fromkeys(self.place.tolist())
        return {self.names[p]: self.index[self.place == p] for p in order}

    def digest(self) -> str:
        """SHA-256 of kind, names and numbers in order, 16 hex digits."""
        digest = hashlib.sha256(f"{self.kind}{self.with_bias}".encode())
        for name, index in self.by_name().items():
            digest.update(f"\0{name}\0".encode() + np.sort(index).tobytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Site:
    """The units of one tensor, or of one attention module.

    Arguments:
        name: of the tensor or module.
        shape: of the array of units: [channels], [heads], [features], or the tensor's own shape for weights.
        held: what each unit holds of each parameter, [units, places]: for channels and heads rows along the first axis,
            for features flat positions. Empty for weights.
        is_flat: whether these are flat positions.
    """

    name: str
    shape: tuple[int, ...]
    held: dict[str, Tensor]
    is_flat: bool = False

    @property
    def n(self) -> int:
        return int(np.prod(self.shape))

    def numbers(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """{parameter: the numbers of each unit, [units, numbers]}, taken from values of the parameters' shapes."""
        return {name: self._numbers(values[name], places) for name, places in self.held.items()}

    def _numbers(self, value: Tensor, places: Tensor) -> Tensor:
        if self.is_flat:
            return value.flatten()[places]
        return (value.flatten(1) if value.ndim > 1 else value[:, None])[places].flatten(1)


def sites(model: nn.Module, select: Selection) -> dict[str, Site]:
    """Where the units of a network are, in the order of its parameters.

    Layers of the classifier head have only features. Layers that the logits do not depend on have no units.

    Raises:
        UserError: no unit is left, or the weight of a chosen layer is computed from other numbers.
    """
    if select.unit not in ("head", "feature"):
        _check_weights(name for name in _computed_weights(model, select) if _is_chosen(name, select))
    return _chosen_sites(model, select)


def _chosen_sites(model: nn.Module, select: Selection) -> dict[str, Site]:
    match select.unit:
        case "head":
            found = _head_sites(model, select)
        case "feature":
            found = _feature_sites(model)
        case _:
            found = _layer_sites(model, select)
    kept = {name: site for name, site in found.items() if _is_chosen(name, select)}
    if not kept:
        raise UserError(f"the network has no {select.unit}s in the chosen tensors: {_reason(select, found)}")
    return kept


def _reason(select: Selection, found: Mapping[str, Site]) -> str:
    if found:
        return f"choose among {', '.join(list(found)[:5])}, ..."
    if select.unit == "head":
        return "it has no attention whose heads are known, so choose channels or weights"
    if select.unit == "feature":
        return "it has no linear head"
    return "it has no convolution or linear layer but its head"


def parse_units(model: nn.Module, text: str | Iterable[str], select: Selection | None = None) -> Units:
    """Units from text such as "layer3.0.conv2:17,layer1.0.conv1:3".

    Arguments:
        model: the network that has them.
        text: TENSOR:NUMBER, separated by commas, or several such texts; numbers start at 0, and those of single weights
            are positions in the flattened tensor.
        select: the kind of unit; channels if not given.

    Raises:
        UserError: the text is malformed, or names a tensor or number that the network lacks.
    """
    model, select = checked_network(model), select or Selection()
    parts = [part.strip() for piece in ([text] if isinstance(text, str) else text) for part in piece.split(",")]
    there = _all_sites(model, select)
    names: dict[str, int] = {}
    place, index = [], []
    for part in parts:
        match = re.fullmatch(r"(.+):(\d+)", part)
        if not match:
            raise UserError(f"units {part!r}: write TENSOR:NUMBER, such as layer3.0.conv2:17")
        name, number = match[1], whole_number(match[2], MAX_UNIT, "unit")
        site = there.get(name) or there.get(f"{name}.weight")
        if site is None:
            _check_weights(layer for layer in _computed_weights(model, select) if layer == short_name(name))
            raise UserError(
                f"the network has no tensor {name!r} with {select.unit}s: it has {', '.join(list(there)[:4])}, ..."
            )
        if number >= site.n:
            raise UserError(f"{name} has {site.n} {select.unit}s: {number} is too large (numbers start at 0)")
        place.append(names.setdefault(site.name, len(names)))
        index.append(number)
    if len({*zip(place, index, strict=True)}) < len(index):
        raise UserError("the same unit is named twice: name each once")
    return Units(select.unit, tuple(names), np.array(place), np.array(index), select.with_bias)


def unit_shapes(model: nn.Module, unit: UnitKind) -> dict[str, tuple[int, ...]]:
    """Shape of the array of units of every tensor, or attention module, that has units of this kind: [channels],
    [heads], or for weights the tensor's own shape.

    Raises:
        UserError: there are none.
    """
    return {name: site.shape for name, site in _all_sites(model, Selection(unit=unit)).items()}


def _all_sites(model: nn.Module, select: Selection) -> dict[str, Site]:
    """The sites of a kind of unit in all layers, whatever layers are selected."""
    if select.unit == "weight":
        return {name: Site(name, tuple(value.shape), {}) for name, value in model.named_parameters()}
    return _chosen_sites(model, select.model_copy(update={"layers": ("conv", "linear"), "tensors": (), "exclude": ()}))


def touched(model: nn.Module, units: Units) -> dict[str, Tensor]:
    """{parameter: what of it the units hold}: rows along the first axis for channels and heads, flat positions for
    features and single weights, both int64 [n] in the order of the units.

    Raises:
        UserError: the network lacks a tensor or a unit.
    """
    return UnitPlaces(model).of(units)


class UnitPlaces:
    """Where the units of a network are, for many edits. The places are looked up once, so the network must not change.

    Arguments:
        model: the network.
    """

    def __init__(self, model: nn.Module) -> None:
        self.parameters = {name: value.detach() for name, value in model.named_parameters()}
        self._model = model
        self._sites: dict[tuple[UnitKind, bool], dict[str, Site]] = {}

    def of(self, units: Units) -> dict[str, Tensor]:
        """What the units hold of each parameter; see `touched`."""
        if units.kind == "weight":
            chosen = {name: torch.from_numpy(index) for name, index in units.by_name().items()}
            for name, index in chosen.items():
                if name not in self.parameters or int(index.max()) >= self.parameters[name].numel():
                    raise UserError(f"the network has no weight {name}:{int(index.max())}")
            return chosen
        key = (units.kind, units.with_bias)
        if key not in self._sites:
            self._sites[key] = _chosen_sites(self._model, Selection(unit=units.kind, with_bias=units.with_bias))
        there = self._sites[key]
        result: dict[str, Tensor] = {}
        for name, numbers in units.by_name().items():
            if name not in there or int(numbers.max()) >= there[name].n:
                raise UserError(f"the network has no {units.kind} {short_name(name)}:{int(numbers.max())}")
            for parameter, places in there[name].held.items():
                held = places[torch.from_numpy(numbers)].flatten()
                result[parameter] = torch.cat([result[parameter], held]) if parameter in result else held
        return result


def short_name(name: str) -> str:
    """A tensor's name without a final ".weight"."""
    return name.removesuffix(".weight")


def owner(name: str) -> str:
    """How the names of all parameters of a unit begin: "attn.qkv." for "attn.qkv.weight", "attn." for the attention
    module "attn" and its "attn.in_proj_weight"."""
    path = name.rpartition(".")[0] if name.endswith("weight") else name
    return f"{path}." if path else ""


def _is_chosen(name: str, select: Selection) -> bool:
    return (not select.tensors or _matches(name, select.tensors)) and not _matches(name, select.exclude)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(
        fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(short_name(name), pattern) for pattern in patterns
    )


def _layers(model: nn.Module, select: Selection) -> Iterator[tuple[str, nn.Module]]:
    """The convolutions and linear layers that the logits depend on, without the classifier head.

    PyTorch's attention is among them: it has its projections to queries, keys and values as weights of its own.
    """
    left_out = unused_layers(model).union(head_names(model))
    kinds = tuple(kind for layer in select.layers for kind in _LAYERS[layer])
    for name, module in model.named_modules():
        if isinstance(module, kinds) and name not in left_out:
            yield name, module


def _computed_weights(model: nn.Module, select: Selection) -> Iterator[str]:
    """The layers whose weight or bias is no parameter, such as those under weight norm."""
    for name, module in _layers(model, select):
        weights = _weights(module)
        parts = {part for weight in weights for part in ((weight[0], weight[1]) if select.with_bias else (weight[0],))}
        if any(getattr(module, part, None) is not None and part not in module._parameters for part in parts):
            yield name


def _check_weights(computed: Iterable[str]) -> None:
    name = next(iter(computed), None)
    if name is not None:
        raise UserError(
            f"layer {name or 'of the network'} has a weight or bias that is computed from other numbers "
            "(parametrizations: weight_norm, spectral_norm, prune): remove that first, such as by "
            "torch.nn.utils.parametrize.remove_parametrizations, or leave the layer out with exclude (--exclude)"
        )


def _layer_sites(model: nn.Module, select: Selection) -> dict[str, Site]:
    parameters = dict(model.named_parameters())
    found = {}
    for layer, module in _layers(model, select):
        prefix = f"{layer}." if layer else ""
        for part, of_bias, first in _weights(module):
            name, bias = f"{prefix}{part}", f"{prefix}{of_bias}"
            weight = parameters.get(name)
            if weight is None:  # tied to a layer before, or computed from other parameters
                continue
            if select.unit == "weight":
                found[name] = Site(name, tuple(weight.shape), {})
                continue
            every = torch.arange(len(weight))[:, None]
            rows = {name: every}
            if select.with_bias and bias in parameters:
                rows[bias] = first + every
            found[name] = Site(name, (len(weight),), rows)
    return found


def _weights(layer: nn.Module) -> list[tuple[str, str, int]]:
    """Each weight of a layer, its bias, and the first of the bias's numbers that belong to the weight.

    PyTorch's attention has one weight for queries, keys and values; three if their widths differ, with one bias.
    """
    if not isinstance(layer, nn.MultiheadAttention):
        return [("weight", "bias", 0)]
    if layer._qkv_same_embed_dim:
        return [("in_proj_weight", "in_proj_bias", 0)]
    return [(f"{part}_proj_weight", "in_proj_bias", k * layer.embed_dim) for k, part in enumerate("qkv")]


def _head_sites(model: nn.Module, select: Selection) -> dict[str, Site]:
    found = {}
    for name, rows in attention_heads(model).items():
        kept = {p: r for p, r in rows.items() if select.with_bias or not p.endswith("bias")}
        found[name] = Site(name, (len(next(iter(rows.values()))),), kept)
    return found


def _feature_sites(model: nn.Module) -> dict[str, Site]:
    """The input features of the classifier head: the columns of its weights."""
    parameters = dict(model.named_parameters())
    found = {}
    for layer in head_names(model):
        name = f"{layer}.weight" if layer else "weight"
        weight = parameters.get(name)
        if weight is None or weight[0].numel() != weight.shape[1]:  # tied to another, or a filter of several pixels
            continue
        n_outputs, n_features = weight.shape[:2]
        columns = torch.arange(n_outputs * n_features).reshape(n_outputs, n_features).T
        found[name] = Site(name, (n_features,), {name: columns}, is_flat=True)
    return found
