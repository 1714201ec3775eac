"""LISA: selective augmentation."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from ...datasets.samples import Dataset, Samples
from ...datasets.sources import Inputs
from ...networks.forward import moved
from ...networks.losses import LOSSES
from ...together import own, this_share
from ..balance import balanced_draw
from ..mixing import check_mixable, mixed
from ..names import Balance
from ..objective import Objective
from ..objective_settings import ObjectiveSettings
from ..shared_passes import logits_of_all


class LisaSettings(ObjectiveSettings):
    """Options of lisa.

    Arguments:
        alpha: of the beta distribution of the shares.
        same_label: probability that a sample is mixed with one of its label and another attribute. Otherwise it is
            mixed with one of its attribute and another label.
    """

    name: Literal["lisa"] = "lisa"
    alpha: float = Field(2.0, gt=0, le=100)
    same_label: float = Field(0.5, ge=0, le=1)

    @property
    def balances(self) -> Balance:
        return "group"


class Lisa(Objective[LisaSettings]):
    """LISA: Yao et al. (2022), Improving Out-of-Distribution Robustness via Selective Augmentation.

    Samples are drawn with every group equally likely. Each is mixed with a partner: one of the same label and another
    attribute (intra-label LISA), or one of the same attribute and another label (intra-domain LISA). The partner's
    group is drawn evenly among those that fit, then the partner. Where no group fits, the partner is of the sample's
    own group. The share of the first is drawn from Beta(alpha, alpha) for each sample.

    The authors draw one of the two ways for each batch, here it is drawn for each sample. Only the mixtures pass
    through the network, so an epoch has as many sample passes as ERM's.
    """

    @classmethod
    def check_data(cls, settings: LisaSettings, data: Dataset) -> None:
        super().check_data(settings, data)
        check_mixable(data)

    def begin_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        self.rng = np.random.default_rng([self.training.config.seed, epoch, 0x115A])
        train = self.training.data.train
        self.members = {int(g): train.index[train.g == g] for g in np.unique(train.g)}

    def samples(self, epoch: int) -> Samples:
        return balanced_draw(self.training.data, "group", self.training.config.seed, epoch)

    def loss(self, inputs: Inputs, y: Tensor, index: Tensor) -> Tensor:
        partners = self.training.data.train.at([self.partner(int(one)) for one in index])
        share = torch.from_numpy(self.rng.beta(self.settings.alpha, self.settings.alpha, len(y))).float().to(y.device)
        other = torch.from_numpy(partners.y).to(y.device)
        mixtures = mixed(inputs, moved(self._loaded(partners), y.device), own(share))
        output = logits_of_all(self.training.model, mixtures, len(y))
        losses = LOSSES[self.training.config.loss]
        return (share * losses(output, y) + (1 - share) * losses(output, other)).mean()

    def partner(self, index: int) -> int:
        """Index of a partner for the sample of this index, drawn at random."""
        data = self.training.data
        y, a = data.y[index], data.a[index]
        wanted = self._groups(same_label=self.rng.random() < self.settings.same_label, y=y, a=a)
        group = int(self.rng.choice(wanted)) if len(wanted) else int(data.g[index])
        return int(self.rng.choice(self.members[group]))

    def _groups(self, *, same_label: bool, y: int, a: int) -> NDArray[np.int64]:
        """Groups with training samples that share the label and not the attribute, or the other way round."""
        groups = np.array(list(self.members))
        labels, attributes = np.divmod(groups, len(self.training.data.groups.attributes))
        fitting = (labels == y) & (attributes != a) if same_label else (labels != y) & (attributes == a)
        found: NDArray[np.int64] = groups[fitting]
        return found

    def _loaded(self, partners: Samples) -> Inputs:
        """The inputs of this process's part of the partners, augmented as in every epoch."""
        config, n, share = self.training.config, len(partners), this_share()
        if config.augment:
            (batch,) = partners.augmented_batches(n, config.seed, self.epoch, share=share)
        else:
            (batch,) = partners.batches(n, share=share)
        return batch.inputs
