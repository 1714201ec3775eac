"""Fine-tuning that contrasts a network with its pruned copy."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from ...criteria.names import Order
from ...criteria.presets import is_transformer, tracing_rules
from ...datasets.samples import Samples
from ...datasets.sources import Inputs
from ...networks.losses import LOSSES
from ...networks.names import LayerKind, LossName
from ...networks.running_statistics import repeat_first_pass, statistics
from ...networks.selection import Selection
from ...runs.run import Run
from ...seeds import derived_seed
from ...settings import MAX_COUNT
from ..contrast import dense_pruned_contrast
from ..masks import Mask, as_mask, parameter_masks, pruned_units
from ..names import Recipe
from ..objective import Objective, Training
from ..objective_settings import ObjectiveSettings, SplitAtPlus
from ..shared_passes import features_and_logits_of_all

_PAPER: dict[str, Any] = {
    "mask": "magnitude-smallest",
    "contrast": "probabilities",
    "running_statistics": "dense-pruned-dense",
    "strictly_beyond": True,
    "order": "lowest_loss",
}
"""The released fine-tuning script of You et al. (2025)."""


class PrunedContrastSettings(ObjectiveSettings):
    """Options of pruned-contrast.

    Arguments:
        mask: which units are pruned: those with the largest gradients on the hardest samples, the smallest or largest
            weights, random ones, or none.
        fraction: fraction of the units that is pruned, rounded up.
        refresh: choose the units again before every epoch; otherwise once.
        contrast: what is contrasted: penultimate "features", "logits" or "probabilities".
        temperature: of the contrast.
        contrast_weight, cross_entropy_weight: weights of the two parts of the loss.
        running_statistics: which passes move the running statistics of batch norm: the "dense" one, or
            "dense-pruned-dense", as three passes in this order would.
        unit: what is pruned. None means single weights for a magnitude mask and channels otherwise.
        layers: kinds of layer whose units are considered. None means both.
        with_bias: a channel includes its bias. None means yes.
        strictly_beyond: with magnitude-largest, prune only weights larger than the last selected one: one fewer.
        n_hardest: maximum number of hardest samples for the gradient, chosen without regard to groups.
        order: which samples are the hardest: "highest_loss", or, as in the research code, "lowest_loss".
    """

    continues: ClassVar[bool] = True
    prunes: ClassVar[bool] = True
    trains_linear_head: ClassVar[bool] = False
    passes_per_sample: ClassVar[int] = 2

    name: Literal["pruned-contrast"] = "pruned-contrast"
    mask: Mask = "gradient"
    fraction: float = Field(0.01, ge=0, lt=1)
    refresh: bool = True
    contrast: Literal["features", "logits", "probabilities"] = "features"
    temperature: float = Field(0.5, gt=0)
    contrast_weight: float = Field(1.0, ge=0)
    cross_entropy_weight: float = Field(0.2, ge=0)
    running_statistics: Literal["dense", "dense-pruned-dense"] = "dense"
    unit: Literal["channel", "weight"] | None = None
    layers: Annotated[tuple[LayerKind, ...] | None, SplitAtPlus] = None
    with_bias: bool | None = None
    strictly_beyond: bool = False
    n_hardest: int = Field(200, ge=1, le=MAX_COUNT)
    order: Order = "highest_loss"

    def expanded(self, recipe: Recipe, model: nn.Module) -> Self:
        paper = recipe == "paper-pruning"
        filled: dict[str, Any] = dict(_PAPER) if paper else {}
        mask = self.mask if "mask" in self.model_fields_set else filled.get("mask", self.mask)
        unit = self.unit or _unit_of(mask)
        if paper:
            unit = "weight" if is_transformer(model) else unit
            select = tracing_rules("paper", "gradient", unit, model).select
            filled |= {"layers": select.layers, "with_bias": select.with_bias}
        else:
            filled |= {"layers": ("conv", "linear"), "with_bias": True}
        filled["unit"] = unit
        left_open = {
            name: value
            for name, value in filled.items()
            if name not in self.model_fields_set or getattr(self, name) is None
        }
        return self.model_copy(update=left_open)


class PrunedContrast(Objective[PrunedContrastSettings]):
    """Fine-tuning that contrasts a network with its pruned copy: You et al. (2025), Methods.

    The units to prune are chosen before every epoch. In a step the samples pass through the dense network and through
    its pruned copy, which shares its weights. NT-Xent pulls both outputs of a sample together, and apart from those of
    other samples: once with the dense output held fixed and once with the pruned output held fixed. The cross-entropy
    of the dense output is added with a small weight. The dense network is kept.

    A step takes two passes. The research code takes three, the first without gradients, and each moves the running
    statistics of batch norm. With `running_statistics="dense-pruned-dense"` they end at the same values. With "dense"
    the pruned pass normalizes with its own batch and moves nothing.
    """

    def __init__(self, settings: PrunedContrastSettings, training: Training) -> None:
        super().__init__(settings, training)
        self.masks: dict[str, Tensor] | None = None

    def begin(self) -> None:
        if self.settings.mask != "gradient":  # an error must come before anything is stored
            self._masks(1)

    def begin_epoch(self, epoch: int) -> None:
        if self.masks is None or self.settings.refresh:
            self.masks = self._masks(epoch)

    def _masks(self, epoch: int) -> dict[str, Tensor]:
        model, config, settings = self.training.model, self.training.config, self.settings
        hardest = None
        if settings.mask == "gradient":
            train = self.training.data.train
            hardest = stored_hardest(
                self.training.run, epoch - 1, train, settings.n_hardest, settings.order, config.loss
            )
        units = pruned_units(
            model,
            settings.mask,
            settings.fraction,
            hardest,
            select=Selection(
                unit=settings.unit or _unit_of(settings.mask),
                layers=settings.layers or ("conv", "linear"),
                with_bias=settings.with_bias if settings.with_bias is not None else True,
            ),
            loss=config.loss,
            strictly_beyond=settings.strictly_beyond,
            seed=derived_seed(config.seed, "mask", epoch),
        )
        return parameter_masks(model, units)

    def loss(self, inputs: Inputs, y: Tensor, index: Tensor) -> Tensor:
        return finetuning_loss(
            self.training.model, self.masks or {}, inputs, y, self.settings, self.training.config.loss
        )

    def passes(self, epoch: int) -> int:
        chooses = self.settings.mask == "gradient" and (self.settings.refresh or epoch == 1)
        return super().passes(epoch) + (min(self.settings.n_hardest, len(self.training.data.train)) if chooses else 0)

    def pruned(self) -> nn.Module:
        """A copy of the network, pruned as in the epoch that has ended."""
        pruned = copy.deepcopy(self.training.model)
        with torch.no_grad():
            for name, mask in (self.masks or {}).items():
                pruned.get_parameter(name).mul_(mask)
        return pruned

    def state(self) -> dict[str, Any]:
        masks = {} if self.settings.refresh else (self.masks or {})
        return {"masks": {name: mask.bool().cpu() for name, mask in masks.items()}}

    def load_state(self, state: dict[str, Any]) -> None:
        if state["masks"]:
            self.masks = {name: as_mask(self.training.model, name, mask) for name, mask in state["masks"].items()}


def finetuning_loss(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    inputs: Inputs,
    y: Tensor,
    settings: PrunedContrastSettings,
    loss: LossName = "cross_entropy",
) -> Tensor:
    """The loss of a batch: the contrast of the dense and the pruned network, plus the mean loss of the dense one.

    Arguments:
        model: the network. In training mode its running statistics move as the settings say.
        masks: {parameter: 0 where it is pruned, 1 elsewhere}, from `parameter_masks`.
        inputs, y: the batch, on the network's device; of several processes, the inputs are this one's part.
        settings: contrast, temperature, weights.
        loss: name of the loss of a sample.
    """
    repeats = settings.running_statistics == "dense-pruned-dense" and model.training
    before = statistics(model) if repeats else {}
    dense_features, dense = features_and_logits_of_all(model, inputs, len(y))
    after_dense = statistics(model)
    parameters = dict(model.named_parameters())
    changed = {name: parameters[name] * mask for name, mask in masks.items()}
    if settings.running_statistics == "dense":
        changed |= after_dense
    pruned_features, pruned = features_and_logits_of_all(model, inputs, len(y), changed)
    if repeats:
        repeat_first_pass(model, before, after_dense)
    match settings.contrast:
        case "features":
            views = dense_features, pruned_features
        case "logits":
            views = dense, pruned
        case "probabilities":
            views = dense.softmax(1), pruned.softmax(1)
    contrast = dense_pruned_contrast(*views, settings.temperature)
    return settings.contrast_weight * contrast + settings.cross_entropy_weight * LOSSES[loss](dense, y).mean()


def stored_hardest(run: Run, epoch: int, samples: Samples, n: int, order: Order, loss: LossName) -> Samples:
    """At most `n` hardest samples, by the stored predictions of a run; ties in the order of their indices."""
    probabilities = torch.tensor(run.predictions(epoch, samples.split).loc[samples.index].to_numpy())
    losses = LOSSES[loss](probabilities.clamp(min=1e-30).log(), torch.from_numpy(samples.y)).numpy()
    ranked = np.lexsort((samples.index, -losses if order == "highest_loss" else losses))
    return samples.at(samples.index[ranked[:n]])


def _unit_of(mask: Mask) -> Literal["channel", "weight"]:
    """What a mask prunes if the user does not choose it."""
    return "weight" if mask.startswith("magnitude") else "channel"
