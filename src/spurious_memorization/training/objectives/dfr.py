"""Deep feature reweighting: a new classifier head on the features of a trained network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat
from torch import nn

from ...console import log
from ...datasets.samples import Dataset, Samples
from ...errors import UserError
from ...networks.features import features_and_logits, head_name
from ...networks.forward import autocast, choose_device, moved, working_copy
from ...networks.head import head_names
from ...networks.losses import finite
from ...networks.names import Precision
from ...networks.weights import add_biases
from ...settings import Execution
from ..epoch_selection import val_halves
from ..gradient_steps import GradientSteps
from ..objective import Objective
from ..objective_settings import ObjectiveSettings, SplitAtPlus

Floats = NDArray[np.float64]


class DfrSettings(ObjectiveSettings):
    """Options of dfr.

    Arguments:
        draws: number of balanced draws whose heads are averaged.
        strengths: candidates for the inverse strength of the L1 penalty. The best on the selecting half of val is used.
    """

    continues: ClassVar[bool] = True
    fixed_settings: ClassVar[Mapping[str, Any]] = {"epochs": 1, "checkpoint_every": 1}

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


class Dfr(Objective[DfrSettings]):
    """Deep feature reweighting: its single epoch fits a new head (`fit_head`) on the features of a trained network."""

    @classmethod
    def check_data(cls, settings: DfrSettings, data: Dataset) -> None:
        fitting, _ = val_halves(data)
        check_group_samples(fitting)

    def run_epoch(self, epoch: int, steps: GradientSteps) -> None:
        training = self.training
        model, fitting, selecting = training.model, *val_halves(training.data)
        head = _linear_head(model)
        precision, execution = training.config.precision, training.execution
        found = fit_head(
            features_of(model, fitting, precision, execution),
            fitting.y,
            fitting.g,
            (features_of(model, selecting, precision, execution), selecting.y, selecting.g),
            self.settings,
            training.config.seed,
        )
        log(f"dfr: fitted on {len(fitting)} samples of val, inverse strength of the penalty {found.strength:g}")
        add_biases(model, {f"{head_name(model)}.bias": torch.from_numpy(found.bias).to(head.weight)})
        with torch.no_grad():
            head.weight.copy_(torch.from_numpy(found.weight))
            head.bias.copy_(torch.from_numpy(found.bias))

    def passes(self, epoch: int) -> int:
        fitting, _ = val_halves(self.training.data)
        return len(fitting)


@dataclass(frozen=True, eq=False)
class Head:
    """A linear head.

    Arguments:
        weight: [classes, features].
        bias: [classes].
        strength: the inverse strength of the penalty that it was fitted with.
    """

    weight: Floats
    bias: Floats
    strength: float

    def predict(self, features: Floats) -> NDArray[np.int64]:
        """Class of each sample, [samples]; features [samples, features]."""
        predicted: NDArray[np.int64] = (features @ self.weight.T + self.bias).argmax(1)
        return predicted


def fit_head(
    fitting: Floats,
    y: NDArray[np.int64],
    g: NDArray[np.int64],
    selecting: tuple[Floats, NDArray[np.int64], NDArray[np.int64]],
    settings: DfrSettings,
    seed: int = 0,
) -> Head:
    """Fit a head by deep feature reweighting: Kirichenko et al. (2023), Last Layer Re-Training is Sufficient for
    Robustness to Spurious Correlations (there: DFR on validation data).

    Features are standardized by mean and deviation over the fitting samples. In each of several draws every group keeps
    as many random samples as the smallest group has. A logistic regression with an L1 penalty is fitted on them
    (liblinear; one against the rest for more than two classes). Coefficients and intercepts are averaged over the
    draws. The strength of the penalty is the one with the best worst-group accuracy on the selecting samples; of equals
    the strongest penalty. The paper selects on a part of the fitting half and then fits on all of it. Here the other
    half of val selects, as for every objective.

    Arguments:
        fitting: features, [samples, features]; y, g: their labels and groups.
        selecting: features, labels and groups of the selecting samples.
        settings: draws and strengths.
        seed: of the draws.

    Returns:
        The head for features that are not standardized.
    """
    mean, deviation = fitting.mean(0), fitting.std(0)
    deviation = np.where(deviation > 0, deviation, 1)
    standard = (fitting - mean) / deviation
    candidates = []
    for strength in sorted(settings.strengths):
        fits = [_regression(standard[drawn], y[drawn], strength) for drawn in balanced_draws(g, settings.draws, seed)]
        weight, bias = (np.mean(of_draws, axis=0) for of_draws in zip(*fits, strict=True))
        head = Head(weight / deviation, bias - weight @ (mean / deviation), strength)
        candidates.append((_worst_group(head, *selecting), head))
    return max(candidates, key=lambda candidate: candidate[0])[1]


def balanced_draws(g: NDArray[np.int64], n: int, seed: int) -> Iterable[NDArray[np.int64]]:
    """`n` random draws in which every group has as many samples as the smallest one. Each draw is an array of positions
    in `g`."""
    rng = np.random.default_rng([seed, 0xDF12])
    groups, counts = np.unique(g, return_counts=True)
    for _ in range(n):
        yield np.concatenate([rng.permutation(np.flatnonzero(g == group))[: counts.min()] for group in groups])


def _linear_head(model: nn.Module) -> nn.Linear:
    names = head_names(model)
    layers = [model.get_submodule(name) for name in names]
    if len(layers) != 1 or not isinstance(layers[0], nn.Linear):
        found = f"the layers {', '.join(names)}" if names else "no layer"
        raise UserError(
            f"dfr needs one linear layer that gives the logits; here it is {found}: choose another objective"
        )
    return layers[0]


def features_of(model: nn.Module, samples: Samples, precision: Precision, execution: Execution) -> Floats:
    """Penultimate features in evaluation mode, [samples, features]."""
    device = choose_device(execution.device)
    network, found = working_copy(model, device), []
    with torch.no_grad(), autocast(device, precision):
        for batch in samples.batches(execution.eval_batch_size, execution.workers or 0):
            features, output = features_and_logits(network, moved(batch.inputs, device))
            for values in (features, output):
                finite(values, batch.index, "the network that dfr starts from", source=samples.dataset.source)
            found.append(features.cpu().double().numpy())
    return np.concatenate(found)


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


def _worst_group(head: Head, features: Floats, y: NDArray[np.int64], g: NDArray[np.int64]) -> float:
    right = head.predict(features) == y
    return float(min(right[g == group].mean() for group in np.unique(g)))


def check_group_samples(fitting: Samples) -> None:
    """Check that every group of the data has a sample to fit on.

    Raises:
        UserError: one has none.
    """
    names = fitting.dataset.groups.names
    occurring = np.unique(fitting.dataset.g)
    missing = [names[group] for group in occurring if not (fitting.g == group).any()]
    if missing:
        raise UserError(
            f"group {missing[0]!r} has no sample in the half of val that dfr fits on: give it at least two in val, or "
            "choose another objective"
        )
