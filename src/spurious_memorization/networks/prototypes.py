"""A head that is an ensemble of prototypes: a class is near if the features are near its prototypes."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .head import head_names, linear_head


class PrototypeEnsemble(nn.Module):
    """Several prototypes of each class, in place of a linear head: To et al. (2025), Diverse Prototypical Ensembles
    Improve Robustness to Subpopulation Shift.

    Features are standardized sample by sample. A member's logits are minus the distances between the features and its
    prototypes, both of length 1, times its scale (Macêdo et al. 2021, IsoMax+). The ensemble's logits are the
    logarithms of the mean of the members' class probabilities.

    Arguments:
        n_features: number of features.
        n_classes: number of classes.
        n_members: number of prototypes of each class.
    """

    def __init__(self, n_features: int, n_classes: int, n_members: int) -> None:
        super().__init__()
        self.prototypes = nn.Parameter(0.01 * torch.randn(n_members, n_classes, n_features))
        self.scales = nn.Parameter(torch.ones(n_members))

    def forward(self, features: Tensor) -> Tensor:
        """Logits [samples, classes]; features [samples, features]."""
        members, classes, _ = self.prototypes.shape
        distances = prototype_distances(standardized(features), self.prototypes.flatten(0, 1))
        logits = -self.scales.abs()[:, None] * distances.view(-1, members, classes)  # [samples, members, classes]
        ensemble: Tensor = logits.log_softmax(2).logsumexp(1) - math.log(members)
        return ensemble


def standardized(features: Tensor) -> Tensor:
    """Features with mean 0 and deviation 1 in each sample, [samples, features]."""
    centered = features - features.mean(1, keepdim=True)
    return centered / features.std(1, keepdim=True).clamp(min=1e-12)


def prototype_distances(features: Tensor, prototypes: Tensor) -> Tensor:
    """Euclidean distances of features and prototypes, both scaled to length 1, [samples, prototypes]."""
    cosines = F.normalize(features) @ F.normalize(prototypes).T
    return (2 - 2 * cosines).clamp(min=1e-12).sqrt()


def give_prototypes(model: nn.Module, n_members: int) -> None:
    """Put a prototype ensemble with random prototypes in the place of a network's linear head.

    Raises:
        UserError: the logits come from several layers, or from none, or from one that is not linear.
    """
    layer, (name,) = linear_head(model, "a prototype ensemble"), head_names(model)
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, PrototypeEnsemble(layer.in_features, layer.out_features, n_members))


def prototypes_in(model: nn.Module) -> str | None:
    """Module name of a network's prototype ensemble; None if it has none."""
    return next((name for name, module in model.named_modules() if isinstance(module, PrototypeEnsemble)), None)
