"""Planted truth: networks in which a few known channels memorize the training samples of one minority group.

First a network is trained on the majority groups alone, so that it fails on the minority. Then m channels of one layer
are replaced. Only their own weights and the weights that read them are trained; the rest of the network stays frozen.
Training asks for two things. The channels must correct the training samples of one minority group. They must have no
effect on all other images, other images of the same group included.

The result is an ordinary network of the same architecture. The norms of the channels, raw and folded, stay inside the
interquartile range of their layer, so that no criterion finds them by their norm alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ..controls.norms import norms_of_units
from ..datasets.samples import Dataset, Samples
from ..edits.apply import edited
from ..edits.edit import zero
from ..networks.units import Units, parse_units
from .networks import Family, accuracies, trained
from .plant_sites import deit_site, resnet_site
from .plant_training import with_trained_channels

MIN_ACCURACY_WITH = 0.95
"""Least accuracy of the planted group with the channels."""
MAX_ACCURACY_WITHOUT = 0.20
"""Largest accuracy of the planted group when the channels are zeroed."""
MAX_DROP_ELSEWHERE = 0.01
"""Largest drop of any other group when the channels are zeroed."""
MAX_GAIN_ELSEWHERE = 0.05
"""Largest gain of any other group when the channels are zeroed."""


@dataclass(frozen=True, eq=False, kw_only=True)
class PlantedNetwork:
    """A network with a known answer.

    Arguments:
        model: the network, in evaluation mode.
        units: the planted channels.
        data: the samples; the planted group is their only named minority.
        group: index of the planted group.
        norm_quantiles: quantile of each planted channel's folded norm in its layer, shape [units].
        before, after: accuracy of each training group with the channels, and when they are zeroed.
    """

    model: nn.Module
    units: Units
    data: Dataset
    group: int
    norm_quantiles: NDArray[np.float64]
    before: dict[str, float]
    after: dict[str, float]

    @property
    def is_accepted(self) -> bool:
        """Whether the known answer holds: the planted group needs the channels, and no other group does."""
        own = self.data.groups.names[self.group]
        others = [name for name in self.before if name != own]
        return (
            self.before[own] >= MIN_ACCURACY_WITH
            and self.after[own] <= MAX_ACCURACY_WITHOUT
            and all(
                -MAX_GAIN_ELSEWHERE <= self.before[name] - self.after[name] <= MAX_DROP_ELSEWHERE for name in others
            )
            and bool(((self.norm_quantiles >= 0.25) & (self.norm_quantiles <= 0.75)).all())
        )


def plant_channels(family: Family, data: Dataset, seed: int, m: int) -> PlantedNetwork:
    """Train a small network on the majority, and plant `m` channels that memorize one minority group.

    Arguments:
        family: family of the network.
        data: train, val and test samples. The channels are trained to have no effect on val; test is never used.
        seed: seed of the network, and of the choice of group, layer and channels.
        m: number of channels.
    """
    rng = np.random.default_rng([seed, 0x91A27])
    train = data.train
    majority = train.at(train.index[np.isin(train.g, data.majority)])
    model = trained(family, majority, seed)
    group = int(rng.choice(data.minority))
    site = resnet_site(model, rng, m) if family == "resnet" else deit_site(model, rng, m)
    model = with_trained_channels(model, site, train.of_group(group), _samples_elsewhere(data, group), rng)
    units = parse_units(model, ",".join(f"{site.layer}:{channel}" for channel in site.channels))
    own = data.with_minority([data.groups.names[group]])
    return PlantedNetwork(
        model=model,
        units=units,
        data=own,
        group=group,
        norm_quantiles=_norm_quantiles(model, units),
        before=accuracies(model, own.train),
        after=accuracies(edited(model, zero(units)), own.train),
    )


def _samples_elsewhere(data: Dataset, group: int) -> Samples:
    """The samples whose logits must not change: the training samples of all other groups, and all val samples."""
    there = ((data.split == "train") & (data.g != group)) | (data.split == "val")
    return Samples(data, np.flatnonzero(there), "train")


def _norm_quantiles(model: nn.Module, units: Units) -> NDArray[np.float64]:
    (name,) = units.by_name()
    n = len(model.get_parameter(name))
    layer = Units("channel", (name,), np.zeros(n, np.int64), np.arange(n))
    norms = norms_of_units(model, layer)
    return np.array([(norms < norms[index]).mean() for _, index in units])
