"""Deep feature reweighting: a new classifier head on the features of a trained network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat

from ...console import log
from ...datasets.samples import Dataset, Samples
from ...errors import UserError
from ..epoch_selection import val_halves
from ..heads import Features, Floats, Head, HeadObjective, HeadSettings, best_candidate
from ..objective_settings import SplitAtPlus


class DfrSettings(HeadSettings):
    """Options of dfr.

    Arguments:
        fit_on, select_by: as for every head. Every group needs a sample to fit on.
        draws: number of balanced draws whose heads are averaged.
        strengths: candidates for the inverse strength of the L1 penalty. The best on the selecting half of val is used.
    """

    name: Literal["dfr"] = "dfr"
    draws: int = Field(10, ge=1, le=100_000)
    strengths: Annotated[tuple[PositiveFloat, ...], SplitAtPlus, Field(min_length=1)] = (
        1.0,
        0.7,
        0.3,
        0.1,
        0.07,
        0.03,
        0.01,
    )


class Dfr(HeadObjective[DfrSettings]):
    """Deep feature reweighting: its single epoch fits a new head (`fit_head`) on the features of a trained network."""

    @classmethod
    def check_data(cls, settings: DfrSettings, data: Dataset) -> None:
        fitting, _ = val_halves(data)
        if settings.fit_on == "val":
            check_group_samples(fitting, settings.name)

    def begin(self) -> None:
        super().begin()
        check_group_samples(self.fitting_samples(), self.settings.name)

    def fit(self, fitting: Features, selecting: Features, head: Head) -> Head:
        found, strength = fit_head(fitting, selecting, self.settings, self.training.config.seed)
        log(f"dfr: inverse strength of the penalty {strength:g}")
        return found


def fit_head(
    fitting: Features, selecting: Features, settings: DfrSettings | None = None, seed: int = 0
) -> tuple[Head, float]:
    """Fit a head by deep feature reweighting: Kirichenko et al. (2023), Last Layer Re-Training is Sufficient for
    Robustness to Spurious Correlations (there: DFR on validation data).

    Features are standardized by mean and deviation over the fitting samples. In each of several draws every group keeps
    as many random samples as the smallest group has. A logistic regression with an L1 penalty is fitted on them
    (liblinear; one against the rest for more than two classes). Coefficients and intercepts are averaged over the
    draws. The strength of the penalty is the one with the best worst-group accuracy on the selecting samples; of equals
    the weakest penalty, as in the authors' code. The paper selects on a part of the fitting half and then fits on all
    of it. Here the other half of val selects, as for every objective.

    Arguments:
        fitting: features on which the head is fitted.
        selecting: features that choose the strength.
        settings: draws and strengths.
        seed: of the draws.

    Returns:
        The head for features that are not standardized, and the inverse strength of its penalty.
    """
    settings = settings or DfrSettings()
    mean, deviation = fitting.values.mean(0), fitting.values.std(0)
    deviation = np.where(deviation > 0, deviation, 1)
    standard = (fitting.values - mean) / deviation

    def candidates() -> Iterator[tuple[float, Head]]:
        for strength in sorted(settings.strengths, reverse=True):
            drawn = balanced_draws(fitting.g, settings.draws, seed)
            fits = [_regression(standard[kept], fitting.y[kept], strength) for kept in drawn]
            weight, bias = (np.mean(of_draws, axis=0) for of_draws in zip(*fits, strict=True))
            yield strength, Head(weight / deviation, bias - weight @ (mean / deviation))

    strength, head = best_candidate(candidates(), selecting, settings.select_by)
    return head, strength


def balanced_draws(g: NDArray[np.int64], n: int, seed: int) -> Iterable[NDArray[np.int64]]:
    """`n` random draws in which every group has as many samples as the smallest one. Each draw is an array of positions
    in `g`."""
    rng = np.random.default_rng([seed, 0xDF12])
    groups, counts = np.unique(g, return_counts=True)
    for _ in range(n):
        yield np.concatenate([rng.permutation(np.flatnonzero(g == group))[: counts.min()] for group in groups])


def _regression(x: Floats, y: NDArray[np.int64], strength: float) -> tuple[Floats, Floats]:
    """Weight [classes, features] and bias [classes] of a logistic regression with an L1 penalty."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    one: Any = LogisticRegression(C=strength, l1_ratio=1, solver="liblinear", random_state=0, max_iter=1000)
    if y.max() > 1:
        fits = OneVsRestClassifier(one).fit(x, y).estimators_
        return np.concatenate([fit.coef_ for fit in fits]), np.concatenate([fit.intercept_ for fit in fits])
    fit = one.fit(x, y)
    half_weight, half_bias = (
        fit.coef_[0] / 2,
        fit.intercept_[0] / 2,
    )  # of the two logits' difference
    return np.stack([-half_weight, half_weight]), np.array([-half_bias, half_bias])


def check_group_samples(fitting: Samples, needed_by: str) -> None:
    """Check that every group of the data has a sample to fit on.

    Raises:
        UserError: one has none.
    """
    names = fitting.dataset.groups.names
    occurring = np.unique(fitting.dataset.g)
    missing = [names[group] for group in occurring if not (fitting.g == group).any()]
    if missing:
        raise UserError(
            f"group {missing[0]!r} has no sample among those that {needed_by} fits on: give it at least two in "
            "val, or choose another objective"
        )
