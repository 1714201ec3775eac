"""A classifier head that is fitted anew on the features of a trained network, whose other layers stay as they are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..console import log
from ..datasets.samples import Dataset, Samples
from ..errors import UserError
from ..networks.features import features_and_logits, head_name
from ..networks.forward import autocast, choose_device, exact_float32, moved, working_copy
from ..networks.head import linear_head
from ..networks.losses import cross_entropy, finite
from ..networks.names import Precision
from ..networks.weights import add_biases
from ..runs.epochs import run_and_epoch
from ..runs.run import Run
from ..settings import Execution
from .epoch_selection import val_halves
from .gradient_steps import GradientSteps
from .held_out import held_out
from .objective import Objective
from .objective_settings import ObjectiveSettings

Floats = NDArray[np.float64]

FitOn = Literal["val", "held-out", "train"]
"""Samples on which a head is fitted: the fitting half of val; the training samples that the first training held out
(`--hold-out`); or all training samples."""


SelectBy = Literal["worst-group", "worst-class"]
"""What the selecting half of val judges candidates by."""


class HeadSettings(ObjectiveSettings):
    """Options of an objective that fits a new head.

    Arguments:
        fit_on: the samples on which the head is fitted.
        select_by: what the selecting half of val judges candidates by: the least accuracy of a group, or of a class,
            which needs no groups.
    """

    continues: ClassVar[bool] = True
    fixed_settings: ClassVar[Mapping[str, Any]] = {"epochs": 1, "checkpoint_every": 1}

    fit_on: FitOn = "val"
    select_by: SelectBy = "worst-group"

    @property
    def fits_on_held_out(self) -> bool:
        return self.fit_on == "held-out"


@dataclass(frozen=True, eq=False)
class Head:
    """A linear head.

    Arguments:
        weight: [classes, features].
        bias: [classes].
    """

    weight: Floats
    bias: Floats

    def logits(self, features: Floats) -> Floats:
        """Logits of each sample, [samples, classes]; features [samples, features]."""
        logits: Floats = features @ self.weight.T + self.bias
        return logits

    def probabilities(self, features: Floats) -> Floats:
        """Class probabilities of each sample, [samples, classes]."""
        logits = self.logits(features)
        powers = np.exp(logits - logits.max(1, keepdims=True))
        probabilities: Floats = powers / powers.sum(1, keepdims=True)
        return probabilities

    def predict(self, features: Floats) -> NDArray[np.int64]:
        """Class of each sample, [samples]."""
        predicted: NDArray[np.int64] = self.logits(features).argmax(1)
        return predicted


@dataclass(frozen=True, eq=False)
class Features:
    """Penultimate features of some samples.

    Arguments:
        values: [samples, features].
        y: label of each sample, [samples].
        g: group of each sample, [samples].
    """

    values: Floats
    y: NDArray[np.int64]
    g: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.values)

    def at(self, positions: NDArray[np.int64]) -> Features:
        """The features of the samples at these positions, in this order."""
        return Features(self.values[positions], self.y[positions], self.g[positions])


H = TypeVar("H", bound=HeadSettings)


class FeatureObjective(Objective[H], ABC):
    """An objective whose only epoch replaces the head, by what it learns from the features of a trained network."""

    @classmethod
    def check_data(cls, settings: H, data: Dataset) -> None:
        val_halves(data)

    @abstractmethod
    def replace_head(self, fitting: Features, selecting: Features) -> None:
        """Give the trained network its new head.

        Arguments:
            fitting: features on which it is fitted.
            selecting: features of the half of val that chooses among candidates.
        """

    def begin(self) -> None:
        super().begin()
        self.fitting_samples()

    def fitting_samples(self) -> Samples:
        """The samples on which the head is fitted.

        Raises:
            UserError: there are none.
        """
        training = self.training
        match self.settings.fit_on:
            case "val":
                return val_halves(training.measured)[0]
            case "train":
                return training.data.train
            case "held-out":
                path, _ = run_and_epoch(str(training.config.start))
                settings = Run(path).record.settings
                share = settings.get("hold_out", 0.0)
                if not share:
                    raise UserError(
                        f"{self.settings.name} fits on training samples that {path} did not see, and it saw all of "
                        "them: train it with --hold-out 0.2, or fit on others with fit_on=val"
                    )
                return training.measured.train.at(held_out(training.measured, share, int(settings["seed"])))

    def features(self, samples: Samples, model: nn.Module | None = None) -> Features:
        """Features of some samples, by the trained network or by another one of the same kind."""
        training = self.training
        return features_of(model or training.model, samples, training.config.known_precision, training.execution)

    def run_epoch(self, epoch: int, steps: GradientSteps) -> None:
        fitting, (_, selecting) = self.fitting_samples(), val_halves(self.training.measured)
        log(f"{self.settings.name}: a new head, fitted on {len(fitting)} samples")
        self.replace_head(self.features(fitting), self.features(selecting))

    def passes(self, epoch: int) -> int:
        return len(self.fitting_samples())


class HeadObjective(FeatureObjective[H]):
    """An objective whose only epoch fits a new linear head. A method says in `fit` how."""

    @abstractmethod
    def fit(self, fitting: Features, selecting: Features, head: Head) -> Head:
        """The new head.

        Arguments:
            fitting, selecting: as for `replace_head`.
            head: of the network from which the training started.
        """

    def begin(self) -> None:
        super().begin()
        linear_head(self.training.model, self.settings.name)

    def replace_head(self, fitting: Features, selecting: Features) -> None:
        model = self.training.model
        set_head(model, self.fit(fitting, selecting, head_of(model)))


def head_of(model: nn.Module) -> Head:
    """The values of a network's linear head."""
    layer = linear_head(model, "a new head")
    weight = layer.weight.detach().cpu().double().numpy()
    bias = np.zeros(len(weight)) if layer.bias is None else layer.bias.detach().cpu().double().numpy()
    return Head(weight, bias)


def set_head(model: nn.Module, head: Head) -> None:
    """Give a network's linear head these values."""
    layer = linear_head(model, "a new head")
    add_biases(model, {f"{head_name(model)}.bias": torch.from_numpy(head.bias).to(layer.weight)})
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(head.weight))
        layer.bias.copy_(torch.from_numpy(head.bias))


def features_of(model: nn.Module, samples: Samples, precision: Precision, execution: Execution) -> Features:
    """Penultimate features in evaluation mode.

    Raises:
        UserError: a feature or logit is NaN or infinite.
    """
    device = choose_device(execution.device)
    network, found = working_copy(model, device), []
    with torch.no_grad(), exact_float32(), autocast(device, precision):
        for batch in samples.batches(execution.samples_per_pass, execution.workers or 0):
            features, output = features_and_logits(network, moved(batch.inputs, device))
            for values in (features, output):
                finite(values, batch.index, "the network whose head is fitted anew", source=samples.dataset.source)
            found.append(features.cpu().double().numpy())
    return Features(np.concatenate(found), samples.y, samples.g)


def least_accuracy(predicted: NDArray[np.int64], features: Features, by: SelectBy = "worst-group") -> float:
    """The least accuracy of predicted classes, [samples], among the groups or among the classes."""
    right = predicted == features.y
    member = features.g if by == "worst-group" else features.y
    return float(min(right[member == one].mean() for one in np.unique(member)))


def retrained(
    head: Head,
    fitting: Features,
    *,
    steps: int,
    batch_size: int,
    lr: float,
    momentum: float = 0.9,
    kept: NDArray[np.bool_] | None = None,
    seed: int = 0,
) -> Head:
    """Train a head further by stochastic gradient descent on the cross-entropy. Each class is drawn equally often.

    Arguments:
        head: where training starts; it stays as it is.
        fitting: features on which it is trained.
        steps: number of batches.
        batch_size: samples per batch, drawn with replacement.
        lr, momentum: of the optimizer.
        kept: the weights that are trained, [classes, features]; the others stay as they are. None means all.
        seed: of the draws.
    """
    rng = np.random.default_rng([seed, 0x5E1F])
    classes, counts = np.unique(fitting.y, return_counts=True)
    likely = (1 / (len(classes) * counts))[np.searchsorted(classes, fitting.y)]
    values, y = torch.from_numpy(fitting.values), torch.from_numpy(fitting.y)
    weight, bias = (torch.tensor(part, requires_grad=True) for part in (head.weight, head.bias))
    if kept is not None:
        trained = torch.from_numpy(kept)
        weight.register_hook(lambda gradient: gradient * trained)  # type: ignore[no-untyped-call]
    optimizer = torch.optim.SGD([weight, bias], lr=lr, momentum=momentum)
    for _ in range(steps):
        drawn = torch.from_numpy(rng.choice(len(fitting), batch_size, p=likely))
        optimizer.zero_grad()
        cross_entropy(values[drawn] @ weight.T + bias, y[drawn]).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return Head(weight.detach().numpy(), bias.detach().numpy())


T = TypeVar("T")


def best_candidate(
    candidates: Iterable[tuple[T, Head]], selecting: Features, by: SelectBy = "worst-group"
) -> tuple[T, Head]:
    """The candidate whose head has the best `least_accuracy`; the first of equals.

    Arguments:
        candidates: at least one description with its head.
        selecting: features that judge them.
        by: groups or classes.
    """
    valued = (
        (least_accuracy(head.predict(selecting.values), selecting, by), described, head)
        for described, head in candidates
    )
    _, described, head = max(valued, key=lambda one: one[0])
    return described, head
