"""Where channels are planted, and the rest of the network from there on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..datasets.samples import Samples


@dataclass(frozen=True, eq=False, kw_only=True)
class PlantSite:
    """Where channels are planted.

    Arguments:
        block: name of the stage of a ResNet, or of the block of a DeiT.
        layer: name of the layer whose output channels are planted.
        channels: their indices, in order.
        reader: name of the layer that reads them.
        norm: name of the batch norm behind the layer; None in a transformer.
    """

    block: str
    layer: str
    channels: list[int]
    reader: str
    norm: str | None


def resnet_site(model: nn.Module, rng: np.random.Generator, m: int) -> PlantSite:
    """`m` random channels in the first convolution of a middle stage."""
    stage = f"layer{rng.choice([2, 3])}"
    n = len(model.get_parameter(f"{stage}.0.conv1.weight"))
    return PlantSite(
        block=stage,
        layer=f"{stage}.0.conv1",
        channels=sorted(rng.permutation(n)[:m].tolist()),
        reader=f"{stage}.0.conv2",
        norm=f"{stage}.0.bn1",
    )


def deit_site(model: nn.Module, rng: np.random.Generator, m: int) -> PlantSite:
    """`m` random channels in the hidden layer of the MLP of an early block."""
    block = f"blocks.{rng.choice([0, 1])}"
    n = len(model.get_parameter(f"{block}.mlp.fc1.weight"))
    return PlantSite(
        block=block,
        layer=f"{block}.mlp.fc1",
        channels=sorted(rng.permutation(n)[:m].tolist()),
        reader=f"{block}.mlp.fc2",
        norm=None,
    )


class NetworkTail(nn.Module):
    """A small network from the block of a site on. Its input is the input of that block."""

    def __init__(self, network: nn.Module, site: PlantSite) -> None:
        super().__init__()
        self.network = network
        self.site = site

    def forward(self, x: Tensor) -> Tensor:
        network: Any = self.network
        number = int(self.site.block.removeprefix("layer").removeprefix("blocks."))
        if self.site.norm is None:
            for block in network.blocks[number:]:
                x = block(x)
            result: Tensor = network.forward_head(network.norm(x))
            return result
        for stage in (network.layer1, network.layer2, network.layer3, network.layer4)[number - 1 :]:
            x = stage(x)
        logits: Tensor = network.fc(network.global_pool(x))
        return logits

    @torch.no_grad()
    def block_inputs(self, samples: Samples) -> Tensor:
        """Inputs of the block for these samples, shape [samples, ...]."""
        with _inputs_of(self.network.get_submodule(self.site.block)) as found:
            for batch in samples.batches(200):
                self.network(batch.inputs)
        return torch.cat(found)

    @torch.no_grad()
    def layer_inputs(self, x: Tensor) -> Tensor:
        """Inputs of the layer for these inputs of the block, shape [samples, ...]."""
        with _inputs_of(self.network.get_submodule(self.site.layer)) as found:
            self(x)
        return torch.cat(found)


@contextmanager
def _inputs_of(module: nn.Module) -> Iterator[list[Tensor]]:
    found: list[Tensor] = []
    hook = module.register_forward_pre_hook(lambda _, given: found.append(given[0]))
    try:
        yield found
    finally:
        hook.remove()
