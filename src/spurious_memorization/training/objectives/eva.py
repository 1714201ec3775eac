"""EvA: erasing the connections of a head that carry spurious correlations."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat
from scipy.stats import wasserstein_distance

from ...console import log
from ..heads import Features, Floats, Head, HeadObjective, HeadSettings, best_candidate, retrained
from ..objective_settings import SplitAtPlus

Share = Annotated[float, Field(gt=0, lt=1)]


class EvaSettings(HeadSettings):
    """Options of eva.

    Arguments:
        fit_on, select_by: as for every head. The samples to fit on stand for unbiased data.
        distance: between the values of a feature in training and on unbiased data: "wasserstein", or the difference of
            their "mean".
        shares: candidates for the share of each class's connections that is erased.
        lrs: candidates for the learning rate.
        steps: number of batches.
        batch_size: samples per batch.
    """

    name: Literal["eva"] = "eva"
    distance: Literal["wasserstein", "mean"] = "wasserstein"
    shares: Annotated[tuple[Share, ...], SplitAtPlus, Field(min_length=1)] = (0.1, 0.3, 0.5, 0.7, 0.9)
    lrs: Annotated[tuple[PositiveFloat, ...], SplitAtPlus, Field(min_length=1)] = (1e-4, 1e-3, 1e-2)
    steps: int = Field(250, ge=1, le=1_000_000)
    batch_size: int = Field(128, ge=1, le=100_000)


class Eva(HeadObjective[EvaSettings]):
    """EvA with unbiased data (EvA-C): He et al. (2025), EvA: Erasing Spurious Correlations with Activations.

    A feature is consistent for a class if its values are distributed alike in training and on unbiased data of this
    class. The least consistent connections between features and a class are erased: their weights are zero. The other
    weights are trained further on the unbiased data, with classes drawn equally often.

    The paper was available as an abstract and in reviews only. So its distance, the share that is erased and the
    training of the rest are options, and not the authors' values. Its second variant, EvA-E, which needs no further
    data, is not built.
    """

    def fit(self, fitting: Features, selecting: Features, head: Head) -> Head:
        settings, seed = self.settings, self.training.config.seed
        distances = class_distances(
            self.features(self.training.data.train), fitting, len(head.weight), settings.distance
        )

        def candidates() -> Iterator[tuple[tuple[float, float], Head]]:
            for share, lr in product(settings.shares, settings.lrs):
                kept = kept_connections(distances, share)
                erased = Head(head.weight * kept, head.bias)
                steps, size = settings.steps, settings.batch_size
                yield (
                    (share, lr),
                    retrained(erased, fitting, steps=steps, batch_size=size, lr=lr, kept=kept, seed=seed),
                )

        (share, lr), found = best_candidate(candidates(), selecting, settings.select_by)
        log(f"eva: {share:.0%} of each class's connections are erased, rate {lr:g}")
        return found


def class_distances(train: Features, unbiased: Features, n_classes: int, distance: str) -> Floats:
    """How differently each feature is distributed in training and on unbiased data, [classes, features].

    Features are divided by their deviation in training. A class without samples in one of both has distance 0.
    """
    deviation = train.values.std(0)
    scale = np.where(deviation > 0, deviation, 1)
    found = np.zeros((n_classes, train.values.shape[1]))
    for label in range(n_classes):
        one, other = (part.values[part.y == label] / scale for part in (train, unbiased))
        if not len(one) or not len(other):
            continue
        if distance == "mean":
            found[label] = np.abs(one.mean(0) - other.mean(0))
        else:
            found[label] = [wasserstein_distance(a, b) for a, b in zip(one.T, other.T, strict=True)]
    return found


def kept_connections(distances: Floats, share: float) -> NDArray[np.bool_]:
    """Whether each connection is kept, [classes, features]: all but the share of each class with the largest distances,
    rounded down."""
    n = int(share * distances.shape[1])
    kept = np.ones(distances.shape, bool)
    np.put_along_axis(kept, np.argsort(-distances, axis=1, kind="stable")[:, :n], False, axis=1)
    return kept
