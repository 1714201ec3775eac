"""Fine-tuning with pruning, and its control."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...criteria.names import Order
from ...datasets.samples import Samples
from ...datasets.sources import Inputs
from ...networks.features import features_and_logits
from ...networks.losses import LOSSES
from ...networks.names import LossName
from ...networks.running_statistics import repeat_first_pass, statistics
from ...networks.selection import Selection
from ...runs.run import Run
from ...seeds import derived_seed
from .contrast import dense_pruned_contrast
from .masks import as_mask, kept, pruned_units
from .objective import Objective, Training
from .settings import ErmContinueSettings, PrunedContrastSettings


class ErmContinue(Objective):
    """ERM continued from another run: what pruned-contrast must beat. Its loss is that of pruned-contrast without the
    contrast, with the same weight; a step passes each sample once instead of twice."""

    def __init__(self, settings: ErmContinueSettings, training: Training) -> None:
        super().__init__(training)
        self.settings = settings

    def loss(self, inputs: Inputs, y: Tensor, index: Tensor) -> Tensor:
        return self.settings.cross_entropy_weight * super().loss(inputs, y, index)


class PrunedContrast(Objective):
    """Fine-tuning that contrasts a network with its pruned copy: You et al. (2025), Methods.

    Before every epoch the units to prune are chosen. In a step the samples pass through the dense network and through
    its pruned copy, which shares its weights; NT-Xent pulls both outputs of a sample together and apart from those of
    other samples, once with the dense and once with the pruned output held fixed; the cross-entropy of the dense output
    is added with a small weight. The dense network is kept.

    Two passes a step. The research code makes three, the first without gradients, and each moves batch norm's running
    statistics; `running_statistics="dense-pruned-dense"` ends where they do. With "dense" the pruned pass normalizes
    with its own batch and moves nothing.
    """

    passes_a_sample = 2

    def __init__(self, settings: PrunedContrastSettings, training: Training) -> None:
        super().__init__(training)
        self.settings = settings
        self.masks: dict[str, Tensor] | None = None

    def begin(self) -> None:
        if self.settings.mask != "gradient":  # refuse before anything is stored
            self._chosen(1)

    def begin_epoch(self, epoch: int) -> None:
        if self.masks is None or self.settings.refresh:
            self.masks = self._chosen(epoch)

    def _chosen(self, epoch: int) -> dict[str, Tensor]:
        model, config, settings = self.training.model, self.training.config, self.settings
        worst = None
        if settings.mask == "gradient":
            train = self.training.data.train
            worst = stored_hardest(self.training.run, epoch - 1, train, settings.n_hardest, settings.order, config.loss)
        units = pruned_units(
            model,
            settings.mask,
            settings.fraction,
            worst,
            select=Selection(
                unit=settings.unit or ("weight" if settings.mask.startswith("magnitude") else "channel"),
                layers=settings.layers or ("conv", "linear"),
                with_bias=settings.with_bias if settings.with_bias is not None else True,
            ),
            loss=config.loss,
            strictly_beyond=settings.strictly_beyond,
            seed=derived_seed(config.seed, "mask", epoch),
        )
        return kept(model, units)

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
    """The loss of a batch: the contrast of the dense and the pruned network, and the dense one's mean loss.

    Arguments:
        model: in training mode its running statistics move as the settings say.
        masks: {parameter: 0 where it is pruned, 1 elsewhere}, as `kept` gives them.
        inputs, y: the batch, on the network's device.
        settings: contrast, temperature, weights.
        loss: name of the loss of a sample.
    """
    repeats = settings.running_statistics == "dense-pruned-dense" and model.training
    before = statistics(model) if repeats else {}
    dense_features, dense = features_and_logits(model, inputs)
    after_dense = statistics(model)
    parameters = dict(model.named_parameters())
    changed = {name: parameters[name] * mask for name, mask in masks.items()}
    if settings.running_statistics == "dense":
        changed |= after_dense
    pruned_features, pruned = features_and_logits(model, inputs, changed)
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
    """The at most `n` hardest samples by the predictions that a run has stored; ties in the order of their indices."""
    probabilities = torch.tensor(run.predictions(epoch, samples.split).loc[samples.index].to_numpy())
    losses = LOSSES[loss](probabilities.clamp(min=1e-30).log(), torch.from_numpy(samples.y)).numpy()
    ranked = np.lexsort((samples.index, -losses if order == "highest_loss" else losses))
    return samples.at(samples.index[ranked[:n]])
