"""Example-tied dropout."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...datasets.sources import Inputs
from ...networks.selection import Selection
from ...networks.units import short_name, sites
from ...seeds import derived_seed
from ...together import own
from ..objective import Objective, Training
from ..objective_settings import ObjectiveSettings

SHORTCUTS = ("downsample", "shortcut")
"""Words in the names of layers that belong to a shortcut around a block."""


class ExampleTiedDropoutSettings(ObjectiveSettings):
    """Options of example-tied-dropout.

    Arguments:
        generalizing: fraction of a layer's channels that every sample uses.
        memorizing: fraction of the other channels that one sample uses.
        deployed: what the network for prediction does with the other channels: "drop" them; "drop-and-rescale", which
            also multiplies the generalizing channels by (generalizing + memorizing) / generalizing; or "scale" the
            other channels by `memorizing`.
    """

    trains_linear_head: ClassVar[bool] = False

    name: Literal["example-tied-dropout"] = "example-tied-dropout"
    generalizing: float = Field(0.2, gt=0, lt=1)
    memorizing: float = Field(0.1, gt=0, le=1)
    deployed: Literal["drop", "drop-and-rescale", "scale"] = "drop"


class ExampleTiedDropout(Objective[ExampleTiedDropoutSettings]):
    """Example-tied dropout: Maini et al. (2023), Can Neural Network Memorization Be Localized?

    In each layer the first channels, a fraction `generalizing`, serve all samples. Every training sample also uses a
    fraction `memorizing` of the other channels, and the rest is dropped for it. These channels are drawn once, by seed,
    layer and sample index. A layer of n channels has int(generalizing x n) generalizing ones, but at least one.

    Prediction drops all channels but the generalizing ones, as the paper says. The authors' code does something else:
    its test mode scales the other channels (`deployed=scale`), its drop mode drops them and rescales the rest
    (`deployed=drop-and-rescale`).

    The layers are all batch norms but those of shortcuts: an activation follows each of them. A network without batch
    norm uses every convolution and linear layer but the head. The stored network has the channels dropped or scaled for
    good, by the weights and bias of the layer, so it is a plain network. The paper places the dropout in small networks
    by hand.
    """

    def __init__(self, settings: ExampleTiedDropoutSettings, training: Training) -> None:
        super().__init__(settings, training)
        self.layers = tied_layers(training.model)

    def loss(self, inputs: Inputs, y: Tensor, index: Tensor) -> Tensor:
        with dropped(self.training.model, self.layers, lambda name, n: self._kept(name, n, own(index))):
            return super().loss(inputs, y, index)

    def _kept(self, layer: str, n_channels: int, index: Tensor) -> Tensor:
        """Whether each sample uses each channel, [samples, channels]."""
        seed = derived_seed(self.training.config.seed, "tied", layer)
        kept = torch.from_numpy(uniform(index.numpy(), n_channels, seed) < self.settings.memorizing)
        kept[:, : self._generalizing(n_channels)] = True
        return kept

    def _generalizing(self, n_channels: int) -> int:
        return max(1, int(self.settings.generalizing * n_channels))

    def deployed(self) -> nn.Module:
        share, other = self.settings.generalizing, self.settings.memorizing
        of_first = (share + other) / share if self.settings.deployed == "drop-and-rescale" else 1.0
        of_others = other if self.settings.deployed == "scale" else 0.0
        network = copy.deepcopy(self.training.model)
        with torch.no_grad():
            for name in self.layers:
                for parameter in network.get_submodule(name).parameters(recurse=False):
                    first = self._generalizing(len(parameter))
                    parameter[:first] *= of_first
                    parameter[first:] *= of_others
        return network


def tied_layers(model: nn.Module) -> tuple[str, ...]:
    """Names of the layers whose channels are tied to samples."""
    norms = [
        name
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.affine and not any(part in name for part in SHORTCUTS)
    ]
    not_called = tuple(
        f"{name}." for name, module in model.named_modules() if isinstance(module, nn.MultiheadAttention)
    )
    return tuple(norms or [short_name(name) for name in sites(model, Selection()) if not name.startswith(not_called)])


@contextmanager
def dropped(model: nn.Module, layers: tuple[str, ...], kept: Callable[[str, int], Tensor]) -> Iterator[None]:
    """Within the block, forward passes drop channels of these layers.

    Arguments:
        model: the network.
        layers: names of the layers.
        kept: (layer, number of channels) -> whether each sample keeps each channel, [samples, channels].
    """

    def hook(name: str) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        def drop(module: nn.Module, _: Any, output: Tensor) -> Tensor:
            axis = output.ndim - 1 if isinstance(module, nn.Linear) else 1
            shape = [len(output)] + [1] * (output.ndim - 1)
            shape[axis] = output.shape[axis]
            return output * kept(name, output.shape[axis]).view(shape).to(output.device)

        return drop

    with ExitStack() as stack:
        for name in layers:
            stack.callback(model.get_submodule(name).register_forward_hook(hook(name)).remove)
        yield


def uniform(index: NDArray[np.int64], n: int, seed: int) -> NDArray[np.float64]:
    """Numbers in [0, 1), [samples, n], that depend only on sample index, position and seed (SplitMix64)."""
    position = np.arange(n, dtype=np.uint64)
    with np.errstate(over="ignore"):
        counter = index.astype(np.uint64)[:, None] * np.uint64(n) + position + np.uint64(seed)
        mixed: NDArray[np.uint64] = (counter + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed = mixed ^ (mixed >> np.uint64(31))
    drawn: NDArray[np.float64] = (mixed >> np.uint64(11)).astype(np.float64) / 2**53
    return drawn
