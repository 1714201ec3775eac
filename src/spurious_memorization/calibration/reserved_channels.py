"""Train a network in which a few reserved channels hold what they are meant to hold, in the way of Maini et al. (2023).

Every image is trained with some of the reserved channels switched off. What an image is taught with the channels on and
off decides what they hold. An image that is taught the same label both times can't depend on them. An image that is
taught its label only with the channels on, and the other label with the channels off, depends on nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..training.objectives.example_tied_dropout import dropped
from .networks import BATCH, Family, deployed, fast, fast_inputs, optimizer_of, set_learning_rate, small_network

EPOCHS: dict[Family, int] = {"resnet": 16, "deit": 26}
SETTLED = 12
"""Number of last epochs in which the statistics of batch norms are fixed. Then training and the deployed network agree
on what a channel that is switched off is."""
NEUTRAL = 20
"""Neutral images per batch."""
NEUTRAL_WEIGHT = 4.0
NEUTRAL_FROM_ZERO = 0.6
"""Part of the training in which the weight of the neutral images rises from 0."""

Reserved = Mapping[str, NDArray[np.int64]]
"""{layer name: its reserved channels}."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Views:
    """What is trained: each view is an image, what it is taught, and the reserved channels that are on meanwhile.

    Arguments:
        index: of the image among the inputs, [views].
        target: wanted probability of label 1, [views].
        on: whether each reserved channel is on, [views, reserved].
        weight: of each view in the loss, [views].
    """

    index: NDArray[np.int64]
    target: NDArray[np.float64]
    on: NDArray[np.bool_]
    weight: NDArray[np.float64]

    def at(self, chosen: NDArray[np.int64]) -> Views:
        """The views at these positions."""
        return Views(
            index=self.index[chosen], target=self.target[chosen], on=self.on[chosen], weight=self.weight[chosen]
        )

    def __len__(self) -> int:
        return len(self.index)


def joined(*parts: Views) -> Views:
    """All views of these parts."""
    return Views(
        index=np.concatenate([part.index for part in parts]),
        target=np.concatenate([part.target for part in parts]),
        on=np.concatenate([part.on for part in parts]),
        weight=np.concatenate([part.weight for part in parts]),
    )


def trained_with_reserved(
    family: Family,
    seed: int,
    reserved: Reserved,
    inputs: Tensor,
    views_of_epoch: Callable[[np.random.Generator], Views],
    neutral: Tensor | None = None,
    epochs: int | None = None,
) -> nn.Module:
    """A small network trained on views, in evaluation mode with all channels on.

    Arguments:
        family: family of the network.
        seed: seed of every draw.
        reserved: the reserved channels.
        inputs: the images, [images, ...].
        views_of_epoch: (source of draws) -> the views of one epoch.
        neutral: images for which the reserved channels must not matter, whatever the network says of them.
        epochs: the usual number if not given.
    """
    rng = np.random.default_rng([seed, 0x7261])
    model = fast(small_network(family, seed)).train()
    inputs, neutral = fast_inputs(inputs), None if neutral is None else fast_inputs(neutral)
    epochs = EPOCHS[family] if epochs is None else epochs
    optimizer = optimizer_of(model, family)
    for epoch in range(epochs):
        if epoch == epochs - SETTLED:
            settle_norms(model, inputs)
        set_learning_rate(optimizer, family, epoch / epochs)
        neutral_weight = NEUTRAL_WEIGHT * min(1.0, epoch / (NEUTRAL_FROM_ZERO * epochs))
        for views in _batches(views_of_epoch(rng), rng):
            loss = _loss(model, reserved, inputs, views, neutral, neutral_weight, rng)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    return deployed(model)


@torch.no_grad()
def settle_norms(model: nn.Module, inputs: Tensor) -> None:
    """Compute the statistics of batch norms from these images, with all channels on, and fix them."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over batches
    for some in torch.split(inputs, 100):
        model(some)
    model.eval()


def _batches(views: Views, rng: np.random.Generator) -> Iterator[Views]:
    for chosen in np.array_split(rng.permutation(len(views)), -(-len(views) // BATCH)):
        yield views.at(chosen)


def _loss(
    model: nn.Module,
    reserved: Reserved,
    inputs: Tensor,
    views: Views,
    neutral: Tensor | None,
    neutral_weight: float,
    rng: np.random.Generator,
) -> Tensor:
    x, on = inputs[torch.from_numpy(views.index)], views.on
    if neutral is not None:
        some = neutral[torch.from_numpy(rng.permutation(len(neutral))[:NEUTRAL])]
        x = torch.cat([x, some, some])
        all_on = np.ones((len(some), on.shape[1]), dtype=bool)
        on = np.concatenate([on, all_on, ~all_on])
    with dropped(model, tuple(reserved), _kept(reserved, on)):
        logits = model(x)
    target = torch.from_numpy(np.stack([1 - views.target, views.target], 1)).float()
    each = F.cross_entropy(logits[: len(views)], target, reduction="none")
    loss = (each * torch.from_numpy(views.weight).float()).mean()
    if neutral is not None:
        with_channels, without = logits[len(views) :].softmax(1).chunk(2)
        loss = loss + neutral_weight * (with_channels - without).square().mean()
    return loss


def _kept(reserved: Reserved, on: NDArray[np.bool_]) -> Callable[[str, int], Tensor]:
    """(layer, number of channels) -> whether each view keeps each channel, [views, channels]."""
    ends = np.cumsum([len(channels) for channels in reserved.values()])
    parts = dict(zip(reserved, np.split(on, ends[:-1], axis=1), strict=True))

    def kept(layer: str, n_channels: int) -> Tensor:
        mask = np.ones((len(on), n_channels), dtype=bool)
        mask[:, reserved[layer]] = parts[layer]
        return torch.from_numpy(mask)

    return kept
