"""Losses of single samples, from logits."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError
from .names import LossName


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


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Margin: true-class logit minus the best other logit, [samples]; logits [samples, classes], labels [samples]."""
    true = logits.gather(1, y[:, None]).squeeze(1)
    others = logits.scatter(1, y[:, None], -torch.inf)
    return true - others.amax(1)
