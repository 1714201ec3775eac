"""DPE: diverse prototypical ensembles."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from ...networks.losses import cross_entropy
from ...networks.prototypes import PrototypeEnsemble, prototype_distances, prototypes_in, standardized
from ..heads import FeatureObjective, Features, HeadSettings, least_accuracy
from ..names import Balance


class DpeSettings(HeadSettings):
    """Options of dpe.

    Arguments:
        fit_on, select_by: as for every head.
        members: number of prototypes of each class.
        by: whether the random subset on which a member is trained has equally many samples of each group, or of each
            class, which needs no groups.
        member_epochs: passes over this subset.
        batch_size: samples per step.
        lr: rate of SGD with momentum 0.9.
        entropic_scale: factor of the distances in training.
        length_penalty: weight of the mean squared length of the prototypes.
        similarity_penalty: weight of the similarity to earlier prototypes of the class.
    """

    trains_linear_head: ClassVar[bool] = False

    name: Literal["dpe"] = "dpe"
    members: int = Field(15, ge=1, le=1000)
    by: Balance = "group"
    member_epochs: int = Field(20, ge=1, le=10_000)
    batch_size: int = Field(256, ge=1, le=100_000)
    lr: float = Field(1e-3, gt=0)
    entropic_scale: float = Field(30.0, gt=0)
    length_penalty: float = Field(10.0, ge=0)
    similarity_penalty: float = Field(5e5, ge=0)

    @property
    def prototypes(self) -> int:
        return self.members


class Dpe(FeatureObjective[DpeSettings]):
    """Diverse prototypical ensembles: To et al. (2025), Diverse Prototypical Ensembles Improve Robustness to
    Subpopulation Shift.

    An ensemble of prototypes replaces the head (`PrototypeEnsemble`). Its members are trained one after another on
    features of held-out samples, each on its own balanced random subset. The loss of a member is the cross-entropy of
    its scaled distances, plus penalties for long prototypes and for similarity to the earlier prototypes of the same
    class. The epoch of each member is chosen on the selecting half of val, in the authors' code by worst-group accuracy
    on validation data. The settings are those of the authors' script for Waterbirds.

    The network before this training has random prototypes, since its linear head is gone.
    """

    def replace_head(self, fitting: Features, selecting: Features) -> None:
        model, seed = self.training.model, self.training.config.seed
        head = model.get_submodule(str(prototypes_in(model)))
        assert isinstance(head, PrototypeEnsemble)
        fitted = fit_ensemble(fitting, selecting, self.settings, head.prototypes.shape[1], seed)
        with torch.no_grad():
            head.prototypes.copy_(fitted.prototypes)
            head.scales.copy_(fitted.scales)


def fit_ensemble(
    fitting: Features, selecting: Features, settings: DpeSettings, n_classes: int, seed: int = 0
) -> PrototypeEnsemble:
    """An ensemble whose members are trained one after another.

    Arguments:
        fitting: features on which the members are trained.
        selecting: features that choose the epoch of each member.
        settings: of the objective.
        n_classes: number of classes.
        seed: of prototypes, subsets and order.
    """
    generator, rng = torch.Generator().manual_seed(seed), np.random.default_rng([seed, 0xD9E])
    n_features = fitting.values.shape[1]
    values = standardized(torch.from_numpy(fitting.values).float())
    judged = standardized(torch.from_numpy(selecting.values).float())
    prototypes: list[Tensor] = []
    scales: list[Tensor] = []
    for _ in range(settings.members):
        subset = balanced_subset(fitting.g if settings.by == "group" else fitting.y, rng)
        start = 0.01 * torch.randn(n_classes, n_features, generator=generator)
        earlier = torch.stack(prototypes) if prototypes else torch.zeros(0, n_classes, n_features)
        found, scale = _member(start, earlier, values[subset], fitting.y[subset], (judged, selecting), settings, rng)
        prototypes.append(found)
        scales.append(scale)
    ensemble = PrototypeEnsemble(n_features, n_classes, settings.members)
    ensemble.prototypes, ensemble.scales = nn.Parameter(torch.stack(prototypes)), nn.Parameter(torch.cat(scales))
    return ensemble


def balanced_subset(member: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Random positions with as many samples of each group (or class) as the smallest one has."""
    present, counts = np.unique(member, return_counts=True)
    return np.concatenate([rng.permutation(np.flatnonzero(member == one))[: counts.min()] for one in present])


def member_loss(
    prototypes: Tensor, scale: Tensor, earlier: Tensor, features: Tensor, y: Tensor, settings: DpeSettings
) -> Tensor:
    """The loss of one member.

    Arguments:
        prototypes: of the member, [classes, features].
        scale: of its distances, [1].
        earlier: prototypes of the members before, [members, classes, features].
        features: standardized, [samples, features].
        y: labels, [samples].
        settings: scale and penalties.
    """
    distances = scale.abs() * prototype_distances(features, prototypes)
    loss = cross_entropy(-settings.entropic_scale * distances, y).mean()
    loss = loss + settings.length_penalty * (prototypes**2).sum(1).mean()
    if len(earlier):
        products = (earlier * prototypes).sum(2) / (prototypes.shape[1] - 1)  # [members, classes]
        loss = loss + settings.similarity_penalty * (products.sum(0) / (len(earlier) + 1)).mean().abs()
    return loss


def _member(
    start: Tensor,
    earlier: Tensor,
    features: Tensor,
    labels: NDArray[np.int64],
    selecting: tuple[Tensor, Features],
    settings: DpeSettings,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """Prototypes and scale of one member, after its best epoch on the selecting samples; the latest of equals."""
    prototypes, scale = start.clone().requires_grad_(), torch.ones(1, requires_grad=True)
    optimizer = torch.optim.SGD([prototypes, scale], lr=settings.lr, momentum=0.9)
    y, judged = torch.from_numpy(labels), selecting[1]
    best = (-1.0, prototypes.detach().clone(), scale.detach().clone())
    for _ in range(settings.member_epochs):
        for batch in torch.from_numpy(rng.permutation(len(y))).split(settings.batch_size):  # type: ignore[no-untyped-call]
            optimizer.zero_grad()
            loss = member_loss(prototypes, scale, earlier, features[batch], y[batch], settings)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        nearest = prototype_distances(selecting[0], prototypes.detach()).argmin(1).numpy()
        value = least_accuracy(nearest, judged, settings.select_by)
        if value >= best[0]:
            best = value, prototypes.detach().clone(), scale.detach().clone()
    return best[1], best[2]
