"""Pseudo-minorities that are as hard for a network as its minorities: a hard null for the second question."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..datasets.groups import Groups
from ..datasets.samples import Dataset
from ..networks.losses import margin


def with_minority_of_like_margins(model: nn.Module, data: Dataset, seed: int) -> Dataset:
    """The same samples with part of the majority in the role of the minority. It has the minority's margins.

    For each minority sample, in random order, a majority sample of its label and split is drawn. It is one of the ten
    nearest in margin that are left. At most half of the majority is drawn. Given the margin, membership is random. So
    any answer "selective" for the new groups is false.

    Arguments:
        model: the network whose margins count.
        data: a data set with minority and majority groups.
        seed: of the draws.
    """
    groups, rng = data.groups, np.random.default_rng([seed, 0x11CE])
    margins = _margins(model, data)
    new = len(groups.attributes)
    a, labels = data.a.copy(), set()
    for minority in data.minority:
        label = groups.label_of(minority)
        majority = [m for m in data.majority if groups.label_of(m) == label]
        labels.add(label)
        for split in data.splits:
            here = data.split == split
            own = rng.permutation(np.flatnonzero(here & (data.g == minority)))
            left = np.flatnonzero(here & np.isin(data.g, majority))
            for sample in own[: len(left) // 2]:
                nearest = left[np.argsort(np.abs(margins[left] - margins[sample]), kind="stable")[:10]]
                chosen = rng.choice(nearest)
                a[chosen] = new
                left = left[left != chosen]
    extended = Groups(groups.classes, (*groups.attributes, f"a hard draw ({seed})"), groups.template)
    named = tuple(label * (new + 1) + new for label in sorted(labels))
    return replace(data, groups=extended, a=a, named_minority=named)


def _margins(model: nn.Module, data: Dataset) -> NDArray[np.float64]:
    """Margin of every sample, [samples]."""
    found = np.zeros(len(data))
    with torch.no_grad():
        for split in data.splits:
            for batch in data.samples(split).batches(200):
                found[batch.index.numpy()] = margin(model(batch.inputs), batch.y).double().numpy()
    return found
