"""Small networks of two families, which train in seconds."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from timm.models.resnet import BasicBlock, ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from ..datasets.samples import Samples
from ..networks.losses import finite
from .striped_images import SIZE

Family = Literal["resnet", "deit"]
FAMILIES: tuple[Family, ...] = ("resnet", "deit")


def small_network(family: Family, seed: int) -> nn.Module:
    """A ResNet or DeiT of four blocks, with random weights."""
    torch.manual_seed(seed)
    if family == "resnet":
        block: Any = BasicBlock
        return ResNet(block, (1, 1, 1, 1), num_classes=2, stem_width=32, channels=(32, 48, 64, 96))
    return VisionTransformer(
        img_size=SIZE, patch_size=6, num_classes=2, embed_dim=96, depth=4, num_heads=3, weight_init="jax"
    )


def trained(family: Family, samples: Samples, seed: int, epochs: int = 10, lr: float = 1e-3) -> nn.Module:
    """A small network trained by empirical risk minimization, in evaluation mode."""
    model = small_network(family, seed).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=1e-3)
    for epoch in range(epochs):
        for batch in samples.shuffled(seed, epoch).batches(60):
            loss = F.cross_entropy(model(batch.inputs), batch.y)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    return model.eval()


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
