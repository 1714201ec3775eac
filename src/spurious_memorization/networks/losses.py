"""Losses of single samples, from logits."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..datasets.samples import Dataset
from ..datasets.sources import Source, sample_name
from ..errors import UserError
from .names import LossName

BROKEN_NETWORK = "look for NaN in its weights, or choose another network"
"""What to do if a network gives NaN, where nothing more is known about it."""


def finite(
    values: Tensor, index: Tensor, network: str, *, source: Source | None = None, remedy: str = BROKEN_NETWORK
) -> Tensor:
    """Check that a network's logits or features are finite, and return them. NaN would count as an answer of class 0.

    Arguments:
        values: of each sample, [samples, ...].
        index: indices of the samples in the data set, [samples].
        network: how the message names the network.
        source: of the data set, which names the samples' files.
        remedy: what the user can do.

    Raises:
        UserError: a value is NaN or infinite. The message names the first such sample.
    """
    if not bool(values.isfinite().all()):
        broken = (~values.isfinite()).flatten(1).any(1).cpu()
        first = sample_name(int(index[broken][0]), source)
        raise UserError(f"{network} gives no finite number for {first}: {remedy}")
    return values


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of each sample, [samples], from logits [samples, classes] and labels [samples].

    Raises:
        UserError: a label has no logit.
    """
    _check_labels(logits, y)
    return F.cross_entropy(logits, y, reduction="none")


def cross_entropy_on_probabilities(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy with the class probabilities in place of the logits (a softmax on top of a softmax), [samples].

    The research code of You et al. (2025) trains with it. For two classes it can't go under about 0.313.

    Raises:
        UserError: a label has no logit.
    """
    _check_labels(logits, y)
    return F.cross_entropy(logits.softmax(-1), y, reduction="none")


LOSSES: dict[LossName, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": cross_entropy,
    "cross_entropy_on_probabilities": cross_entropy_on_probabilities,
}


def _check_labels(logits: Tensor, y: Tensor) -> None:
    if len(y) and int(y.max()) >= logits.shape[1]:
        raise UserError(
            f"the network has {logits.shape[1]} outputs but a label is {int(y.max())}: give it one for each class"
        )


def check_classes(logits: Tensor, data: Dataset) -> None:
    """Check that there is one logit, [samples, classes], for each class of the data.

    A data set of tensors whose classes have no names may have fewer classes than the network.

    Raises:
        UserError: there are fewer or more.
    """
    outputs, classes = logits.shape[1], data.groups.classes
    unnamed = data.layout == "tensors" and classes == tuple(map(str, range(len(classes))))
    if outputs < len(classes) or (outputs > len(classes) and not unnamed):
        raise UserError(
            f"the network has {outputs} outputs but the data have {len(classes)} classes "
            f"({', '.join(classes[:5])}{', ...' if len(classes) > 5 else ''}): give the network one output per class"
        )


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Margin: true-class logit minus the best other logit, [samples]; logits [samples, classes], labels [samples]."""
    true = logits.gather(1, y[:, None]).squeeze(1)
    others = logits.scatter(1, y[:, None], -torch.inf)
    return true - others.amax(1)
