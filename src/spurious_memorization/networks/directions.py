"""Directions in the output of a layer as units: each is a channel of a layer of their own, `LAYER.directions`.

This layer gives the dot products of the output with the directions. What an edit changes of them is put into the output
along the directions. So `zero` takes the component along a direction out of the output, and `mean` holds it at its
mean. Every criterion, control and verdict for channels applies.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
from ..resources import check_memory
from ..seeds import derived_seed
from ..settings import Settings
from .checked import checked_network, copied_network
from .dataflow import data_flow
from .forward import outside_inference_mode
from .weights import read_weights

OWN_NAME = "directions"

COPIES = 4
"""A network and its working copy hold each direction twice."""


class DirectionSettings(Settings):
    """Where a network has directions.

    Arguments:
        layer: in whose output they are.
        n: number of directions.
        width: length of each: the number of channels of the output.
    """

    layer: str
    n: int
    width: int


class Directions(nn.Linear):
    """The dot products of a layer's output with each direction, [..., directions].

    Arguments:
        settings: how many there are.

    Attributes:
        unedited: the directions as they were given, [directions, width].
    """

    unedited: Tensor

    def __init__(self, settings: DirectionSettings) -> None:
        super().__init__(settings.width, settings.n, bias=False)
        self.layer = settings.layer
        self.register_buffer("unedited", torch.zeros(settings.n, settings.width))

    def put_in(self, output: Tensor) -> Tensor:
        """The layer's output after edits of the directions; without edits the output itself, but for rounding."""
        axis = self._axis(output)
        channels_last = output.movedim(axis, -1)
        change = self(channels_last) - F.linear(channels_last, self.unedited)
        back = self.unedited / self.unedited.square().sum(1, keepdim=True)
        return output + F.linear(change, back.T).movedim(-1, axis)

    def _axis(self, output: Tensor) -> int:
        """The axis of the channels: of images the second one, of tokens the last one, whichever has the width."""
        for axis in (1, -1) if output.ndim == 4 else (-1, 1):
            if output.ndim > 1 and output.shape[axis] == self.in_features:
                return axis
        raise UserError(
            f"the directions have width {self.in_features}, but layer {self.layer} gives a tensor of shape "
            f"{list(output.shape)}: name the layer for which they were made, or transpose them"
        )


@outside_inference_mode
def with_directions(model: nn.Module, layer: str, directions: Tensor) -> nn.Module:
    """A copy of a network that has directions in a layer's output as units.

    The copy gives the same logits, but for rounding. Its units "LAYER.directions:17" are channels, to which every
    criterion, edit and control applies. `zero` replaces the output x at each position by x - (x·d)d/|d|². Of several
    directions each component is taken out as it is in x, also where directions are not orthogonal.

    The layer may be any module, such as a block, whose output is the residual stream. In an `nn.Sequential`, the
    directions belong to its last module.

    Arguments:
        model: the network, which stays as it is.
        layer: name of a module. Its output is a tensor, or a tuple whose first entry is one.
        directions: [directions, width], such as the decoder of a sparse autoencoder.

    Raises:
        UserError: there is no such layer, it has directions already, the network does not use its output, or the
            directions are no matrix of numbers, or have length 0 or another width.

    Example:
        ```python
        network = sm.with_directions(model, "layer3", torch.randn(50, 256))
        scores = sm.criteria.taylor(network, data.train, select=sm.Selection(tensors=("*.directions",)))
        result = sm.evaluate(network, sm.edits.zero(sm.top(scores, 1)), data.train)
        ```
    """
    network, given = copied_network(checked_network(model)), checked_directions(directions)
    own = add_directions(network, DirectionSettings(layer=layer, n=len(given), width=given.shape[1]))
    like = next(network.parameters())
    own.to(like.device, like.dtype)
    with torch.no_grad():
        own.weight.copy_(given)
        own.unedited.copy_(given)
    flow = data_flow(network)
    name = next(name for name, module in network.named_modules() if module is own)
    if flow is not None and f"{name}.weight" not in flow.used():
        raise UserError(f"the logits do not depend on what a call of layer {layer} gives: name another layer")
    return network


def add_directions(network: nn.Module, settings: DirectionSettings) -> Directions:
    """Give a network directions, which have no values yet.

    Raises:
        UserError: there is no such layer, or it has directions already.
    """
    modules = dict(network.named_modules())
    if settings.layer not in modules or not settings.layer:
        close = difflib.get_close_matches(settings.layer, filter(None, modules), n=3)
        hint = f"close are {', '.join(close)}" if close else f"it has {', '.join(list(modules)[1:4])}, ..."
        raise UserError(f"the network has no layer {settings.layer!r}: {hint}")
    module = modules[settings.layer]
    while isinstance(module, nn.Sequential) and len(module):
        module = module[-1]
    if hasattr(module, OWN_NAME):
        raise UserError(f"layer {settings.layer} has directions already: choose another layer, or another network")
    directions = Directions(settings)
    module.add_module(OWN_NAME, directions)
    module.register_forward_hook(_put_in)
    return directions


def _put_in(module: nn.Module, _inputs: object, output: Any) -> Any:
    directions = module.get_submodule(OWN_NAME)
    assert isinstance(directions, Directions)
    return (directions.put_in(output[0]), *output[1:]) if isinstance(output, tuple) else directions.put_in(output)


def random_directions(directions: Tensor, n: int, *, seed: int = 0) -> Tensor:
    """Random directions, all equally likely, with the lengths of given ones.

    Arguments:
        directions: [given, width]; their lengths are taken in turn.
        n: number of random directions.
        seed: of the draws.

    Returns:
        [n, width].

    Raises:
        UserError: the directions are no matrix of numbers, or one has length 0; or there are too many for the memory.
    """
    given = checked_directions(directions)
    if n < 0:
        raise UserError(f"there can't be {n} random directions: ask for 0 or more")
    check_memory(COPIES * 4 * n * given.shape[1], f"{n} random directions", "ask for fewer")
    generator = torch.Generator().manual_seed(derived_seed(seed, "directions"))
    drawn = F.normalize(torch.randn(n, given.shape[1], generator=generator))
    lengths: Tensor = torch.linalg.vector_norm(given, dim=1)
    return drawn * lengths[torch.arange(n) % len(given), None]


def read_directions(file: Path, tensor: str | None = None) -> Tensor:
    """Directions from a safetensors file, or a PyTorch file with nothing but tensors, [directions, width].

    Arguments:
        file: the file.
        tensor: name of the matrix; it may be left out if the file holds one.

    Raises:
        UserError: the file is missing or broken, it holds no such matrix, or one of its directions has length 0.
    """
    found: Mapping[str, Tensor] = read_weights(file).state
    matrices = [name for name, value in found.items() if value.ndim == 2]
    if tensor is None and len(matrices) != 1:
        raise UserError(f"{file} holds {len(matrices)} matrices: name the directions with --tensor")
    name = matrices[0] if tensor is None else tensor
    if name not in found:
        raise UserError(f"{file} has no tensor {name!r}: it has {', '.join(list(found)[:5])}")
    return checked_directions(found[name])


def checked_directions(directions: object) -> Tensor:
    """Directions in float32 on the CPU, [directions, width].

    Raises:
        UserError: they are no matrix of real numbers, or one has length 0.
    """
    if not isinstance(directions, Tensor) or directions.ndim != 2 or not directions.numel():
        what = f"of shape {list(directions.shape)}" if isinstance(directions, Tensor) else type(directions).__name__
        raise UserError(f"directions must be a tensor of shape [directions, width], not {what}")
    if directions.is_complex():
        raise UserError("directions must be real numbers, not complex ones: give their real parts")
    values = directions.detach().cpu().float()
    lengths = values.norm(dim=1)
    if not bool((lengths.isfinite() & (lengths > 0)).all()):
        bad = int((~lengths.isfinite() | (lengths == 0)).nonzero()[0])
        raise UserError(f"direction {bad} has the length {float(lengths[bad]):g}: leave it out")
    return values
