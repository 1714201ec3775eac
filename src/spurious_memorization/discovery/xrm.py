"""XRM: two networks, each trained on one half of the samples, whose mistakes on the other half flip labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..console import log, progress
from ..datasets.samples import Dataset, Samples
from ..networks.forward import autocast, choose_device, logits, moved
from ..networks.losses import cross_entropy
from ..runs.evaluate import predict
from ..training.optimizers import build_optimizer
from ..training.settings import TrainExecution, TrainSettings
from .by_split import by_split

Floats = NDArray[np.float64]


def twin_answers(
    twins: Sequence[nn.Module], data: Dataset, config: TrainSettings, epochs: int, execution: TrainExecution
) -> Floats:
    """Train both twins, and return the probability that each gives to the label of every sample, [2, samples].

    Cross-risk minimization: Pezeshki et al. (2024), Discovering Environments with XRM, Algorithm 1. Every training
    sample belongs to the half of one twin, at random. A step minimizes the class-balanced cross-entropy of each twin on
    its own half of the batch. Then labels are flipped: where the twin that has not seen the sample gives its class the
    probability p, the label becomes this class with probability (p - 1/n) n / (n - 1), with n classes. So both twins
    come to rely on what is easy. The authors choose the epoch by the number of flips, here it is the last one.

    Arguments:
        twins: two networks of the same architecture. They are trained in place.
        data: the data set. Its attributes are not used.
        config: settings of the training, expanded; its seed draws halves, flips and order.
        epochs: passes over the training samples.
        execution: device, workers, batch size of evaluation.
    """
    device = choose_device(execution.device)
    rng, generator = np.random.default_rng([config.seed, 0x3B1]), torch.Generator().manual_seed(config.seed)
    half = torch.from_numpy(rng.integers(0, 2, len(data)))  # the twin that a sample belongs to, [samples]
    labels, n_classes = torch.from_numpy(data.y.copy()), len(data.groups.classes)
    for twin in twins:
        twin.to(device).to(memory_format=torch.channels_last)
    optimizers = [build_optimizer(config, twin) for twin in twins]
    for epoch in range(1, epochs + 1):
        samples, n_flips = data.train.shuffled(config.seed, epoch), 0
        batches = samples.batches(config.batch_size, execution.workers or 0)
        for batch in progress(batches, -(-len(samples) // config.batch_size), f"twins, epoch {epoch}/{epochs}"):
            inputs = moved(batch.inputs, device)
            held_out = torch.zeros(len(batch.y), n_classes)
            for k, (twin, optimizer) in enumerate(zip(twins, optimizers, strict=True)):
                own = half[batch.index] == k
                _step(twin, optimizer, _at(inputs, own), labels[batch.index[own]].to(device), config)
                if not bool(own.all()):
                    held_out[~own] = _probabilities(twin, _at(inputs, ~own), config)
            surest, wanted = held_out.max(1)
            chance = ((surest - 1 / n_classes) * n_classes / (n_classes - 1)).clamp(0, 1)
            flips = torch.bernoulli(chance, generator=generator).bool()
            n_flips += int((flips & (wanted != labels[batch.index])).sum())
            labels[batch.index] = torch.where(flips, wanted, labels[batch.index])
        log(f"twins, epoch {epoch}/{epochs}: {n_flips} labels changed")
    return np.stack([label_probabilities(twin, data, config, execution) for twin in twins])


def label_probabilities(model: nn.Module, data: Dataset, config: TrainSettings, execution: TrainExecution) -> Floats:
    """The probability that a network gives to the label of each sample, [samples]; nan for samples without a split."""

    def of_label(samples: Samples) -> Floats:
        probabilities, _ = predict(model, samples, precision=config.known_precision, execution=execution)
        return probabilities[np.arange(len(samples)), samples.y].astype(np.float64)

    return by_split(data, of_label)


def unlike_by_twins(answers: Floats) -> Floats:
    """1 - the probability that the less convinced twin gives to the label, [samples]. The authors call a sample a cross
    mistake if one of both twins gets it wrong."""
    unlike: Floats = 1 - answers.min(0)
    return unlike


def balanced_loss(output: Tensor, y: Tensor) -> Tensor:
    """The sum over classes of the mean cross-entropy of their samples; logits [samples, classes], labels [samples]."""
    losses = cross_entropy(output, y)
    return torch.stack([losses[y == label].mean() for label in torch.unique(y)]).sum()


def _step(twin: nn.Module, optimizer: torch.optim.Optimizer, inputs: object, y: Tensor, config: TrainSettings) -> None:
    """One gradient step of a twin on its own samples. Batch norm can't train on one sample."""
    if len(y) < 2:
        return
    twin.train()
    with autocast(y.device, config.known_precision):
        loss = balanced_loss(logits(twin, inputs), y)  # type: ignore[arg-type]
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def _probabilities(twin: nn.Module, inputs: object, config: TrainSettings) -> Tensor:
    twin.eval()
    with torch.no_grad(), autocast(next(twin.parameters()).device, config.known_precision):
        return logits(twin, inputs).softmax(1).cpu()  # type: ignore[arg-type]


def _at(inputs: object, chosen: Tensor) -> object:
    if isinstance(inputs, Tensor):
        return inputs[chosen.to(inputs.device)]
    assert isinstance(inputs, dict)
    return {name: value[chosen.to(value.device)] for name, value in inputs.items()}
