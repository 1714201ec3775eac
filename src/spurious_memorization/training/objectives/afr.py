"""AFR: automatic feature reweighting."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat

from ...console import log
from ..heads import Features, FitOn, Floats, Head, HeadObjective, HeadSettings, best_candidate
from ..objective_settings import SplitAtPlus


class AfrSettings(HeadSettings):
    """Options of afr.

    Arguments:
        fit_on, select_by: as for every head. The paper fits on a fifth of the training samples, which the first
            training held out.
        sharpness: candidates for gamma. The larger it is, the more do samples weigh that the first network gets wrong.
        strengths: candidates for lambda, which keeps the new head near the old one.
        lr: of gradient descent.
        steps: of gradient descent. Heads after every `steps` / 10 steps are candidates, too.
    """

    name: Literal["afr"] = "afr"
    fit_on: FitOn = "held-out"
    sharpness: Annotated[tuple[NonNegativeFloat, ...], SplitAtPlus, Field(min_length=1)] = tuple(
        float(one) for one in np.linspace(4, 20, 33)
    )
    strengths: Annotated[tuple[NonNegativeFloat, ...], SplitAtPlus, Field(min_length=1)] = (0.0, 0.1, 0.2, 0.3, 0.4)
    lr: float = Field(0.02, gt=0)
    steps: int = Field(500, ge=1, le=1_000_000)


class Afr(HeadObjective[AfrSettings]):
    """Automatic feature reweighting: Qiu et al. (2023), Simple and Fast Group Robustness by Automatic Feature
    Reweighting.

    Samples that the first network did not see weigh exp(-gamma p) / n, with the probability p that it gives to the
    sample's class, and n samples of this class. The weights sum to 1. Full-batch gradient descent from the old head
    minimizes the weighted cross-entropy plus lambda times the squared distance from the old head. No group label
    enters. gamma, lambda and the number of steps are chosen on the selecting half of val, by worst-group accuracy as in
    the paper.

    Rate and number of steps are those of the authors' command for Waterbirds. The grid of gamma and lambda surrounds
    its values, 14 and 0.2. The authors use ten augmented views of each sample, here it is the image without
    augmentation.
    """

    def fit(self, fitting: Features, selecting: Features, head: Head) -> Head:
        settings = self.settings

        def candidates() -> Iterator[tuple[tuple[float, float, int], Head]]:
            for sharpness, strength in product(settings.sharpness, settings.strengths):
                weights = sample_weights(head.probabilities(fitting.values), fitting.y, sharpness)
                for step, found in reweighted_heads(head, fitting, weights, strength, settings.lr, settings.steps):
                    yield (sharpness, strength, step), found

        (sharpness, strength, step), found = best_candidate(candidates(), selecting, settings.select_by)
        log(f"afr: gamma {sharpness:g}, lambda {strength:g}, {step} steps")
        return found


def sample_weights(probabilities: Floats, y: NDArray[np.int64], sharpness: float) -> Floats:
    """The weight of each sample, [samples], with sum 1: exp(-sharpness x probability of its class) / size of its class.

    Arguments:
        probabilities: of the first network, [samples, classes].
        y: labels, [samples].
        sharpness: gamma of the paper.
    """
    weights = np.exp(-sharpness * probabilities[np.arange(len(y)), y]) / np.bincount(y)[y]
    weighed: Floats = weights / weights.sum()
    return weighed


def reweighted_heads(
    head: Head, fitting: Features, weights: Floats, strength: float, lr: float, steps: int
) -> Iterator[tuple[int, Head]]:
    """Gradient descent on the weighted cross-entropy, plus `strength` times the squared distance from the old head.

    Arguments:
        head: the old head, where the descent starts.
        fitting: features.
        weights: of the samples, [samples].
        strength: lambda of the paper.
        lr: rate of the descent.
        steps: number of steps.

    Yields:
        Number of steps and head, ten times, the last after all steps.
    """
    here, target = head, np.eye(len(head.weight))[fitting.y]
    every = max(1, steps // 10)
    for step in range(1, steps + 1):
        error = weights[:, None] * (here.probabilities(fitting.values) - target)  # [samples, classes]
        weight = here.weight - lr * (error.T @ fitting.values + 2 * strength * (here.weight - head.weight))
        bias = here.bias - lr * (error.sum(0) + 2 * strength * (here.bias - head.bias))
        here = Head(weight, bias)
        if step % every == 0 or step == steps:
            yield step, here
