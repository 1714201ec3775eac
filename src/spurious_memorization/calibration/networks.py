"""Small networks of two families, which train in seconds."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from timm.models.resnet import BasicBlock, ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ..datasets.samples import Samples
from ..engine.threads import on_threads
from ..networks.losses import finite
from .striped_images import SIZE

Family = Literal["resnet", "deit"]
FAMILIES: tuple[Family, ...] = ("resnet", "deit")

NOISE: dict[Family, float] = {"resnet": 2.0, "deit": 2.5}
"""Noise of the images with which a network of the family has to memorize its minority."""
EPOCHS: dict[Family, int] = {"resnet": 10, "deit": 18}
"""Epochs of ordinary training after which the training samples are memorized."""
LR: dict[Family, float] = {"resnet": 2e-3, "deit": 2e-3}
WEIGHT_DECAY = 1e-3
BATCH = 60


def small_network(family: Family, seed: int) -> nn.Module:
    """A ResNet of four blocks or a DeiT of three, with random weights. Each layer has at least 64 channels."""
    torch.manual_seed(seed)
    if family == "resnet":
        block: Any = BasicBlock
        return ResNet(block, (1, 1, 1, 1), num_classes=2, channels=(64, 64, 64, 64))
    return VisionTransformer(
        img_size=SIZE, patch_size=8, num_classes=2, embed_dim=64, depth=3, num_heads=2, mlp_ratio=2, weight_init="jax"
    )


def trained(
    family: Family, samples: Samples, seed: int, epochs: int | None = None, *, frozen: tuple[str, ...] = ()
) -> nn.Module:
    """A small network trained by empirical risk minimization, in evaluation mode.

    Arguments:
        family: family of the network.
        samples: training samples.
        seed: seed of the weights and of the order of the samples.
        epochs: the usual number if not given.
        frozen: modules whose parameters keep their random start.
    """
    model = small_network(family, seed)
    for name in frozen:
        model.get_submodule(name).requires_grad_(False)
    x, y = fast_inputs(samples.batch().inputs), torch.from_numpy(samples.y)
    model = fast(model).train()
    optimizer = optimizer_of(model, family)
    epochs = EPOCHS[family] if epochs is None else epochs
    for epoch in range(epochs):
        set_learning_rate(optimizer, family, epoch / epochs)
        order = np.random.default_rng([seed, epoch]).permutation(len(x))
        for some in map(torch.from_numpy, np.array_split(order, -(-len(x) // BATCH))):
            loss = F.cross_entropy(model(x[some]), y[some])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    return deployed(model)


def optimizer_of(model: nn.Module, family: Family) -> torch.optim.Optimizer:
    """The optimizer of all parameters that aren't frozen."""
    free = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(free, lr=LR[family], weight_decay=WEIGHT_DECAY, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, family: Family, done: float) -> None:
    """Set the learning rate when a part `done` of the training is done. In the second half it falls to 0."""
    for group in optimizer.param_groups:
        group["lr"] = LR[family] * min(1.0, 2 * (1 - done))


def fast(model: nn.Module) -> nn.Module:
    """The same network with its numbers in the order in which CPUs compute convolutions faster."""
    return model.to(memory_format=torch.channels_last)


def fast_inputs(inputs: Any) -> Tensor:
    """Images in the order in which CPUs compute convolutions faster."""
    images: Tensor = inputs
    return images.contiguous(memory_format=torch.channels_last)


def deployed(model: nn.Module) -> nn.Module:
    """A trained network as it is used: in evaluation mode, no parameter frozen, its numbers in the usual order."""
    return model.requires_grad_(True).eval().to(memory_format=torch.contiguous_format)


def accuracies(model: nn.Module, samples: Samples) -> dict[str, float]:
    """Accuracy of each group that has samples, by group name."""
    with torch.no_grad():
        right = np.concatenate(
            [
                (finite(model(batch.inputs), batch.index, "the network").argmax(1) == batch.y).numpy()
                for batch in samples.batches(200)
            ]
        )
    names = samples.dataset.groups.names
    return {names[g]: float(right[samples.g == g].mean()) for g in np.unique(samples.g)}


@contextmanager
def on_one_thread() -> Iterator[None]:
    """Ask about small networks: they gain nothing from more threads, and classify all training samples correctly."""
    with on_threads(1), warnings.catch_warnings():
        # A user should know that all samples are classified correctly. In these networks it is expected.
        warnings.filterwarnings("ignore", "all .* samples .* are classified correctly")
        yield
