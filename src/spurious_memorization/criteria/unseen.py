"""Criteria that compare training samples with unseen samples: `activation_difference` and `attribution_patching`.

A unit that holds a feature of a group answers alike to training samples and to unseen samples of the group. A unit that
holds the training samples themselves does not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..datasets.samples import Samples
from ..datasets.sources import Batch
from ..datasets.tensors import as_batch
from ..errors import UserError
from ..networks.checked import checked_network
from ..networks.forward import outside_inference_mode, working_copy
from ..networks.losses import LOSSES
from ..networks.names import LossName
from ..networks.outputs import logits_by_batch, outputs_seen
from ..networks.selection import Selection
from ..networks.units import sites
from .scores import Scores

ROUNDING = 1e-6
"""Means that differ by less than this share of their size count as equal."""


class Activations(NamedTuple):
    """Activations of a layer's channels over some samples. That of one sample is the mean over its positions.

    Attributes:
        n: number of samples.
        mean: over the samples, [channels].
        squares: sum of squared deviations from the mean, [channels].
    """

    n: int
    mean: Tensor
    squares: Tensor


def activation_difference(
    model: nn.Module,
    samples: Batch | Samples,
    unseen: Batch | Samples,
    *,
    select: Selection | None = None,
) -> Scores:
    """Difference of each channel's mean activation between training and unseen samples, in standard deviations.

    The activation of a sample is the mean over positions of the layer's own output, before any batch norm. The absolute
    difference of the means is divided by the pooled standard deviation over samples (Cohen's d). The network is in
    evaluation mode.

    Arguments:
        model: the network, which stays as it is.
        samples: the training samples, usually of one group.
        unseen: samples of the same group on which the network was not trained.
        select: the channels to score; by default all except those of the classifier head.

    Returns:
        Scores of every channel: 0 where a channel is the same constant for all samples, infinity where it is one
        constant for the training samples and another one for the unseen samples.

    Raises:
        UserError: the units are no channels, one side has fewer than two samples, a layer's outputs can't be seen, or
            an image is missing or broken.

    Example:
        ```python
        group = "waterbird on land"
        scores = sm.criteria.activation_difference(model, data.train.of_group(group), data.test.of_group(group))
        ```
    """
    network, select, layers = _network_and_layers(model, select, "activation_difference")
    first, second = as_batch(samples), as_batch(unseen)
    if min(len(first.y), len(second.y)) < 2:
        counts = f"{len(first.y)} training and {len(second.y)} unseen ones"
        raise UserError(f"activation_difference needs two samples or more of each kind: these are {counts}")
    one, two = activations(network, layers, first), activations(network, layers, second)
    found = {weight: _standardized(one[layer], two[layer]) for layer, weight in layers.items()}
    return Scores(found, select.unit, select.with_bias)


def attribution_patching(
    model: nn.Module,
    samples: Batch | Samples,
    unseen: Batch | Samples,
    *,
    loss: LossName = "cross_entropy",
    select: Selection | None = None,
) -> Scores:
    """Estimate how much the mean loss of training samples rises when a channel is held at its mean over unseen samples.

    The estimate is of first order: the gradient of the loss with respect to the channel's output, times the mean over
    unseen samples minus the output. It is summed over positions and averaged over samples (attribution patching: Nanda
    2023; Syed et al. 2023). It estimates what the edit `mean` does with means over unseen samples, for all channels in
    one backward pass. A score below 0 says that the loss falls.

    Arguments:
        model: the network, which stays as it is.
        samples: the training samples, usually the hardest samples of one group.
        unseen: samples of the same group on which the network was not trained.
        loss: as for `gradient`.
        select: the channels to score; by default all except those of the classifier head.

    Returns:
        Scores of every channel.

    Raises:
        UserError: the units are no channels, a layer's outputs can't be seen, or an image is missing or broken.
    """
    network, select, layers = _network_and_layers(model, select, "attribution_patching")
    means = {layer: there.mean for layer, there in activations(network, layers, as_batch(unseen)).items()}
    effects = _effects_of_patching(network, means, as_batch(samples), loss)
    found = {weight: effects[layer].float() for layer, weight in layers.items()}
    return Scores(found, select.unit, select.with_bias)


@torch.no_grad()
def activations(network: nn.Module, layers: Collection[str], batch: Batch | Samples) -> dict[str, Activations]:
    """Activations of each layer's channels over samples, {layer: activations}, in float64 on the CPU.

    Arguments:
        network: a working copy.
        layers: names of layers.
        batch: the samples.

    Raises:
        UserError: the network doesn't call one of the layers, or the first axis of its output is not that of samples.
    """
    sums: dict[str, list[tuple[Tensor, int]]] = {}
    found: dict[str, Activations] = {}

    def see(layer: str, output: Tensor) -> None:
        rows = output.reshape(len(output), -1, output.shape[-1])
        sums.setdefault(layer, []).append((rows.sum(1).cpu().double(), rows.shape[1]))

    with outputs_seen(network, layers, see):
        for part, _ in logits_by_batch(network, batch):
            _check_seen(layers, sums)
            for layer, of_calls in sums.items():
                here = _of_one_batch(_by_sample(layer, of_calls, len(part.y)))
                found[layer] = _joined(found[layer], here) if layer in found else here
            sums.clear()
    return found


def _network_and_layers(
    model: nn.Module, select: Selection | None, criterion: str
) -> tuple[nn.Module, Selection, dict[str, str]]:
    """A working copy, the selection, and {layer: name of its weight}."""
    model, select = checked_network(model), select or Selection()
    if select.unit != "channel":
        raise UserError(f"{criterion} is for channels: choose another criterion for {select.unit}s")
    return working_copy(model), select, {name.removesuffix(".weight"): name for name in sites(model, select)}


def _check_seen(layers: Iterable[str], seen: Collection[str]) -> None:
    for layer in layers:
        if layer not in seen:
            raise UserError(
                f"the outputs of layer {layer} can't be seen, since the network reads its weights without calling it: "
                f"leave it out, with exclude=({layer!r},)"
            )


def _by_sample(layer: str, of_calls: Iterable[tuple[Tensor, int]], n: int) -> Tensor:
    """Mean over all positions of all calls of a layer, [samples, channels].

    Windows of an image, which some networks pass as further samples, are positions.

    Arguments:
        layer: its name.
        of_calls: for each call, sums over positions, [samples x windows, channels], and the number of positions.
        n: number of samples.
    """
    total, count = torch.zeros((), dtype=torch.float64), 0
    for sums, positions in of_calls:
        if len(sums) % n:
            raise UserError(
                f"layer {layer} gives outputs whose first axis has length {len(sums)} for {n} samples: leave it out, "
                f"with exclude=({layer!r},)"
            )
        windows = len(sums) // n
        total, count = total + sums.reshape(n, windows, -1).sum(1), count + windows * positions
    return total / count


def _of_one_batch(values: Tensor) -> Activations:
    """Of activations, [samples, channels]."""
    mean = values.mean(0)
    return Activations(len(values), mean, (values - mean).square().sum(0))


def _joined(one: Activations, two: Activations) -> Activations:
    """The activations of both batches together (Chan et al. 1983)."""
    n, apart = one.n + two.n, two.mean - one.mean
    squares = one.squares + two.squares + apart.square() * (one.n * two.n / n)
    return Activations(n, one.mean + apart * (two.n / n), squares)


def _standardized(one: Activations, two: Activations) -> Tensor:
    """Absolute difference of the means by the pooled standard deviation, [channels]; 0 where the means are equal."""
    difference = (one.mean - two.mean).abs()
    deviation = ((one.squares + two.squares) / (one.n + two.n - 2)).sqrt()
    is_equal = difference <= ROUNDING * torch.maximum(one.mean.abs(), two.mean.abs())
    return torch.where(is_equal, 0, difference / deviation).float()


@outside_inference_mode
@torch.enable_grad()
def _effects_of_patching(
    network: nn.Module, means: Mapping[str, Tensor], batch: Batch | Samples, loss: LossName
) -> dict[str, Tensor]:
    """First-order change of the mean loss when each channel is held at its mean, {layer: [channels]}, on the CPU."""
    network.requires_grad_()  # so that also the outputs of the first layer have a gradient
    n = 0
    outputs: list[tuple[str, Tensor]] = []
    sums = {layer: torch.zeros_like(mean) for layer, mean in means.items()}

    def see(layer: str, output: Tensor) -> None:
        if output.requires_grad:
            outputs.append((layer, output))

    with outputs_seen(network, means, see):
        for part, answers in logits_by_batch(network, batch):
            seen, total = tuple(outputs), LOSSES[loss](answers, part.y.to(answers.device)).sum()
            slopes = torch.autograd.grad(total, [output for _, output in seen], materialize_grads=True)
            for (layer, output), slope in zip(seen, slopes, strict=True):
                effect = slope * (means[layer].float().to(output.device) - output.detach())
                sums[layer] += effect.flatten(0, -2).sum(0).cpu().double()
            outputs.clear()
            n += len(part.y)
    return {layer: value / n for layer, value in sums.items()}
