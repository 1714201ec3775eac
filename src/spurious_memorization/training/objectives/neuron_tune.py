"""NeuronTune: a new head without the features that go with errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat

from ...console import log
from ..epoch_selection import val_halves
from ..heads import Features, FitOn, Head, HeadObjective, HeadSettings, SelectBy, best_candidate, retrained
from ..objective import NotApplicableError
from ..objective_settings import SplitAtPlus


class NeuronTuneSettings(HeadSettings):
    """Options of neuron-tune.

    Arguments:
        fit_on: the samples on which the head is trained, in the paper the training samples.
        select_by: as for every head. The paper needs no groups: it selects by the worst class.
        threshold: a feature is biased if its median is larger by more than this on misclassified samples of a class.
        lrs: candidates for the learning rate.
        steps: number of batches.
        batch_size: samples per batch.
    """

    name: Literal["neuron-tune"] = "neuron-tune"
    fit_on: FitOn = "train"
    select_by: SelectBy = "worst-class"
    threshold: float = Field(0.0, ge=0)
    lrs: Annotated[tuple[PositiveFloat, ...], SplitAtPlus, Field(min_length=1)] = (1e-4, 1e-3, 1e-2)
    steps: int = Field(1000, ge=1, le=1_000_000)
    batch_size: int = Field(128, ge=1, le=100_000)


class NeuronTune(HeadObjective[NeuronTuneSettings]):
    """NeuronTune: Zheng et al. (2025), NeuronTune: Towards Self-Guided Spurious Bias Mitigation.

    A penultimate feature is biased if, for some class, its median over misclassified samples of the class is larger
    than that over correctly classified ones. Errors are those of the old head on the fitting half of val. The biased
    features are zeroed, and the head is trained further without them, with classes drawn equally often. No group label
    enters.

    The paper repeats both steps. Here the features are chosen once, by the old head. Rate, steps and batch size are not
    taken from the paper; the rate is chosen on the selecting half of val.
    """

    def fit(self, fitting: Features, selecting: Features, head: Head) -> Head:
        settings, seed = self.settings, self.training.config.seed
        biased = biased_features(self.features(val_halves(self.training.measured)[0]), head, settings.threshold)
        if biased.all():
            raise NotApplicableError("every feature counts as biased: give a larger threshold")
        log(f"neuron-tune: {int(biased.sum())} of {len(biased)} features are biased")
        kept = np.tile(~biased, (len(head.weight), 1))
        masked = Head(head.weight * kept, head.bias)

        def candidates() -> Iterator[tuple[float, Head]]:
            for lr in settings.lrs:
                steps, size = settings.steps, settings.batch_size
                yield lr, retrained(masked, fitting, steps=steps, batch_size=size, lr=lr, kept=kept, seed=seed)

        lr, found = best_candidate(candidates(), selecting, settings.select_by)
        log(f"neuron-tune: rate {lr:g}")
        return found


def biased_features(samples: Features, head: Head, threshold: float) -> NDArray[np.bool_]:
    """Whether each feature is biased, [features].

    Arguments:
        samples: features with their labels.
        head: whose errors count.
        threshold: the difference of medians that is exceeded.
    """
    right = head.predict(samples.values) == samples.y
    biased = np.zeros(samples.values.shape[1], bool)
    for label in np.unique(samples.y):
        correct, wrong = (samples.values[(samples.y == label) & (right == side)] for side in (True, False))
        if len(correct) and len(wrong):
            biased |= np.median(wrong, axis=0) - np.median(correct, axis=0) > threshold
    return biased
